/* fork_storm.c -- processes of many threads fork without pause, and every child can do everything.
 *
 * The parent's threads churn, start short-lived threads, trade blocks and fork. A child has only the thread
 * that forked: it verifies and frees blocks whose threads do not exist there, churns, starts threads, forks
 * on, and ends in one of several ways. Its memory stays near what it inherited. By hand: --forks 10000
 * --threads 16.
 *
 * covers: S72 S73 S76 S77 S82 C7 C9
 */
/* test: args="--forks 150 --threads 5" timeout=240 */
/* test: name=first args="--forks 0 --threads 1" timeout=60 */
#include "storm_block.h"

enum { slots = 64, depth = 5, growth_bytes = 96 << 20 };

static long forks = 1000;
static _Atomic long forks_left;

static void nothing(void) {}

/* Many rounds in the child must not cost more memory than a few: what vanished threads held is either usable
 * or lost once, not in each round. */
static void stays_small(uint64_t seed, int rounds) {
    size_t first = 0, last = 0;
    for (int i = 0; i < rounds; i++) {
        storm_workload(seed + (uint64_t)i, 1);
        last = rss_bytes();
        first = i == 0 ? last : first;
    }
    REQUIRE(last <= first + growth_bytes, "RSS of the child grew from %.1f to %.1f MiB", storm_mib(first),
            storm_mib(last));
}

/* Each generation does its work, then forks the next one. */
static void descend(struct rng *rng, int left) {
    storm_churn(rng, 200, 1 << 18);
    if (left > 0) {
        pid_t pid = fork();
        REQUIRE(pid >= 0, "fork: errno %d", errno);
        if (pid == 0) {
            storm_child();
            descend(rng, left - 1);
            _exit(0);
        }
        storm_churn(rng, 100, 1 << 18);
        storm_reap(pid, "generation", left);
    }
}

static void counters_are_sane(void) {
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
    REQUIRE(stats.mapped_bytes < (size_t)1 << 46 && stats.used_bytes <= stats.mapped_bytes &&
                stats.cached_bytes <= stats.used_bytes && stats.huge_bytes <= stats.mapped_bytes,
            "mapped %zu, used %zu, cached %zu, huge %zu bytes", stats.mapped_bytes, stats.used_bytes,
            stats.cached_bytes, stats.huge_bytes);
}

/* Does not return. `held` are the blocks of the thread that forked. */
static void child(long number, struct storm_block *held, bool bare) {
    struct rng rng = storm_rng_of(10000 + (uint64_t)number);
    storm_child();
    counters_are_sane();
    storm_empty_boxes(&rng);
    storm_workload(rng_next(&rng), bare ? 0 : 2);
    storm_release_all(&rng, held, slots);
    switch (bare ? 3 : number % 5) {
    case 0:
        stays_small(rng_next(&rng), 5);
        break;
    case 1:
        descend(&rng, depth);
        break;
    case 2: /* the thread that forked is the only one and ends the process as main would */
        atexit(nothing);
        exit(0);
    case 3:
        break;
    default: /* the process ends with its last thread, which was not main */
        pthread_exit(NULL);
    }
    _exit(0);
}

static void *worker(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    struct storm_block held[slots] = {{0}};
    long number;
    while ((number = atomic_fetch_sub_explicit(&forks_left, 1, memory_order_relaxed)) > 0 && !storm_past_end()) {
        for (int i = 0; i < 100; i++)
            storm_operation(&rng, held, slots, 1 << 20);
        pthread_t thread = storm_thread(storm_short_life, (void *)(uintptr_t)rng_next(&rng));
        bool bare = number % 7 == 3;
        pid_t pid = bare ? _Fork() : fork();
        REQUIRE(pid >= 0, "fork: errno %d", errno);
        if (pid == 0)
            child(number, held, bare);
        for (int i = 0; i < 100; i++)
            storm_operation(&rng, held, slots, 1 << 18);
        storm_join(thread);
        storm_reap(pid, bare ? "_Fork" : "fork", number);
    }
    storm_release_all(&rng, held, slots);
    return NULL;
}

/* Another churn beside those that fork, so that a fork always finds threads in the middle of something. */
static void *churner(void *index) {
    struct rng rng = storm_rng_of(500 + (uint64_t)(intptr_t)index);
    while (atomic_load_explicit(&forks_left, memory_order_relaxed) > 0 && !storm_past_end())
        storm_churn(&rng, 100, (size_t)1 << (10 + rng_below(&rng, 13)));
    return NULL;
}

static void *any_role(void *index) { return (intptr_t)index < 2 ? churner(index) : worker(index); }

/* Fork as the first thing that ever happens; then both sides use the library. */
static void fork_first(long bare) {
    pid_t pid = bare ? _Fork() : fork();
    REQUIRE(pid >= 0, "fork: errno %d", errno);
    storm_workload((uint64_t)bare, bare && pid == 0 ? 0 : 2);
    if (pid == 0)
        _exit(0);
    storm_reap(pid, "first fork", bare);
    storm_workload(7, 2);
}

int main(int argc, char **argv) {
    static const struct storm_extra extras[] = {{"forks", &forks, "children in all"}, {0}};
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 6}, extras);
    if (!storm_plain)
        storm_skip("the sanitizers' own locks do not survive a fork of many threads");
    storm_in_child(fork_first, 0, "fork as the first action");
    storm_in_child(fork_first, 1, "_Fork as the first action");
    forks_left = forks;
    if (forks)
        storm_team(storm.threads + 2, any_role);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    printf("%ld forks\n", forks);
    return 0;
}
