/* page/thp.c -- see `page/thp.h`. */
#include "page/thp.h"

#include "base/atomic.h"
#include "base/bits.h"
#include "os/options.h"
#include "os/os.h"
#include "page/limit.h"
#include "page/region.h"

GR_LINE static struct word dense_chunks;

/* A large block, or a slab of a few large ones, may be touched here and there alone: huge pages under it would cost memory that
 * nobody uses. Slabs of small blocks fill their pages, but for the last few of each class. */
bool gr_thp_may(size_t first_chunk, size_t chunks, bool dense) {
    uint64_t mode = option_get(OPTION_THP);
    uint64_t before = dense ? word_add_relaxed(&dense_chunks, chunks) : 0;
    if (mode == THP_ALWAYS)
        os_want_huge_pages(region_address(first_chunk * CHUNK_GRANULES), chunks * CHUNK_BYTES, true);
    return mode == THP_ALWAYS || (mode == THP_AUTO && dense && before >= THP_FROM_CHUNKS);
}

GR_COLD bool gr_thp_by_run(void) { return option_get(OPTION_THP) == THP_AUTO && os_page_bytes() == GRANULE_BYTES / 16; }

bool gr_thp_may_early(void) { return word_load_relaxed(&dense_chunks) > THP_NOT_BEFORE_CHUNKS && gr_thp_by_run(); }

/* Hints: of what two threads see at once, one may be lost. */
static struct half dear_in_a_row, to_pass; /* huge pages */

static bool is_passed(size_t granules) {
    uint32_t pass = half_load_relaxed(&to_pass), pages = (uint32_t)(granules / HUGE_PAGE_GRANULES);
    if (pass)
        half_store_relaxed(&to_pass, pass > pages ? pass - pages : 0);
    return pass;
}

/* It reads as zero before and after. */
static bool is_dear(size_t granule) {
    uint64_t before_us = os_thread_us();
    *(volatile char *)region_address(granule) = 0;
    uint32_t dear = half_load_relaxed(&dear_in_a_row);
    if (os_thread_us() - before_us <= THP_MOST_US) {
        if (dear)
            half_store_relaxed(&dear_in_a_row, 0);
        return false;
    }
    half_store_relaxed(&to_pass, (uint32_t)THP_PASS << 2 * dear);
    half_store_relaxed(&dear_in_a_row, dear + (dear < THP_PASS_STEPS));
    return true;
}

GR_COLD bool gr_thp_ask(size_t first, size_t granules, size_t bring) {
    if (option_get(OPTION_THP) != THP_AUTO)
        return true;
    if (gr_limit_is_tight() || is_passed(granules))
        return false;
    os_want_huge_pages(region_address(first), granules * GRANULE_BYTES, true);
    if (bring && is_dear(bring))
        gr_thp_ask_no_more(first, granules);
    return true;
}

GR_COLD void gr_thp_ask_no_more(size_t first, size_t granules) {
    os_want_huge_pages(region_address(first), granules * GRANULE_BYTES, false);
}
