/* race_reclaim.c -- threads' caches are taken by others while they work, sleep, are born and end: docs/concurrency.md, a cache's
 * taker.
 *
 * Workers allocate, write, check and free in short bursts, sleep between them with full magazines, and end; others take their
 * caches without pause, all or the idle ones, and trim. Contents are checked at every free, and no block is lost: in the end the
 * heap is as small as at the start. By hand: --seconds 3600 --threads 16.
 */
/* test: args="--seconds 2" timeout=240 */
#include "storm_block.h"

#include "cache/reclaim.h"
#include "cache/thread.h"

static _Atomic uint64_t lives, taken, takings;

enum { SLOTS = 64 };

/* One thread's life: bursts in few classes, so that the same rounds are popped, pushed and cut. */
static void *life(void *seed) {
    struct rng rng = storm_rng_of((uint64_t)(uintptr_t)seed);
    struct storm_block slots[SLOTS] = {{0}};
    size_t few = (size_t)16 << rng_below(&rng, 8);
    long bursts = (long)rng_below(&rng, 30);
    for (long i = 0; i < bursts && !storm_past_end(); i++) {
        for (int n = 0; n < 300; n++) {
            size_t at = rng_below(&rng, SLOTS);
            if (slots[at].ptr) {
                storm_release(&rng, slots[at]);
                slots[at].ptr = NULL;
            } else {
                slots[at] = storm_alloc(&rng, few);
            }
        }
        if (storm_one_in(&rng, 3))
            nanosleep(&(struct timespec){0, (long)rng_below(&rng, 300000)}, NULL);
    }
    storm_release_all(&rng, slots, SLOTS);
    atomic_fetch_add_explicit(&lives, 1, memory_order_relaxed);
    return NULL;
}

static void *worker(void *index) {
    struct rng rng = storm_rng_of(500 + (uint64_t)(intptr_t)index);
    for (long done = 0; storm_goes_on(done); done++)
        storm_join(storm_thread(life, (void *)(uintptr_t)(rng_next(&rng) >> 8)));
    return NULL;
}

static void *taker(void *index) {
    struct rng rng = storm_rng_of(900 + (uint64_t)(intptr_t)index);
    for (long done = 0; storm_goes_on(done); done++) {
        if (storm_one_in(&rng, 20))
            granary_trim();
        uint64_t bytes = gr_caches_reclaim(storm_one_in(&rng, 2));
        atomic_fetch_add_explicit(&taken, bytes, memory_order_relaxed);
        atomic_fetch_add_explicit(&takings, bytes != 0, memory_order_relaxed);
    }
    return NULL;
}

static void *work(void *index) { return (intptr_t)index % 3 == 2 ? taker(index) : worker(index); }

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 10, .threads = 6}, NULL);
    storm_team(storm.threads, work);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    for (int i = 0; i < 2; i++) {
        granary_trim();
        gr_caches_reclaim(false);
    }
    REQUIRE(gr_threads_alive() <= 1, "%llu caches are left", (unsigned long long)gr_threads_alive());
    for (unsigned class = 1; class <= CLASSES; class ++)
        REQUIRE(gr_bin_granules(class) == 0, "class %u: a block is lost", class);
    printf("%llu lives, %llu takings of %.1f MiB\n", (unsigned long long)lives, (unsigned long long)takings,
           storm_mib((size_t)taken));
    return 0;
}
