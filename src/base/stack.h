/* base/stack.h -- a lock-free stack of numbered, type-stable records.
 *
 * PURPOSE     Partial slabs, full magazines and unused records wait here. One 64-bit word: the index of the top record
 *             and a tag that grows by one at every change, so that a popper who slept through other changes fails.
 *
 * LIFETIME    Records are never unmapped: a stale index reads an old link, not a fault.
 *
 * INVARIANTS
 *   tag-moves   Every successful change adds one to the tag; nothing else writes it.
 *
 * STATES      from        step   who     order              to
 *             ----------  -----  ------  -----------------  ------------------------------------------
 *             in hand     push   holder  CAS release        on the stack; the holder forgets the record
 *             on a stack  pop    any     load and CAS acquire   in the popper's hand
 *
 * EDGES       hand-over   push -> pop    everything the pusher wrote in the record
 *
 * WHY pop loads the head with acquire, not in the CAS alone: the link is read between the two.
 * PROGRESS    Lock-free: a CAS fails only because another succeeded. No step waits.
 *
 * SPREAD      What all threads use may be several stacks: a push goes to the one of the caller's home and leaves a bit in a mask,
 *             a pop takes from that of its home, else from the others in the mask. A mask read late is a pop that misses.
 * ELSEWHERE   Users: `page/meta.c`, `central/bin.c`, `central/depot.c`.
 */
#ifndef BASE_STACK_H
#define BASE_STACK_H

#include "base/atomic.h"
#include "base/bits.h"
#include "base/limits.h"

enum { STACK_INDEX_BITS = 24 };
#define STACK_INDEX_MASK ((1ull << STACK_INDEX_BITS) - 1)
_Static_assert(HEADS == 32, "a bit of a half for each");

/* Index 0 means "none": record 0 is never put on a stack. */
struct stack {
    struct word head;
};

/* Where the link of record `index` lies; `context` is what the caller gave to push or pop. */
typedef struct half *stack_link(void *context, uint32_t index);

GR_INLINE uint32_t stack_top(uint64_t head) { return (uint32_t)(head & STACK_INDEX_MASK); }

GR_INLINE uint64_t stack_next_head(uint64_t head, uint32_t index) {
    return (((head >> STACK_INDEX_BITS) + 1) << STACK_INDEX_BITS) | index;
}

GR_INLINE void stack_push(struct stack *s, uint32_t index, stack_link *link, void *context) {
    uint64_t head = word_load_relaxed(&s->head);
    do {
        half_store_relaxed(link(context, index), stack_top(head));
    } while (!word_cas_release(&s->head, &head, stack_next_head(head, index))); /* [release hand-over] */
}

/* The index popped, 0 if the stack was empty. */
GR_INLINE uint32_t stack_pop(struct stack *s, stack_link *link, void *context) {
    uint64_t head = word_load_acquire(&s->head); /* [acquire hand-over] */
    while (stack_top(head)) {
        uint32_t below = half_load_relaxed(link(context, stack_top(head)));
        if (word_cas_acquire(&s->head, &head, stack_next_head(head, below)))
            break;
    }
    return stack_top(head);
}

/* Of the stacks in the mask `left`, which is not 0, the first from `home` on. */
GR_INLINE unsigned spread_next(uint32_t left, unsigned home) {
    uint32_t turned = left >> home % HEADS | left << (0 - home) % HEADS;
    return (home + bits_lowest(turned)) % HEADS;
}

/* Each `head` of the stacks in the mask `used`, from `home` on. */
#define FOR_HEADS(head, used, home)                                                                                    \
    for (uint32_t left_ = (used), head; left_ && (head = spread_next(left_, home), left_ &= ~(1u << head), true);)

/* A push is about to come to stack `head`. */
GR_INLINE void spread_mark(struct half *mask, unsigned head) {
    if (!(half_load_relaxed(mask) >> head & 1))
        half_or_relaxed(mask, 1u << head);
}

/* A hint: somebody may change it at once. */
GR_INLINE bool stack_is_empty(const struct stack *s) { return stack_top(word_peek(&s->head)) == 0; }

#endif
