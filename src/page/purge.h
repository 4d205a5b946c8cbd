/* page/purge.h -- when free memory goes back to the system.
 *
 * PURPOSE     A policy with a clock. Granules carry the tick in which they became vacant; at most once a tick those that
 *             have been vacant and dirty for purge_ms are purged, a bounded number in one turn: by the keeper while it is
 *             awake, else on slow paths.
 *
 * INVARIANTS
 *   one-purger  At most one thread purges; the others go on without it.
 *   bounded     One turn purges at most PURGE_TURN_GRANULES of what has aged, and looks at most at SPARSE_TURN_GRANULES for what
 *               is hardly there. Whichever it is, it begins no step, of a chunk at most, when PURGE_TURN_US have passed.
 *   in-order    From low addresses to high, over as many turns as it takes; neighbours in a chunk go by one call.
 *
 * STATES      from    step   who      order           to
 *             ------  -----  -------  --------------  ------------------------------------------
 *             idle    begin  any      CAS acq_rel     busy
 *             busy    end    purger   store release   idle
 *
 * EDGES       turn    end -> begin    where the last turn stopped
 *
 * PROGRESS    Nobody waits: a purger that is stopped for ever stops purging, not allocating.
 * ELSEWHERE   The claim of the granules while they are purged: `page/arena.h`.
 */
#ifndef PAGE_PURGE_H
#define PAGE_PURGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The tick of now as far as anybody looked: what gr_run_free stamps. */
uint8_t gr_purge_tick(void);

/* Called with the time: purges what is due, at most once a tick. True: more is due at once. */
bool gr_purge_poll(uint64_t now_ms);

/* A large block of so many granules was freed. */
void gr_purge_freed(size_t granules);

/* Called on slow paths: for each 48 GiB of them, what lies vacant with little of it in memory is purged, in turns. Work drives it
 * and not time: a keeper that looks twice a second would come too late. */
void gr_purge_poll_sparse(void);

/* Purges every vacant dirty granule but `keep` of them, and if that is 0 what came with them and was never used. Returns how many
 * were purged. */
uint64_t gr_purge_all(uint64_t keep);

/* Granules purged since the start, and the most in one turn of what has aged. */
uint64_t gr_purged(void);
uint64_t gr_purged_most_once(void);

/* After fork: the purger may have vanished. */
void gr_purge_repair(void);

/* Has a granule stamped `stamp` been vacant for `ticks` at tick `now`? Ticks are counted modulo 256. */
bool gr_purge_is_due(uint8_t stamp, uint64_t now, uint64_t ticks);

#endif
