/* loot.h -- all the memory there is, taken by every call until each is refused, looked at, and given back. */
#ifndef STRESS_LOOT_H
#define STRESS_LOOT_H

#include "semantics_calls.h"

/* A block of the haul, linked through the blocks themselves; behind this a pattern. */
struct loot {
    struct loot *next;
    size_t size;
};

/* In large blocks each so manieth byte is written. */
static size_t loot_stride = 509;
static inline size_t loot_stride_of(size_t size) { return size > 64 * KIB ? loot_stride : 1; }

/* Blocks of one size by all calls in turn, until all of them in a row have been refused. Returns their bytes. */
static inline size_t loot_take(struct loot **haul, size_t size) {
    size_t bytes = 0;
    for (size_t c = 0, refused = 0; refused < COUNT_OF(calls); c++) {
        const struct call *call = &calls[c % COUNT_OF(calls)];
        errno = 0;
        struct loot *loot = call->alloc(size);
        if (loot == NULL) {
            must(errno == ENOMEM);
            refused++;
            continue;
        }
        refused = 0;
        must(!call->zeroed || (loot->next == NULL && loot->size == 0));
        for (size_t at = 0; at < size; at += loot_stride_of(size))
            ((unsigned char *)loot)[at] = (unsigned char)pattern_word(size, at);
        *loot = (struct loot){*haul, size};
        *haul = loot;
        bytes += size;
    }
    return bytes;
}

static inline bool loot_is_whole(const struct loot *loot, size_t size) {
    size_t stride = loot_stride_of(size);
    for (size_t at = (sizeof *loot + stride - 1) / stride * stride; at < size; at += stride)
        if (((const unsigned char *)loot)[at] != (unsigned char)pattern_word(size, at))
            return false;
    return loot->size == size;
}

/* Each whole; with `grow` half as long again before that, or refused and as it was. */
static inline void loot_give(struct loot **haul, bool grow) {
    for (struct loot *loot = *haul, *next; loot != NULL; loot = next) {
        next = loot->next;
        size_t size = loot->size;
        struct loot *longer = grow ? (struct loot *)granary_realloc(loot, size + size / 2) : NULL;
        must(longer || !grow || errno == ENOMEM);
        loot = longer ? longer : loot;
        must(loot->next == next && loot_is_whole(loot, size));
        granary_free(loot);
    }
    *haul = NULL;
}

#endif
