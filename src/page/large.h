/* page/large.h -- blocks of whole granules, up to 64 MiB.
 *
 * PURPOSE     A run per block, its length in the record of its first granule. Grown in place where the granules behind it
 *             are vacant; what a shrink leaves over goes back.
 *
 * INVARIANTS
 *   run-marked  run[first] is the length while the block lives, length | RUN_FREED after it was freed, until the granule
 *               starts another large run; | RUN_NEW while the program is the first to have its memory. The page map says
 *               CLASS_LARGE at the first granule, CLASS_INSIDE at the others.
 *
 * STATES      from    step   who      order          to
 *             ------  -----  -------  -------------  ---------------------------------------------------
 *             live    free   any      CAS relaxed    freed, by one caller; a second one is told so
 *             freed   alloc  holder   store relaxed  live
 *
 * WHY relaxed: the length reaches free with the pointer, by the program's own edge; the run's bytes travel by run-home.
 *
 * PROGRESS    As `page/arena.h`.
 */
#ifndef PAGE_LARGE_H
#define PAGE_LARGE_H

#include "page/page_map.h"

#define RUN_FREED (1u << 31)
#define RUN_NEW   (1u << 30)

GR_INLINE size_t run_granules(uint32_t run) { return run & ~(RUN_FREED | RUN_NEW); }

/* A block of at least `bytes`, aligned to `align`; both at most LARGE_MAX_GRANULES in granules. With `zero` it reads as zero:
 * only what may be dirty is cleared. NULL without memory. */
void *gr_large_alloc(size_t bytes, size_t align, bool zero);

/* False: p was freed before, or is being freed by another thread. */
bool gr_large_free(void *p);

/* Hardened: was nothing written past the end of a live large block? */
bool gr_large_is_whole(const void *p);

/* Usable bytes of a live large block. */
size_t gr_large_bytes(const void *p);

/* If the granule of p once started a large block that was freed since: its bytes, else 0. For messages. */
size_t gr_large_freed_bytes(const void *p);

/* The block as a huge one of at least `bytes`, its pages moved and not copied; NULL: it is as it was. */
void *gr_large_to_huge(void *p, size_t bytes);

/* The block copied to where it has room to grow further, to dirty memory if it can be, of at least `bytes`; NULL: it is as it was. No
 * page of a long block is in memory twice: where the new ones were not, the old ones go; and where nobody knows whether it was written,
 * its pages move, as gr_large_to_huge moves them. */
void *gr_large_move(void *p, size_t bytes);

/* Makes the block hold at least `bytes` without moving it, or returns false and leaves it. Gives a tail back. */
bool gr_large_resize(void *p, size_t bytes);

#endif
