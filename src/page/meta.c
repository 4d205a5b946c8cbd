/* page/meta.c -- see `page/meta.h`. */
#include "page/meta.h"

#include "os/os.h"

static struct word mapped_bytes;

uint64_t gr_meta_mapped_bytes(void) { return word_load_relaxed(&mapped_bytes); }
void gr_meta_count_mapped(uint64_t bytes) { word_add_relaxed(&mapped_bytes, bytes); }

static struct half *link_of(void *pool, uint32_t index) { return meta_at(pool, index); }

/* Is the chunk of record `index` mapped, now or by us? */
static bool chunk_is_mapped(struct meta_pool *pool, uint32_t index) {
    struct ref *slot = meta_chunk_of(pool, index);
    void *seen = ref_load_acquire(slot); /* [acquire chunk-born] */
    if (seen)
        return true;
    void *fresh = os_map(META_CHUNK_BYTES);
    if (!fresh)
        return false;
    if (ref_cas_strong_acq_rel(slot, &seen, fresh)) /* [release chunk-born] */
        gr_meta_count_mapped(META_CHUNK_BYTES);
    else
        os_unmap(fresh, META_CHUNK_BYTES);
    return true;
}

static struct stack *unused_of(struct meta_pool *pool, unsigned head) {
    return (struct stack *)((char *)pool->unused + (size_t)head * pool->stride);
}

static uint32_t take_unused(struct meta_pool *pool, unsigned home) {
    uint32_t index;
    FOR_HEADS (head, half_load_relaxed(&pool->used), home)
        if ((index = stack_pop(unused_of(pool, head), link_of, pool)) != 0)
            return index;
    return 0;
}

uint32_t gr_meta_take(struct meta_pool *pool, unsigned home) {
    uint32_t index = take_unused(pool, home);
    if (index)
        return index;
    uint32_t next = half_load_relaxed(&pool->fresh);
    do {
        index = next ? next : 1;
        if (index >= META_CHUNKS * pool->per_chunk || index > STACK_INDEX_MASK || !chunk_is_mapped(pool, index))
            return 0;
    } while (!half_cas_strong_acq_rel(&pool->fresh, &next, index + 1)); /* [release chunk-born] */
    return index;
}

void gr_meta_give(struct meta_pool *pool, unsigned home, uint32_t index) {
    spread_mark(&pool->used, home % HEADS);
    stack_push(unused_of(pool, home % HEADS), index, link_of, pool);
}

uint32_t gr_meta_count(const struct meta_pool *pool) {
    uint32_t next = half_load_acquire(&pool->fresh); /* [acquire chunk-born] */
    return next ? next - 1 : 0;
}
