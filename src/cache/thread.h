/* cache/thread.h -- whose cache it is: birth on first use, death by hook, the registry.
 *
 * PURPOSE     A thread gets its cache on its first slow path, from a pool of caches that are never unmapped, and gives it back
 *             among its destructors. Before and after that it has a static cache that holds and accepts
 *             nothing, so its calls reach the slow path and go to the slabs directly: nothing is born again, nothing leaks.
 *
 * STATES      from    step    who      order          to
 *             ------  ------  -------  -------------  -----------------------------------------------
 *             unused  birth   thread   store release  live; its number was taken from the pool
 *             live    depart  thread   store relaxed  unused; the number goes back to the pool
 *             live    inherit taker    store relaxed  the same, where the thread had to leave it (`cache/reclaim.h`)
 *             live    bury    child    store relaxed  unused; the thread does not exist in the child
 *
 * EDGES       born    birth -> census    the cache is initialised before anybody finds it
 *             orphans survivor -> who brings them home   what it did to caches of others before it was out of its steps
 *             last    depart -> depart   the last one sees which state of the keeper the others left
 *
 * LIFETIME    Type-stable. Another thread may read a cache's numbers at any time (statistics); it believes none of them.
 */
#ifndef CACHE_THREAD_H
#define CACHE_THREAD_H

#include "cache/reclaim.h"

enum { CACHE_UNUSED, CACHE_LIVE };

extern GR_HIDDEN struct cache gr_nobody;   /* before a thread's first call */
extern GR_HIDDEN struct cache gr_departed; /* after its last */
extern GR_HIDDEN GR_TLS struct cache *gr_self;

/* How deep this thread is in slow paths: 1, or more in a signal handler that interrupted one. */
extern GR_HIDDEN GR_TLS volatile int gr_inside;

/* Which block, of those that this thread's magazines are yet to be filled with, is to be a guarded one (`api/alloc.c`);
 * negative: one is due; 0: not drawn yet. */
extern GR_HIDDEN GR_TLS int32_t gr_until_guarded;

extern GR_HIDDEN struct half gr_repair_pending;
void gr_repair_deferred(void);

/* Forks between the first process and this one: a cache that lives and has another number is a vanished thread's. */
extern GR_HIDDEN struct half gr_forks;
GR_INLINE bool cache_is_orphan(const struct cache *c) {
    return half_load_relaxed(&c->forks) != half_load_relaxed(&gr_forks);
}

/* Brackets every path that takes steps on shared words, with a cache or without: a fork between them repairs later. */
GR_INLINE void slow_enter(void) {
    gr_inside++;
    GR_SIGNAL_FENCE();
}
GR_INLINE void slow_leave(void) {
    GR_SIGNAL_FENCE();
    if (gr_inside == 1)
        cache_leave_owner(gr_self);
    if (--gr_inside == 0 && GR_UNLIKELY(half_load_relaxed(&gr_repair_pending)))
        gr_repair_deferred();
}
/* Vanished in the last fork: what comes before an orphan is brought home has not been done to it in an earlier child. */
GR_INLINE bool cache_is_newly_orphan(const struct cache *c) {
    return half_load_relaxed(&c->forks) + 1 == half_load_relaxed(&gr_forks);
}

/* Looks at the clock and does what is due, at the end of the outermost slow path: the clock itself may call malloc. */
void gr_slow_tick(void);

/* The caller's cache, born now if need be. NULL: it has none (departed, no memory), has interrupted itself, or somebody has
 * claimed it: go to the slabs directly. Between slow_enter and slow_leave. */
struct cache *gr_thread_cache_slow(void);
GR_INLINE struct cache *thread_cache(void) {
    struct cache *self = gr_self;
    return GR_LIKELY(cache_serves(self) && gr_inside == 1 && cache_enter_owner(self)) ? self : gr_thread_cache_slow();
}

uint64_t gr_threads_alive(void);
uint64_t gr_threads_born(void);

/* Calls body(cache, argument) for every cache that is live; threads come and go meanwhile. */
void gr_each_cache(void (*body)(struct cache *, void *), void *argument);

/* The same for those in the pool as well. */
void gr_each_record(void (*body)(struct cache *, void *), void *argument);

/* In a forked child: its one thread is all that lives. All other caches are orphans from here on. */
void gr_threads_forked(void);

/* From here on orphans may be brought home: the survivor is not in the middle of a step any more. */
void gr_orphans_show(void);

/* Brings home what vanished threads held, unless that was done, or somebody is at it. Between slow_enter and slow_leave. */
void gr_orphans_home(void);

/* An emptied cache goes back to the pool: its taker inherited it; its thread did not come through a fork. */
void gr_thread_forget(struct cache *dead);
void gr_thread_bury(struct cache *orphan);

#endif
