/* override_fork_stdio.c -- fork beside threads that sit in libc's own locks.
 *
 * libc takes the lock of every stream around fork, and calls malloc while it holds them: in fopen, getline,
 * fflush. An allocator that takes its locks before fork and waits for libc's in there hangs the parent; one
 * that takes none hangs the child. Other threads load and unload libraries, which allocates under the
 * loader's lock, and print to memory. By hand: --forks 10000 --threads 16.
 *
 * covers: S74 S81 C9
 */
/* test: args="--forks 60" timeout=240 libs=dl */
#define STORM_LIBC
#include "storm_block.h"

#include <dlfcn.h>

static long forks = 1000;
static _Atomic long forks_left;

static bool going(void) { return atomic_load_explicit(&forks_left, memory_order_relaxed) > 0 && !storm_past_end(); }

static void read_lines(void) {
    FILE *file = fopen("/proc/self/maps", "r");
    char *line = NULL;
    size_t room = 0;
    REQUIRE(file, "fopen: errno %d", errno);
    while (getline(&line, &room, file) > 0) {
    }
    free(line);
    fclose(file);
}

static void write_to_memory(struct rng *rng) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    REQUIRE(file, "open_memstream: errno %d", errno);
    for (uint64_t i = 50 + rng_below(rng, 500); i > 0; i--)
        fprintf(file, "%llu ", (unsigned long long)rng_next(rng));
    fclose(file);
    REQUIRE(strlen(text) == size, "a stream in memory lost text");
    free(text);
    REQUIRE(asprintf(&text, "%*d", (int)rng_below(rng, 3000), 7) >= 0, "asprintf: errno %d", errno);
    free(text);
}

static void *stdio_thread(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    FILE *mine = fopen("/dev/null", "w");
    while (going()) {
        switch (rng_below(&rng, 4)) {
        case 0:
            read_lines();
            break;
        case 1:
            write_to_memory(&rng);
            break;
        case 2:
            setvbuf(mine, NULL, _IOFBF, 1 << 12);
            fprintf(mine, "%*d\n", 3000, 7);
            break;
        default:
            fflush(NULL);
        }
    }
    fclose(mine);
    return NULL;
}

static void *loader_thread(void *index) {
    static const char *const libraries[] = {"libresolv.so.2", "libnss_dns.so.2", "libanl.so.1", "libBrokenLocale.so.1"};
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    while (going()) {
        void *library = dlopen(libraries[rng_below(&rng, COUNT_OF(libraries))], RTLD_NOW | RTLD_LOCAL);
        if (library) {
            dlsym(library, "there_is_no_such_name"); /* leaves an error text that the loader allocates */
            dlclose(library);
        }
        storm_churn(&rng, 10, 1 << 14);
    }
    return NULL;
}

static void *churner(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    while (going())
        storm_churn(&rng, 100, 1 << 18);
    return NULL;
}

/* No dlopen here: the loader's lock may belong to a vanished thread, which is libc's affair. */
static void child(long number) {
    struct rng rng = storm_rng_of(1000 + (uint64_t)number);
    storm_child();
    storm_empty_boxes(&rng);
    storm_workload(rng_next(&rng), 1);
    write_to_memory(&rng);
    read_lines();
    _exit(0);
}

static void *forker(void *unused) {
    (void)unused;
    long number;
    while ((number = atomic_fetch_sub_explicit(&forks_left, 1, memory_order_relaxed)) > 0 && !storm_past_end()) {
        pid_t pid = fork();
        REQUIRE(pid >= 0, "fork: errno %d", errno);
        if (pid == 0)
            child(number);
        storm_reap(pid, "fork", number);
    }
    return NULL;
}

static void *any_role(void *index) {
    static void *(*const roles[])(void *) = {forker, stdio_thread, stdio_thread, loader_thread, churner, forker};
    return roles[(size_t)(intptr_t)index % COUNT_OF(roles)](index);
}

int main(int argc, char **argv) {
    static const struct storm_extra extras[] = {{"forks", &forks, "children in all"}, {0}};
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 6}, extras);
    forks_left = forks;
    storm_team(storm.threads, any_role);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    printf("%ld forks\n", forks);
    return 0;
}
