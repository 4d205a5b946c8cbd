/* slab/slab.c -- see `slab/slab.h`. */
#include "slab/slab.h"

#include "base/check.h"
#include "page/guard.h"
#include "page/page_map.h"

uint32_t gr_slab_birth(unsigned class, bool only, bool *clean) {
    const struct size_class *k = &gr_classes[class];
    /* On dirty memory a long slab would hold all of it for a block or two, and who would fill it has to touch new pages. */
    size_t first = only && k->granules > 1 ? gr_run_claim_clean(k->granules, k->granules) : 0;
    if (!first)
        first = gr_run_claim(k->granules, k->granules);
    if (!first)
        return 0;
    if (HARDENED) {
        gr_seal_boot();
        if (!gr_guard_open(first, k->granules)) {
            gr_run_free(first, k->granules);
            return 0;
        }
        gr_guard_tail(first, k->granules, k->granules * (size_t)GRANULE_BYTES - GUARD_BYTES);
    }
    bool dirty;
    *clean = gr_run_same_dirt(first, k->granules, &dirty) == k->granules && !dirty;
    gr_run_mark_dirty(first, k->granules);
    struct slab *s = slab_at((uint32_t)first);
    s->parked_clean_from = *clean ? 0 : k->capacity;
    s->swept = 0;
    for (unsigned w = 0; w < k->words; w++)
        word_store_relaxed(slab_bits((uint32_t)first, w),
                           bits_span(0, k->capacity - w * 64 < 64 ? k->capacity - w * 64 : 64));
    bool fresh = HARDENED && !gr_run_was_given(first, k->granules) && *clean;
    if (HARDENED && k->bytes > SHORT_BYTES)
        word_store_relaxed(slab_fresh((uint32_t)first), fresh ? bits_span(0, k->capacity) : 0);
    half_store_relaxed(&s->word, SLAB_OWNED);
    gr_page_map_set(first, k->granules, class);
    return (uint32_t)first;
}

void gr_slab_retire(uint32_t index, unsigned class) {
    const struct size_class *k = &gr_classes[class];
    gr_slab_check(index, class, 0);
    half_store_relaxed(&slab_at(index)->word, SLAB_RETIRED);
    gr_page_map_set(index, k->granules, 0);
    gr_run_free(index, k->granules);
}

GR_COLD uint32_t gr_slab_recount(uint32_t index, unsigned class) {
    uint32_t count = 0;
    for (unsigned w = 0; w < gr_classes[class].words; w++)
        count += bits_count(word_load_relaxed(slab_bits(index, w)));
    return count;
}

void gr_slab_check(uint32_t index, unsigned class, uint32_t budget) {
    if (!GRANARY_DEBUG)
        return;
    const struct size_class *k = &gr_classes[class];
    uint32_t count = (half_load_relaxed(&slab_at(index)->word) & SLAB_COUNT_MASK) + budget;
    INVARIANT(whole, count <= k->capacity);
    INVARIANT(accounting, count <= gr_slab_recount(index, class));
}

struct block_rule gr_block_rule_of(unsigned class) {
    const struct size_class *k = &gr_classes[class];
    uint32_t turn = bits_lowest(k->bytes), odd = k->bytes >> turn, inverse = odd;
    for (unsigned right = 3; right < 32;
         right *= 2) /* bits of it that are right: an odd number is its own inverse modulo 8 */
        inverse *= 2 - odd * inverse;
    return (struct block_rule){k->bytes, inverse, k->granules * (uint32_t)GRANULE_BYTES - 1, k->capacity,
                               (uint8_t)turn};
}
