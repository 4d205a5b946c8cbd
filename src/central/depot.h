/* central/depot.h -- a class's full magazines.
 *
 * PURPOSE     One compare-and-swap moves a magazine's worth of blocks from thread to thread. The stacks are spread by the
 *             threads' homes (`base/stack.h`), last in, first out each: the warmest go out next. Every block here may
 *             keep a slab from being whole, so a stack is as deep as the depot proves useful: the bound, one for all homes, grows
 *             when a pop misses what a refused push has just dissolved, up to what the class's slabs hold; what lay unused since
 *             the last tick is dissolved by half, and the bound falls with it.
 *
 * INVARIANTS
 *   bounded     A push is refused when the top magazine of its home's stack says that it is as deep as the bound. Depth, bound and
 *               regret are hints: a lost update costs a magazine's trip to the slabs, or one magazine more.
 *
 * EDGES       exchange  push -> pop    the slots and the count of the magazine (by `base/stack.h`)
 */
#ifndef CENTRAL_DEPOT_H
#define CENTRAL_DEPOT_H

#include "central/magazine.h"
#include "slab/size_class.h"

/* False: the home's stack is full; the caller still holds the magazine. m->count says what it holds. */
bool gr_depot_push(unsigned home, unsigned class, struct magazine *m);

/* The home's last one, else another's. NULL: the depot is empty. */
struct magazine *gr_depot_pop(unsigned home, unsigned class);

/* Called with a number that changes with time: for each new one, half of the magazines that nobody needed since the last
 * are dissolved. */
void gr_depots_tick(uint32_t now);

/* Dissolves all of a class's depot. */
void gr_depot_dissolve(unsigned class);

/* All of a class that nobody holds goes home: its depot, its whole slabs, and with `pages` the free pages of the others. */
void gr_depot_drain(unsigned class, bool pages);

/* A number that changes with each push and pop. */
uint64_t gr_depot_activity(unsigned class);

/* Magazines in the depot, about. */
uint32_t gr_depot_depth(unsigned class);

/* Their blocks, about. */
uint32_t gr_depot_blocks(unsigned class);

#endif
