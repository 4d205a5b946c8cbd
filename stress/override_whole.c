/* override_whole.c -- a whole program on the library under libc's names.
 *
 * The program that start.cmake also links statically and starts under odd conditions. It first makes sure that the malloc it
 * calls is the library's, then does everything: threads, forks, streams, every call.
 *
 * covers: S84 S86
 */
/* test: timeout=120 */
#define STORM_LIBC
#include "storm_block.h"

#pragma weak granary_version

/* A block's bytes show up in the library's figures, so libc's own malloc has not served it. */
static void is_ours(void) {
    struct granary_stats before = {0}, after = {0};
    REQUIRE(granary_version, "the library is not in the process");
    granary_get_stats(&before);
    void *large = malloc((size_t)5 << 20);
    REQUIRE(large, "no memory");
    granary_get_stats(&after);
    free(large);
    REQUIRE(after.used_bytes >= before.used_bytes + ((size_t)5 << 20), "malloc is not the library's");
}

static void use_streams(void) {
    char *text = NULL, *copy = strdup("granary");
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    REQUIRE(file && copy, "open_memstream: errno %d", errno);
    fprintf(file, "%s %0*d", copy, 5000, 7);
    fclose(file);
    REQUIRE(size == strlen(copy) + 1 + 5000 && text[size - 1] == '7', "a stream in memory holds %zu bytes", size);
    free(text);
    free(copy);
}

static void child(long seed) {
    storm_workload((uint64_t)seed, 2);
    use_streams();
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 60, .threads = 2}, NULL);
    is_ours();
    use_streams();
    for (long i = 0; i < storm.threads; i++) {
        storm_workload(storm.seed + (uint64_t)i, 3);
        storm_in_child(child, i, "child");
    }
    struct rng rng = storm_rng_of(1);
    storm_empty_boxes(&rng);
    return 0;
}
