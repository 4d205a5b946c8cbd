/* thread_keys.c -- destructors of thread-specific data that allocate and free in all four rounds.
 *
 * Some keys are older than anything that the library has done, some younger, so that its own hook runs before
 * some destructors and after others. Each destructor frees the block that its key holds, works, and sets a
 * new one as long as libc calls it. What the last round leaves is freed by main. No cache may be left of a
 * thread that came back to life that way. By hand: --ops 100000.
 *
 * covers: S61 C8
 */
/* test: args="--ops 300" timeout=120 */
#include "storm_block.h"

/* TSan takes its own state of a thread apart in the fourth round: instrumented code must not run after that. */
enum { old_keys = 4, young_keys = 4, keys = old_keys + young_keys, rounds = STORM_TSAN ? 2 : 4 };

static pthread_key_t key[keys];
static _Atomic long destructor_calls;

/* What a key holds: a block that its destructor takes apart. */
struct estate {
    struct storm_block block;
    struct rng rng;
    int key, round;
};

/* Blocks of threads whose destructors are not called any more. */
static struct {
    pthread_mutex_t mutex;
    struct estate *list[keys];
    int count;
} orphans = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void bequeath(struct rng rng, int number, int round) {
    struct estate *estate = granary_malloc(sizeof *estate);
    REQUIRE(estate, "no memory in round %d", round);
    *estate = (struct estate){.rng = rng, .key = number, .round = round};
    estate->block = storm_alloc(&estate->rng, storm_size(&estate->rng, 1 << 20));
    if (round < rounds) {
        int error = pthread_setspecific(key[number], estate);
        REQUIRE(error == 0, "pthread_setspecific: error %d", error);
        return;
    }
    pthread_mutex_lock(&orphans.mutex);
    orphans.list[orphans.count++ % keys] = estate;
    pthread_mutex_unlock(&orphans.mutex);
}

static void destructor(void *arg) {
    struct estate *estate = arg, was = *estate;
    atomic_fetch_add_explicit(&destructor_calls, 1, memory_order_relaxed);
    granary_free(estate);
    storm_release(&was.rng, was.block);
    storm_churn(&was.rng, 10, 1 << 14);
    if (storm_one_in(&was.rng, 20))
        granary_trim();
    if (was.round < rounds || was.key == 0)
        bequeath(was.rng, was.key, was.round + 1);
}

static void *life(void *arg) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)arg);
    bool idle = storm_one_in(&rng, 3); /* its first call is made by a destructor's work, or by bequeath */
    if (!idle)
        storm_churn(&rng, 50, 1 << 16);
    for (int i = 0; i < keys; i++)
        if (storm_one_in(&rng, 2) || i == 0)
            bequeath((struct rng){rng_next(&rng)}, i, 1);
    return NULL;
}

/* A thread whose only business with the library happens in a destructor, after all keys have been set up by
 * others. */
static void only_free(void *block) { granary_free(block); }

static pthread_key_t only_free_key;

static void *freed_late(void *block) {
    pthread_setspecific(only_free_key, block);
    return NULL;
}

static void collect_orphans(struct rng *rng) {
    pthread_mutex_lock(&orphans.mutex);
    REQUIRE(orphans.count <= keys, "%d estates of one thread", orphans.count);
    for (int i = 0; i < orphans.count; i++) {
        storm_release(rng, orphans.list[i]->block);
        granary_free(orphans.list[i]);
    }
    orphans.count = 0;
    pthread_mutex_unlock(&orphans.mutex);
}

static void make_keys(int from, int to) {
    for (int i = from; i < to; i++) {
        int error = pthread_key_create(&key[i], destructor);
        REQUIRE(error == 0, "pthread_key_create: error %d", error);
    }
}

int main(int argc, char **argv) {
    make_keys(0, old_keys); /* before anything is allocated */
    storm_begin(argc, argv, (struct storm_options){.seconds = 600, .threads = 1, .ops = 1000}, NULL);
    granary_free(granary_malloc(1));
    pthread_key_create(&only_free_key, only_free);
    make_keys(old_keys, keys);

    struct rng rng = storm_rng_of(1000);
    for (long i = 0; storm_goes_on(i); i++) {
        pthread_t one = storm_thread(life, (void *)(intptr_t)i);
        pthread_t other = storm_thread(freed_late, granary_malloc(1 + rng_below(&rng, 100000)));
        storm_join(one);
        storm_join(other);
        collect_orphans(&rng);
    }
    storm_empty_boxes(&rng);
    granary_trim();
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
    printf("%ld destructor calls; %zu caches, %.1f MiB used\n", (long)destructor_calls, stats.threads,
           storm_mib(stats.used_bytes));
    REQUIRE(stats.threads <= 1, "%zu caches are alive where one thread is", stats.threads);
    REQUIRE(stats.used_bytes <= (size_t)32 << 20, "%zu bytes in use with no block alive", stats.used_bytes);
    return 0;
}
