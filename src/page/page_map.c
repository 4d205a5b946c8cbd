/* page/page_map.c -- see `page/page_map.h`. */
#include "page/page_map.h"

#include "base/check.h"

GR_SPARSE struct byte gr_page_map[REGION_GRANULES];

void gr_page_map_set(size_t first, size_t granules, unsigned class) {
    ASSERT(first + granules <= REGION_GRANULES);
    bytes_fill_relaxed(&gr_page_map[first], granules, (uint8_t) class);
}
