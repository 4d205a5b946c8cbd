/* cache/fork.h -- what a forked child makes of the threads that it lost.
 *
 * PURPOSE     Nothing is taken before fork and nothing is waited for: every shared fact commits by one word, so the child's
 *             heap is usable as it is. The child's handler, alone in its process, brings home the slabs and runs that the
 *             vanished threads held. It looks at their caches and at the arenas' bitmaps alone, so that a large heap costs the
 *             child little time and few copied pages. Their magazines and records follow when the child's heap grows
 *             (`cache/thread.h`): most children call exec or end before.
 *
 * INVARIANTS
 *   one-word        Of a dead thread repair believes which magazines and slabs its cache names; a slab's count is taken
 *                   anew from its bits. Stacks and bitmaps commit by one word and are whole at every cut.
 *   loss-bounded    Lost is at most what each dead thread had in hand in that instant: a magazine, a slab's free blocks, a record.
 *
 * WHY deferred: a fork in a signal handler that interrupted the allocator leaves the child's own thread in mid-step, with
 *     tokens in its hand. Then repair waits until that step has ended, and is left out if the child has started threads by
 *     then. A child of _Fork, which runs no handlers, works with its heap as it is.
 */
#ifndef CACHE_FORK_H
#define CACHE_FORK_H

#include "cache/cache.h"

/* Gives a vanished thread's blocks, magazines and record back. Its magazines are trusted between bottom and top; each is in one place
 * only, and out of the cache before it is elsewhere: a child of the child finds nothing twice. One thread does this, once. */
void gr_salvage(struct cache *dead);

/* Registers the child's handler. Called once, before main: before that there is no other thread to lose. */
void gr_fork_watch(void);

#endif
