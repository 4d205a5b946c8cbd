/* race_large.c -- large and huge blocks: allocated by one thread, resized by another, freed by a third.
 *
 * All threads trade a few blocks of 100 KiB and more, so that the address space of one that is freed or moved
 * is taken again at once by somebody else, and an entry of the page map that is removed too late hits the
 * next holder. Aligned blocks start inside what was reserved for them. By hand: --seconds 3600 --threads 16
 * --max-mib 256.
 *
 * covers: S57 S58 C5
 */
/* test: args="--seconds 2" timeout=240 */
#include "storm_block.h"

enum { my_slots = 4 };

static long max_mib = 40;

/* Log-uniform, so that every kind of large block has its share. */
static size_t large_size(struct rng *rng) {
    size_t size = (size_t)100 << 10;
    size <<= rng_below(rng, 10);
    size += rng_below(rng, size);
    return size <= (size_t)max_mib << 20 ? size : (size_t)max_mib << 20;
}

static struct storm_block large_alloc(struct rng *rng) {
    if (!storm_one_in(rng, 3))
        return storm_alloc(rng, large_size(rng));
    struct storm_block block = {.log_align = 12 + (unsigned)rng_below(rng, 14), .exact = true};
    block.size = large_size(rng) >> rng_below(rng, 6);
    block.ptr = granary_aligned_alloc((size_t)1 << block.log_align, block.size);
    REQUIRE(block.ptr && ((uintptr_t)block.ptr & (((size_t)1 << block.log_align) - 1)) == 0,
            "aligned_alloc(1 << %u, %zu) = %p", block.log_align, block.size, (void *)block.ptr);
    storm_fill(&block);
    return block;
}

static void *work(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    struct storm_block slots[my_slots] = {{0}};
    long done = 0;
    for (; storm_goes_on(done); done++) {
        struct storm_block *slot = &slots[rng_below(&rng, my_slots)];
        switch (rng_below(&rng, 8)) {
        case 0:
        case 1:
            storm_release(&rng, *slot);
            *slot = large_alloc(&rng);
            break;
        case 2:
            storm_release(&rng, *slot);
            *slot = (struct storm_block){0};
            break;
        case 3:
        case 4:
            if (slot->ptr)
                storm_resize(&rng, slot, storm_one_in(&rng, 4) ? storm_size(&rng, 1 << 20) : large_size(&rng));
            break;
        default:
            *slot = storm_trade(&storm_box[rng_below(&rng, 8)], *slot);
        }
    }
    storm_release_all(&rng, slots, my_slots);
    return (void *)(intptr_t)done;
}

int main(int argc, char **argv) {
    static const struct storm_extra extras[] = {{"max-mib", &max_mib, "largest block, MiB"}, {0}};
    storm_begin(argc, argv, (struct storm_options){.seconds = 10, .threads = 4}, extras);
    storm_team(storm.threads, work);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    granary_trim();
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
    size_t maps = map_count();
    printf("%.1f MiB used (%.1f cached), %.1f huge, %.1f dirty; RSS %.1f MiB, %zu mappings\n",
           storm_mib(stats.used_bytes), storm_mib(stats.cached_bytes), storm_mib(stats.huge_bytes),
           storm_mib(stats.dirty_bytes), storm_mib(rss_bytes()), maps);
    REQUIRE(stats.huge_bytes == 0, "%zu bytes of huge blocks are left", stats.huge_bytes);
    REQUIRE(stats.used_bytes <= (size_t)32 << 20, "%zu bytes in use with no block alive", stats.used_bytes);
    if (storm_plain)
        REQUIRE(maps < 1000, "%zu mappings are left", maps);
    return 0;
}
