/* page/meta.h -- type-stable memory for our records.
 *
 * PURPOSE     Records of one size, numbered from 1, found by number in two loads. Unused ones wait on lock-free stacks, spread
 *             by their givers' homes (`base/stack.h`); fresh ones are cut from chunks in order of their numbers, so that only what is used is touched.
 *
 * OWNS        The chunks, mapped by the system wherever it likes and never unmapped: no distance from a block to a
 *             record is fixed.
 *
 * INVARIANTS
 *   link-first   The first four bytes of a record are its link and a `struct half`.
 *   zero-fresh   A record handed out for the first time is zero.
 *
 * EDGES       chunk-born  chunk store -> chunk load   a chunk is mapped before its records are numbered
 */
#ifndef PAGE_META_H
#define PAGE_META_H

#include <stdint.h>

#include "base/atomic.h"
#include "base/limits.h"
#include "base/stack.h"

enum { META_CHUNKS = 1 << 14 };

struct meta_pool {
    /* constant */
    uint32_t record_bytes;
    uint32_t per_chunk;
    struct ref *further;  /* chunks, but the first */
    struct stack *unused; /* the first of the stacks, one for each home, */
    uint32_t stride;      /* so many bytes apart */
    /* any thread writes */
    GR_LINE struct half fresh; /* the next number never handed out, 0 before the first */
    struct half used;          /* a bit for each of `unused` that was ever given to */
    struct ref first;          /* chunk: here, so that a small program touches no table */
};

/* A pool, its table of META_CHUNKS chunks, and its stacks, static memory of the caller's. With a single stack every home is 0. */
#define META_POOL(bytes, table, first_stack, stack_stride)                                                             \
    {                                                                                                                  \
        .record_bytes = (bytes), .per_chunk = META_CHUNK_BYTES / (bytes), .further = (table), .unused = (first_stack), \
        .stride = (stack_stride)                                                                                       \
    }

/* A record's number, or 0 without memory: one that was given at the same home, or elsewhere, or a fresh one. The record is as
 * its last holder left it, or zero. */
uint32_t gr_meta_take(struct meta_pool *pool, unsigned home);
void gr_meta_give(struct meta_pool *pool, unsigned home, uint32_t index);

/* How many numbers were ever handed out: the highest number in use is at most this. */
uint32_t gr_meta_count(const struct meta_pool *pool);

/* Address space mapped for records. */
uint64_t gr_meta_mapped_bytes(void);
void gr_meta_count_mapped(uint64_t bytes);

GR_INLINE struct ref *meta_chunk_of(struct meta_pool *pool, uint32_t index) {
    uint32_t chunk = index / pool->per_chunk;
    return GR_LIKELY(!chunk) ? &pool->first : &pool->further[chunk];
}

GR_INLINE void *meta_at(struct meta_pool *pool, uint32_t index) {
    char *chunk = ref_load_relaxed(meta_chunk_of(pool, index));
    return chunk + (size_t)(index % pool->per_chunk) * pool->record_bytes;
}

#endif
