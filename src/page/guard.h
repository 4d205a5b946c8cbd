/* page/guard.h -- runs without access, in the hardened build.
 *
 * PURPOSE     A slab's last page and what follows a large block's last are guarded, so that a linear overflow ends there. A freed
 *             large block is guarded from end to end and goes back to the arena some large frees later: whoever still uses it is
 *             stopped at that access.
 *
 * INVARIANTS
 *   guard-known   A granule that holds a guard has its `guarded` bit set, from before to after. The bit is the holder's, as
 *                 `dirty` is.
 *   guard-opened  A run is opened by its claimer before anybody is given a part of it.
 *   bounded       At most SPLIT_MOST granules hold a guard that splits a mapping, or SPLIT_MOST_WHOLE where only runs of several are
 *                 guarded so, of which every second granule may be opened; and the runs of those who looked at the same moment.
 *                 The kernel's limit is 65530 mappings.
 *
 * STATES      from     step     who       order           to
 *             -------  -------  --------  --------------  ---------------------------------------------
 *             held     delay    holder    swap acq_rel    held back: in a slot of the line
 *             in line  leave    whoever   same swap       in the hand of who came HELD_BACK_RUNS later: he frees it
 *
 * EDGES       held-back   delay -> leave    the last holder's writes to the run's record
 *
 * PROGRESS    Wait-free.
 */
#ifndef PAGE_GUARD_H
#define PAGE_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* The claimer of a run may use all of it. False without memory: it still holds the run, and may only free it. */
bool gr_guard_open(size_t first, size_t granules);

/* Guards the run from byte `from` on, a multiple of the page; the rest of it is open. Best effort. */
void gr_guard_tail(size_t first, size_t granules, size_t from);

/* The holder of a run, whose first `open` bytes hold no guard and the others nothing else, gives it up, as gr_run_free, but not at
 * once: until then it is guarded, and then it reads as zero. */
void gr_guard_free(size_t first, size_t granules, size_t open);

/* Frees what is held back. For trim, and where memory has run out. */
void gr_guard_flush(void);

/* After fork: what is held back belongs to nobody; gr_arenas_repair finds it. */
void gr_guard_repair(void);

#endif
