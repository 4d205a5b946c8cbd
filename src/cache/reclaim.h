/* cache/reclaim.h -- what a thread's cache holds comes back without the thread's help.
 *
 * PURPOSE     A thread that waits for work holds blocks and slabs, and so keeps pages that nobody uses. Another thread takes
 *             them, at any time, whatever the cache's thread is doing. malloc's and free's hits pay nothing for it: they
 *             are ordered by asymmetric fences, whose heavy side is a system call of the taker's.
 *
 * INVARIANTS
 *   one-inside  All of a cache but the tops and rounds of its loaded magazines is touched by its thread while `inside` is set
 *               and the gate open, or by who claimed the gate.
 *   cut-below   A taker writes one round of a loaded magazine, the one at the top: NULL, which is an empty magazine's bottom
 *               for its thread. What is above is never touched, and the top is moved by its thread alone.
 *
 * STATES      gate        step     who      order                                     to
 *             ----------  -------  -------  ----------------------------------------  ------------------------------------------
 *             open        enter    thread   inside = 1, light fence, load acquire     the thread is inside
 *             inside      leave    thread   store release                             open
 *             open        claim    taker    CAS acq_rel, heavy fence, load acquire    claimed; inside is 1: open again
 *             claimed     enter    thread   as above                                  it goes to the slabs directly
 *             claimed     abandon  thread   CAS acq_rel, its last step                abandoned
 *             claimed     open     taker    CAS acq_rel                               open
 *             abandoned   inherit  taker    store release                             open, empty, and in the pool
 *
 *             round       step     who      order                                     to
 *             ----------  -------  -------  ----------------------------------------  ------------------------------------------
 *             block       pop      thread   top moves down, light fence, load         the thread's block
 *             NULL        pop      thread   the same, top moves up                    NULL; the slow path
 *             any         push     thread   store above the top, top moves up         block
 *             block       cut      taker    swap relaxed NULL, heavy fence            NULL; and then, with top and round looked at:
 *                                                                                     not below, NULL: all up to here is the taker's
 *             cut         mend     taker    CAS relaxed NULL -> block                 as it was, unless the thread has pushed here
 *
 * EDGES       inside      leave, enter, abandon -> claim, open   what the thread did to its cache
 *             outside     open, inherit -> enter, birth, claim, repair       what the taker did to it
 *             cut         top moves -> cut                           the rounds below it, and the last writes to their blocks
 *
 * WHY it is enough to look once: a pop moves the top and then reads the round. If at the heavy fence the top was not below the cut,
 *     no pop is between the two for the cut round or one below it; each later one reads NULL there and turns around. If
 *     the top is at the cut or above when it is looked at, it may have been below meanwhile; but then a push came back over the
 *     cut round, and that is not NULL. Who pops it after the fence cannot get below without having read NULL.
 * WHY mend cannot do harm: it writes only over a NULL that the taker left, and nothing that stands above the top matters.
 *
 * PROGRESS    Nobody waits: a thread that finds its gate claimed allocates and frees on the slabs. A taker that is stopped for
 *             ever leaves one cache claimed.
 * ELSEWHERE   The hits: `cache/cache.h`. Who calls: `cache/keeper.h`, trim, out of memory. Model: `stress/model_reclaim.cc`.
 */
#ifndef CACHE_RECLAIM_H
#define CACHE_RECLAIM_H

#include "base/atomic.h"
#include "cache/cache.h"

enum { GATE_OPEN, GATE_CLAIMED, GATE_ABANDONED };

/* The thread of the cache enters, or is inside already. False: somebody has claimed it. */
GR_INLINE bool cache_enter_owner(struct cache *self) {
    if (half_load_relaxed(&self->inside))
        return true;
    half_store_relaxed(&self->inside, 1);
    GR_LIGHT_FENCE();
    if (GR_LIKELY(half_load_acquire(&self->gate) == GATE_OPEN)) { /* [acquire outside] */
        word_store_relaxed(&self->idle_sum, 0); /* else it might look emptied with its tops where they were */
        return true;
    }
    half_store_release(&self->inside, 0); /* [release inside]: it may be the next taker's look that meets this 0 */
    return false;
}

GR_INLINE void cache_leave_owner(struct cache *self) {
    if (half_load_relaxed(&self->inside))
        half_store_release(&self->inside, 0); /* [release inside] */
}

/* The thread ends and cannot enter: whoever claimed the cache will empty it and give it to the pool. False: the gate is open
 * again. */
GR_INLINE bool cache_abandon_owner(struct cache *self) {
    uint32_t seen = GATE_CLAIMED;
    return half_cas_strong_acq_rel(&self->gate, &seen, GATE_ABANDONED); /* [release inside] */
}

/* Takes the blocks and slabs out of every thread's cache, or with `idle` of those that were not used since the last such call.
 * The caller's own is left. Returns the bytes of the blocks. 0 too where the system has no heavy fence. */
uint64_t gr_caches_reclaim(bool idle);

/* Single-threaded repair after fork, when no taker is alive: opens every gate and gives back what was cut in `self`, the
 * survivor's cache or one that serves nobody. */
void gr_reclaim_repair(struct cache *self);

/* Of n rounds, those that are not NULL, moved together; returns how many. What a taker had cut and not yet given back is there but
 * for that one. */
unsigned gr_reclaim_close_up(void **round, unsigned n);

#endif
