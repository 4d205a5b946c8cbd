/* race_trim.c -- memory is given back to the system and figures are read while others allocate.
 *
 * Some threads churn and check that calloc's memory is zero and that contents stay; the others trim without
 * pause, whole and in part, and read and print the figures. By hand: --seconds 3600 --threads 16.
 *
 * covers: S6 S30 S104 C14
 */
/* test: args="--seconds 2" timeout=240 */
#include "storm_block.h"

static _Atomic uint64_t trims, gave_back, churns;
static int sink = -1;

static void trimmer(struct rng *rng) {
    struct granary_stats stats;
    uint64_t done = 0, gave = 0;
    for (; storm_goes_on((long)done); done++) {
        switch (rng_below(rng, 4)) {
        case 0:
            gave += granary_trim() != 0;
            break;
        case 1:
            gave += granary_malloc_trim(rng_below(rng, 1 << 24)) != 0;
            break;
        case 2:
            granary_get_stats(&stats);
            break;
        default:
#ifndef STORM_LIBC
            granary_print_stats(sink);
#endif
            break;
        }
        /* Blocks of its own, so that a trim meets a cache that is in use. */
        storm_churn(rng, 8, 1 << 16);
    }
    atomic_fetch_add_explicit(&trims, done, memory_order_relaxed);
    atomic_fetch_add_explicit(&gave_back, gave, memory_order_relaxed);
}

/* Dirties memory, lets go of all of it, and takes it again by calloc. */
static void churner(struct rng *rng) {
    struct storm_block slots[256] = {{0}};
    long done = 0;
    for (; storm_goes_on(done); done++) {
        storm_operation(rng, slots, 256, 4 << 20);
        if (storm_one_in(rng, 1000)) {
            size_t size = storm_size(rng, 1 << 20);
            storm_release_all(rng, slots, 256);
            for (int i = 0; i < 64; i++) {
                slots[i] = (struct storm_block){.ptr = granary_calloc(1, size), .size = size, .exact = true};
                REQUIRE(slots[i].ptr, "no memory: %zu bytes", size);
                storm_require_zero(slots[i].ptr, granary_malloc_usable_size(slots[i].ptr));
                storm_fill(&slots[i]);
            }
        }
    }
    storm_release_all(rng, slots, 256);
    atomic_fetch_add_explicit(&churns, (uint64_t)done, memory_order_relaxed);
}

static void *work(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    if ((intptr_t)index % 2)
        trimmer(&rng);
    else
        churner(&rng);
    return NULL;
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 10, .threads = 4}, NULL);
    sink = open("/dev/null", O_WRONLY | O_CLOEXEC);
    storm_team(storm.threads, work);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    printf("%llu operations beside %llu trims and readings, %llu of which gave memory back\n",
           (unsigned long long)churns, (unsigned long long)trims, (unsigned long long)gave_back);
    return 0;
}
