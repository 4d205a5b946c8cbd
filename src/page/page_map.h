/* page/page_map.h -- address to size class: one byte per granule, flat, out of band.
 *
 * PURPOSE     free learns from one byte what it was given: 0 nothing of ours, 1..CLASSES a slab of that class, CLASS_LARGE
 *             the start of a large run, CLASS_INSIDE the rest of one. One cache line of it covers 4 MiB of heap.
 *
 * LIFETIME    16 MiB of zero pages, touched where the heap is.
 *
 * INVARIANTS
 *   map-owned   Only who holds a granule writes its byte.
 *   map-late    A byte is set after the granule's record is complete and cleared before the granule is given up.
 *
 * WHY relaxed: a user's pointer reaches free with the user's own happens-before edge, which carries the byte along.
 */
#ifndef PAGE_PAGE_MAP_H
#define PAGE_PAGE_MAP_H

#include "page/region.h"

extern GR_HIDDEN struct byte gr_page_map[REGION_GRANULES];

/* The class of a granule of the region. */
GR_INLINE size_t page_class(size_t granule) { return byte_peek(&gr_page_map[granule]); }

/* The class at any address; 0 outside the region. */
GR_INLINE size_t page_class_of(const void *p) {
    size_t granule = region_granule(p);
    return GR_LIKELY(granule < REGION_GRANULES) ? page_class(granule) : 0;
}

void gr_page_map_set(size_t first, size_t granules, unsigned class);

#endif
