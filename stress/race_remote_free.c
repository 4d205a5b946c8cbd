/* race_remote_free.c -- producers allocate, consumers free, in every size class.
 *
 * Half of the threads only ever allocate and half only ever free, so every block goes the long way round: out
 * of a slab into the producer's magazine, over a box to the consumer, from his magazine through the depot or
 * the bitmaps back. Class after class gets its turn. At any time only what fits the boxes is alive, so a way
 * round that loses blocks shows as growth. By hand: --seconds 3600 --threads 16.
 *
 * covers: S44 S45 S48 C6
 */
/* test: args="--seconds 2" timeout=240 */
/* test: name=guards args="--seconds 2" env="GRANARY_GUARDS=1" timeout=240 hardened=off */
#include "storm_block.h"

enum { max_classes = 256, round_bytes = 4 << 20 };

static size_t class_size[max_classes];
static long classes;
static _Atomic long turn; /* counts batches; the class of a batch is turn modulo classes */
static _Atomic long producers_left;
static _Atomic uint64_t handed_over;

/* Every usable size up to 256 KiB as nallocx tells them, and three large ones. */
static void find_classes(void) {
    for (size_t size = 1; size <= (256 << 10) && classes < max_classes - 3; size = class_size[classes++] + 1)
        class_size[classes] = granary_nallocx(size, 0);
    static const size_t large[] = {(256 << 10) + 1, 1 << 20, 5 << 20};
    for (size_t i = 0; i < 3; i++)
        class_size[classes++] = large[i];
}

static void produce(void) {
    long done = 0;
    while (storm_goes_on(done)) {
        long batch = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);
        size_t size = class_size[batch % classes];
        long count = round_bytes / (long)(size + 256);
        count = count < 4 ? 4 : count > 4000 / storm_slowness ? 4000 / storm_slowness : count;
        for (long i = 0; i < count; i++, done++) {
            struct storm_block block = {.ptr = granary_malloc(size), .size = size, .exact = true};
            REQUIRE(block.ptr, "no memory: %zu bytes", size);
            storm_fill(&block);
            for (long at = i; !storm_offer(&storm_box[at % storm_boxes], block); at++)
                if (at - i == storm_boxes) {
                    at = i;
                    sched_yield();
                }
        }
    }
    atomic_fetch_sub_explicit(&producers_left, 1, memory_order_release);
}

static void consume(struct rng *rng) {
    uint64_t freed = 0;
    for (int empty = 0; empty < storm_boxes || atomic_load_explicit(&producers_left, memory_order_acquire);) {
        struct storm_block block = storm_take(&storm_box[(freed + (unsigned)empty) % storm_boxes]);
        if (block.ptr) {
            storm_release(rng, block);
            freed++;
            empty = 0;
        } else if (++empty > storm_boxes) {
            empty = 0;
            sched_yield();
        }
    }
    atomic_fetch_add_explicit(&handed_over, freed, memory_order_relaxed);
}

static void *work(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    if ((intptr_t)index % 2)
        consume(&rng);
    else
        produce();
    return NULL;
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 10, .threads = 4}, NULL);
    find_classes();
    storm.threads = (storm.threads + 1) & ~1l;
    producers_left = storm.threads / 2;
    struct granary_stats stats = {0};
    storm_team(storm.threads, work);
    size_t rss = rss_bytes();
    granary_trim();
    granary_get_stats(&stats);
    printf("%llu blocks of %ld classes, %ld batches; RSS %.1f MiB, %.1f MiB used (%.1f cached)\n",
           (unsigned long long)handed_over, classes, (long)turn, storm_mib(rss), storm_mib(stats.used_bytes),
           storm_mib(stats.cached_bytes));
    REQUIRE(handed_over > 0, "no block went across");
    for (int i = 0; i < storm_boxes; i++)
        REQUIRE(!storm_take(&storm_box[i]).ptr, "a block was left in box %d", i);
    /* 64 blocks alive at most: 5 MiB each at the worst, and magazines of each class in each thread. */
    if (storm_plain)
        REQUIRE(rss <= ((size_t)512 << 20), "RSS grew to %.1f MiB", storm_mib(rss));
    REQUIRE(stats.used_bytes <= (size_t)32 << 20, "%zu bytes in use with no block alive", stats.used_bytes);
    REQUIRE(stats.cached_bytes <= stats.used_bytes, "%zu bytes cached of %zu in use", stats.cached_bytes,
            stats.used_bytes);
    return 0;
}
