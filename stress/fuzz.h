/* fuzz.h -- what the fuzzers share: one input is a string of bytes, and every string of bytes is an input.
 *
 * PURPOSE   A fuzzer defines LLVMFuzzerTestOneInput, which judges one input by a model of what the library promises, and
 *           fuzz_draw, which makes an input of random numbers. With libFuzzer (the preset `fuzz`) the inputs are searched for;
 *           without it main replays files, then goes on with inputs drawn from a printed seed, each in a child of its own, so
 *           that one that fails does so alone, too:
 *
 *              fuzz_calls                              the committed corpus, then what is drawn
 *              fuzz_calls FILE                         that input
 *              fuzz_calls --ops 1 --seed 7 /dev/null   the one that was drawn from seed 7
 *              build-fuzz/stress/fuzz_calls -fork=2 -timeout=60 -max_len=4096 DIRECTORY stress/corpus/fuzz_calls    for hours
 *
 * INVARIANTS
 *   input-decides   What an input does follows from its bytes: no clock, no free-running thread, no address takes part.
 *                   libFuzzer tries one after the other in one process, and so on the heap that the others have left.
 */
#ifndef STRESS_FUZZ_H
#define STRESS_FUZZ_H

#include "storm.h"

#include <dirent.h>
#include <sys/stat.h>

enum { fuzz_max_input = 4096 };

/* Without libFuzzer's header, which is a part of clang. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input of at most fuzz_max_input bytes; returns its size. */
static size_t fuzz_draw(struct rng *rng, uint8_t *data);

#ifdef STRESS_LIBFUZZER
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);

/* Now and then a fresh input, else libFuzzer's own mutations. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
    struct rng rng = {mix(seed)};
    return room >= fuzz_max_input && storm_one_in(&rng, 64) ? fuzz_draw(&rng, data)
                                                            : LLVMFuzzerMutate(data, size, room);
}
#else
static uint8_t fuzz_input[fuzz_max_input];

static inline void fuzz_one(long size) { LLVMFuzzerTestOneInput(fuzz_input, (size_t)size); }

/* One input, or all those of a directory; returns how many. */
static inline long fuzz_replay(const char *path) {
    struct stat about;
    REQUIRE(stat(path, &about) == 0, "%s: errno %d", path, errno);
    if (!S_ISDIR(about.st_mode)) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t size = fd < 0 ? -1 : read(fd, fuzz_input, sizeof fuzz_input);
        REQUIRE(size >= 0, "%s: errno %d", path, errno);
        close(fd);
        storm_in_child(fuzz_one, size, path);
        return 1;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    long inputs = 0;
    for (int i = 0; i < count; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            inputs += fuzz_replay(file);
        free(entries[i]);
    }
    REQUIRE(count >= 0, "%s: errno %d", path, errno);
    free(entries);
    return inputs;
}

/* Inputs are drawn for `seconds`, or `ops` of them; the number n is drawn from seed + n. */
static inline int fuzz_main(int argc, char **argv, const char *corpus) {
    long replayed = 0, drawn = 0;
    storm_begin(argc, argv, (struct storm_options){.seconds = 3, .threads = 1}, NULL);
    if (optind == argc)
        replayed = fuzz_replay(corpus);
    for (int i = optind; i < argc; i++)
        replayed += fuzz_replay(argv[i]);
    for (; (optind == argc || storm.ops) && storm_goes_on(drawn); drawn++) {
        struct rng rng = {mix(storm.seed + (uint64_t)drawn)};
        size_t size = fuzz_draw(&rng, fuzz_input);
        char what[64];
        snprintf(what, sizeof what, "drawn from seed %llu, size", (unsigned long long)storm.seed + (uint64_t)drawn);
        storm_in_child(fuzz_one, (long)size, what);
    }
    printf("%ld inputs replayed, %ld drawn\n", replayed, drawn);
    return 0;
}
#endif

#endif
