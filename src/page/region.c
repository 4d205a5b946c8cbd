/* page/region.c -- see `page/region.h`. */
#include "page/region.h"

GR_LINE struct word gr_region_base; /* each free reads it: nothing that is written later shares its line */

/* Where a base may lie. The first is far above what programs map low, below what the kernel maps high, and above the
 * shadow memory of AddressSanitizer; the others serve machines and tools with fewer addresses (valgrind, sanitizers). */
static const struct {
    uintptr_t from, to;
} ranges[] = {
    {0x110000000000, 0x400000000000},
    {0x001000000000, 0x006000000000},
    {0x000400000000, 0x001000000000},
};
enum { RANGES = sizeof ranges / sizeof *ranges, TRIES = 8 };

bool gr_region_boot(void) {
    uint64_t known = word_load_acquire(&gr_region_base); /* [acquire base-born] */
    if (known)
        return true;
    uint64_t random = os_random();
    for (unsigned r = os_has_thread_sanitizer() ? 1 : 0; r < RANGES; r++)
        for (unsigned t = 0; t < TRIES; t++) {
            uint64_t steps = (ranges[r].to - ranges[r].from) / ARENA_BYTES;
            uintptr_t base = ranges[r].from + (random >> 8) % steps * ARENA_BYTES;
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            enum os_result got = os_map_at((void *)base, CHUNK_BYTES);
            if (got == OS_TAKEN)
                continue;
            if (got == OS_NO_MEMORY)
                break;                                                   /* no memory, or no such addresses here */
            if (!word_cas_strong_acq_rel(&gr_region_base, &known, base)) /* [release base-born] */
                os_unmap((void *)base, CHUNK_BYTES);
            return true;
        }
    return false;
}

enum os_result gr_region_map(size_t first, size_t chunks) {
    return os_map_at(region_address(first * CHUNK_GRANULES), chunks * CHUNK_BYTES);
}
