/* cache/keeper.h -- the housekeeping thread: what a process leaves behind when it falls idle goes home without it.
 *
 * PURPOSE     Slow paths give memory back as they go; a process that makes no calls has none. So a heap that has grown to
 *             KEEPER_FROM_GRANULES in use gets a thread of ours. Twice a second it empties the caches of threads that did not
 *             use them, the depots of classes that nobody asked, gives back the pages that lie wholly in free blocks of such
 *             classes, and purges vacant runs that have aged, which slow paths then leave to it. When there is nothing left
 *             to do it sleeps until somebody takes a slow path; when the heap has become small, it ends.
 *
 * INVARIANTS
 *   not-needed  All that it does, others do as well, or nobody has to: a program that may not have threads keeps more
 *               memory, that is all.
 *   off-limits  It is started where memory is allocated and never from free, which libc calls under locks that starting a thread
 *               needs. It takes no signals, and calls neither malloc nor free.
 *
 * STATES      from      step    who      order          to
 *             --------  ------  -------  -------------  -------------------------------------------------
 *             absent    start   any      CAS acq_rel    starting
 *             done      start   any      CAS acq_rel    starting; who does it joins the last one
 *             starting  started starter  CAS acq_rel    awake; refused where no thread is to be had
 *             awake     doze    keeper   CAS acq_rel    asleep; then it looks once more
 *             asleep    wake    any      CAS acq_rel    awake
 *             awake     end     keeper   CAS acq_rel    done, and to be joined
 *             awake     stop    last     CAS acq_rel    stopping; then it joins the keeper
 *             asleep    stop    last     CAS acq_rel    the same
 *             done      stop    last     CAS acq_rel    the same
 *             done      reap    exit     CAS acq_rel    the same
 *             stopping  joined  last     store release  absent
 *             any       forked  child    store release  absent
 *
 * EDGES       keeping   started, end, joined, forked -> start, stop, reap    the number of its thread, and what it noted
 *
 * WHY the last thread stops it: libc ends the process when its last thread ends, and counts the keeper. So the last thread that
 *     has a cache waits, among its destructors, until the keeper is gone. One that finds it starting is not the last: whoever
 *     starts it has a cache, and stops it when he ends.
 * WHY starting: the number of a thread is known after it was started, and who stops it joins it by that number.
 *
 * WHY starter and keeper look again: a handler may have forked since the start began, and the child goes on with it. Where our
 *     handler of forks ran the state is absent; a child by _Fork, whose keeper nobody would stop, refuses. What they have started
 *     finds that it is not awake, and ends.
 *
 * ELSEWHERE   Threads' caches: `cache/reclaim.h`. Pages within slabs: `gr_bin_trim`. Vacant runs: `page/purge.h`.
 */
#ifndef CACHE_KEEPER_H
#define CACHE_KEEPER_H

#include "base/atomic.h"
#include "cache/thread.h"
#include "page/arena.h"

/* None; one that may be stopped; one that may not be now. */
enum {
    KEEPER_ABSENT,
    KEEPER_DONE,
    KEEPER_AWAKE,
    KEEPER_ASLEEP,
    KEEPER_STARTING,
    KEEPER_STOPPING,
    KEEPER_REFUSED,
};
extern GR_HIDDEN struct half gr_keeper;

void gr_keeper_consider(void);
void gr_keeper_rouse(void);

/* Where memory was allocated, outside slow paths: starts the keeper if the heap is worth one. A thread that has begun to end
 * does not: nobody might be left to stop it; one that has no cache yet, since all its blocks are large, gets one. Nor does one in a
 * handler that interrupted a slow path: a repair after fork may be due, which must be alone. */
GR_INLINE void keeper_poll(void) {
    if (GR_UNLIKELY(half_load_relaxed(&gr_keeper) <= KEEPER_DONE && !gr_inside && gr_self != &gr_departed &&
                    gr_granules_mapped() >= KEEPER_FROM_GRANULES))
        gr_keeper_consider();
}

/* The keeper looks twice a second at what is to be purged: nobody else need wait for that. */
GR_INLINE bool keeper_is_awake(void) { return half_load_relaxed(&gr_keeper) == KEEPER_AWAKE; }

/* At the end of slow paths: there may be something to do. */
GR_INLINE void keeper_wake(void) {
    if (GR_UNLIKELY(half_load_relaxed(&gr_keeper) == KEEPER_ASLEEP))
        gr_keeper_rouse();
}

/* By the last thread that has a cache: there is no keeper any more when it returns. */
void gr_keeper_stop(void);

/* At the end of the process: a keeper that has ended is joined. To ThreadSanitizer one that is not would be a leak. */
void gr_keeper_reap(void);

/* This process, before main and in a forked child, has no keeper. */
void gr_keeper_forget(void);

#endif
