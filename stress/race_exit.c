/* race_exit.c -- threads end while other threads free their blocks.
 *
 * Short lives allocate blocks of all kinds, put them into the boxes and end, some without ever freeing, some
 * without ever allocating. Their ends overlap with the frees of those blocks by the lanes' next threads and
 * by two threads that free only. Afterwards no cache of a dead thread may be left and no memory may be in
 * use. By hand: --seconds 3600 --threads 16.
 *
 * covers: S46 S47 S48 S50
 */
/* test: args="--seconds 2" timeout=240 */
/* test: name=guards args="--seconds 2" env="GRANARY_GUARDS=1" timeout=240 hardened=off */
#include "storm_block.h"

enum { freers = 2, brood = 4 };

static _Atomic long lanes_left;
static _Atomic uint64_t lives, blocks;

/* Leaves as much as fits in the boxes, frees what it finds there, and ends at once. */
static void *giver(void *seed) {
    struct rng rng = {(uint64_t)(uintptr_t)seed};
    size_t max = storm_one_in(&rng, 4) ? 1 << 20 : 1 << 13;
    long count = 1 + (long)rng_below(&rng, 200);
    for (long i = 0; i < count; i++) {
        struct storm_block mine = storm_alloc(&rng, storm_size(&rng, max));
        storm_release(&rng, storm_trade(&storm_box[rng_below(&rng, storm_boxes)], mine));
    }
    atomic_fetch_add_explicit(&blocks, (uint64_t)count, memory_order_relaxed);
    return NULL;
}

/* Only frees, and never more than a few, so that its cache is born by a free and dies with blocks of others
 * in it. */
static void *taker(void *seed) {
    struct rng rng = {(uint64_t)(uintptr_t)seed};
    for (int i = 0; i < 8; i++) {
        struct storm_block block = storm_take(&storm_box[rng_below(&rng, storm_boxes)]);
        if (block.ptr) {
            storm_verify(&block);
            granary_free(block.ptr);
        }
    }
    return NULL;
}

/* Keeps `brood` short threads alive at any time and joins the oldest first. */
static void *lane(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    pthread_t threads[brood];
    long born = 0, joined = 0;
    for (; storm_goes_on(born); born++) {
        if (born - joined == brood)
            storm_join(threads[joined++ % brood]);
        threads[born % brood] = storm_thread(storm_one_in(&rng, 4) ? taker : giver, (void *)(uintptr_t)rng_next(&rng));
    }
    while (joined < born)
        storm_join(threads[joined++ % brood]);
    atomic_fetch_add_explicit(&lives, (uint64_t)born, memory_order_relaxed);
    atomic_fetch_sub_explicit(&lanes_left, 1, memory_order_release);
    return NULL;
}

/* Frees all the time, in a thread that outlives those who allocated. */
static void *freer(void *index) {
    struct rng rng = storm_rng_of(100 + (uint64_t)(intptr_t)index);
    while (atomic_load_explicit(&lanes_left, memory_order_acquire)) {
        bool any = false;
        for (int i = 0; i < storm_boxes; i++) {
            struct storm_block block = storm_take(&storm_box[i]);
            any |= block.ptr != NULL;
            storm_release(&rng, block);
        }
        if (!any)
            sched_yield();
    }
    return NULL;
}

static void *any_role(void *index) { return (intptr_t)index < freers ? freer(index) : lane(index); }

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 10, .threads = 3}, NULL);
    lanes_left = storm.threads;
    storm_team(storm.threads + freers, any_role);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    granary_trim();
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
    printf("%llu threads lived and left %llu blocks; %.1f MiB used (%.1f cached), %zu caches\n",
           (unsigned long long)lives, (unsigned long long)blocks, storm_mib(stats.used_bytes),
           storm_mib(stats.cached_bytes), stats.threads);
    REQUIRE(stats.threads <= 1, "%zu caches are alive where one thread is", stats.threads);
    REQUIRE(stats.used_bytes <= (size_t)32 << 20, "%zu bytes in use with no block alive", stats.used_bytes);
    return 0;
}
