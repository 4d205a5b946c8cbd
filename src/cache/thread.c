/* cache/thread.c -- see `cache/thread.h`. */
#include "cache/thread.h"

#include "cache/fork.h"
#include "cache/keeper.h"
#include "os/os.h"
#include "page/limit.h"
#include "page/purge.h"

#ifndef EACH_CLASS /* the model's C++ has no ranges */
#define EACH_CLASS(value) [0 ... CLASS_SLOTS - 1] = value
#endif

static void *no_rounds[2] = {NULL, MAGAZINE_FULL};
struct cache gr_nobody = {.top = {EACH_CLASS(no_rounds)}, .class_by_16 = CLASS_BY_16};
struct cache gr_departed = {.top = {EACH_CLASS(no_rounds)}, .class_by_16 = CLASS_BY_16};
GR_TLS struct cache *gr_self = &gr_nobody;
GR_TLS volatile int gr_inside;
GR_TLS int32_t gr_until_guarded;

GR_SPARSE static struct ref chunks[META_CHUNKS];
static struct stack buried;
static struct meta_pool caches = META_POOL(CACHE_BYTES, chunks, &buried, 0);
static struct word alive, born;
static struct word living; /* threads with a cache, in this process: alive, but for those that a fork has lost */

uint64_t gr_threads_alive(void) { return word_peek(&alive); }
uint64_t gr_threads_born(void) { return word_peek(&born); }

/* An empty cache goes back to the pool. */
void gr_thread_bury(struct cache *c) {
    half_store_relaxed(&c->state, CACHE_UNUSED);
    cache_leave_owner(c);
    gr_meta_give(&caches, 0, c->index);
}

static void retire(struct cache *c) {
    word_add_relaxed(&alive, ~0ull);
    gr_thread_bury(c);
}

/* A thread has given up its cache: the last one stops the keeper. */
static void one_less(void) {
    if (word_add_acq_rel(&living, ~0ull) == 1) /* [release last] [acquire last] */
        gr_keeper_stop();
}

/* Runs among the thread's destructors. What later ones allocate and free goes to the slabs directly: to wait for the last
 * round would lose the caches of threads whose first call is made by a destructor. */
static void depart(void *arg) {
    struct cache *self = arg;
    if (self != gr_self)
        return;
    slow_enter(); /* before it has no cache: a child forked by a handler in between would take the cache for an orphan */
    gr_self = &gr_departed;
    if (gr_inside == 1) /* else it ends out of an interrupted slow path: its cache is in mid-step and is lost with it */
        do
            if (cache_enter_owner(self)) {
                gr_cache_flush(self, true);
                retire(self);
                break;
            }
        while (!cache_abandon_owner(self)); /* claimed: its taker inherits it, or has just let it go */
    slow_leave();
    one_less();
}

/* A record from the pool, entered. One that is claimed, by a taker who saw its last thread and has yet to notice, is left there:
 * he may be stopped for ever. */
static struct cache *take_record(void) {
    uint32_t index = gr_meta_take(&caches, 0);
    struct cache *c = index ? meta_at(&caches, index) : NULL;
    if (c && !cache_enter_owner(c)) {
        c = take_record();
        gr_meta_give(&caches, 0, index);
    } else if (c) {
        c->index = index;
    }
    return c;
}

static struct cache *birth(void) {
    struct cache *self = take_record();
    if (!self)
        return NULL;
    gr_cache_init(self);
    half_store_relaxed(&self->forks, half_load_relaxed(&gr_forks));
    word_add_relaxed(&alive, 1);
    if (word_add_relaxed(&born, 1) && HARDENED)
        half_store_relaxed(&gr_seal.shared, 1);
    word_add_relaxed(&living, 1);
    half_store_release(&self->state, CACHE_LIVE); /* [release born] */
    gr_self = self;                               /* from here on calls from within the hook below are served */
    while (cache_is_orphan(self))                 /* a handler that forked before that line did not find it */
        half_store_relaxed(&self->forks, half_load_relaxed(&gr_forks));
    if (!os_at_thread_exit(depart, self)) {
        /* No hook, no cache: its blocks would be lost with the thread. */
        gr_self = &gr_departed;
        gr_cache_flush(self, false);
        retire(self);
        one_less();
        return NULL;
    }
    return self;
}

struct cache *gr_thread_cache_slow(void) {
    struct cache *self = gr_self;
    if (GR_UNLIKELY(self == &gr_nobody))
        return birth();
    return self == &gr_departed || gr_inside > 1 || !cache_enter_owner(self) ? NULL : self;
}

/* ---- after fork ---- */

struct half gr_forks;
static struct half orphans; /* 1: there are some that nobody has taken in hand */
static struct word mapped;  /* granules, when they were left behind */

void gr_threads_forked(void) {
    half_store_relaxed(&gr_forks, half_load_relaxed(&gr_forks) + 1);
    half_store_relaxed(&orphans, 0);
    word_store_relaxed(&living, cache_serves(gr_self));
    if (cache_serves(gr_self))
        half_store_relaxed(&gr_self->forks, half_load_relaxed(&gr_forks));
}

static void count_out(struct cache *c, void *unused) {
    (void)unused;
    if (cache_is_newly_orphan(c))
        word_add_relaxed(&alive, ~0ull);
}

void gr_orphans_show(void) {
    gr_each_cache(count_out, NULL);
    word_store_relaxed(&mapped, gr_granules_mapped());
    half_store_release(&orphans, 1); /* [release orphans] */
}

/* Orphans of this process: a handler may fork at any moment, and in its child all but one are orphans whose time is yet to come. */
static void salvage(struct cache *c, void *forks) {
    uint32_t here = *(const uint32_t *)forks;
    bool orphan = half_load_relaxed(&c->forks) != here;
    GR_SIGNAL_FENCE();
    if (orphan && half_load_relaxed(&gr_forks) == here)
        gr_salvage(c);
}

void gr_orphans_home(void) {
    uint32_t some = 1, here = half_load_relaxed(&gr_forks);
    GR_SIGNAL_FENCE();
    if (half_load_relaxed(&orphans) && half_cas_strong_acq_rel(&orphans, &some, 0)) /* [acquire orphans] */
        gr_each_cache(salvage, &here);
}

/* A child that saves its heap and ends takes no more memory than it came with: it need not copy the pages in which orphans lie. */
static void poll_orphans(void) {
    if (GR_UNLIKELY(half_load_relaxed(&orphans)) && gr_granules_mapped() > word_load_relaxed(&mapped))
        gr_orphans_home();
}

void gr_slow_tick(void) {
    if (gr_inside > 1)
        return;
    uint64_t now_ms = os_clock_ms();
    gr_cache_tick(cache_serves(gr_self) && cache_enter_owner(gr_self) ? gr_self : NULL, now_ms);
    gr_purge_poll_sparse();
    poll_orphans();
    if (!keeper_is_awake())
        gr_purge_poll(now_ms);
    limit_poll(now_ms);
    keeper_wake();
}

void gr_each_record(void (*body)(struct cache *, void *), void *argument) {
    uint32_t count = gr_meta_count(&caches);
    for (uint32_t index = 1; index <= count; index++)
        body(meta_at(&caches, index), argument);
}

void gr_each_cache(void (*body)(struct cache *, void *), void *argument) {
    uint32_t count = gr_meta_count(&caches);
    for (uint32_t index = 1; index <= count; index++) {
        struct cache *c = meta_at(&caches, index);
        if (half_load_acquire(&c->state) == CACHE_LIVE) /* [acquire born] */
            body(c, argument);
    }
}

void gr_thread_forget(struct cache *dead) { retire(dead); }
