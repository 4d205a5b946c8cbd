/* page/region.h -- one flat range of addresses for everything but huge blocks.
 *
 * PURPOSE     A base chosen once, at random, far from where the kernel places mappings; from it 1 TiB of granules, so that
 *             address - base >> 16 indexes every table. Memory is mapped forward in chunks, at fixed addresses that
 *             replace nothing; a chunk that somebody else took is skipped for ever.
 *
 * STATES      from        step    who      order           to
 *             ----------  ------  -------  --------------  ---------------------------------------------------
 *             no base     boot    any      CAS acq_rel     base; the loser unmaps what it mapped and uses the winner's
 *
 * EDGES       base-born   boot -> base     the first chunk is mapped before its base is known
 *
 * PROGRESS    boot is wait-free but for the number of addresses tried.
 */
#ifndef PAGE_REGION_H
#define PAGE_REGION_H

#include "base/atomic.h"
#include "base/limits.h"
#include "os/os.h"

extern GR_HIDDEN struct word gr_region_base;

/* 0 before the first chunk is mapped: then no pointer is ours but those of huge blocks. */
GR_INLINE uintptr_t region_base(void) { return word_peek(&gr_region_base); }

/* The granule of an address; REGION_GRANULES or more if it is not in the region. */
GR_INLINE size_t region_granule(const void *p) {
    uintptr_t offset = (uintptr_t)p;
#if defined(__x86_64__) && !GR_TSAN
    __asm__("subq %1, %0" : "+r"(offset) : "m"(gr_region_base) : "cc"); /* the compiler takes three instructions */
#else
    offset -= region_base();
#endif
    return offset >> GRANULE_SHIFT;
}

GR_INLINE void *region_address(size_t granule) { return (void *)(region_base() + (granule << GRANULE_SHIFT)); }

/* Chooses the base and maps the first chunk, or finds it done. False without memory. */
bool gr_region_boot(void);

/* Maps `chunks` chunks from number `first` on, zeroed. */
enum os_result gr_region_map(size_t first, size_t chunks);

/* The chunk that boot itself mapped. */
enum { REGION_BOOT_CHUNK = 0 };

#endif
