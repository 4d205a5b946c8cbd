/* cache/reclaim.c -- see `cache/reclaim.h`. */
#include "cache/reclaim.h"

#include "cache/thread.h"
#include "os/os.h"

/* What was cut of a class's loaded magazine. */
struct cut {
    void *block;    /* NULL: nothing */
    unsigned round; /* where it was */
};

/* Opens the gate, or inherits the cache. */
static void open_gate(struct cache *c) {
    uint32_t seen = GATE_CLAIMED;
    if (half_cas_strong_acq_rel(&c->gate, &seen, GATE_OPEN)) /* [release outside] [acquire inside] */
        return;
    gr_cache_flush(c, false);
    half_store_release(&c->gate, GATE_OPEN); /* [release outside] */
    gr_thread_forget(c);
}

static bool claim_gate(struct cache *c) {
    uint32_t seen = GATE_OPEN;
    if (!half_cas_strong_acq_rel(&c->gate, &seen, GATE_CLAIMED)) /* [acquire outside] */
        return false;
    if (os_heavy_fence() && !half_load_acquire(&c->inside) &&
        half_load_relaxed(&c->state) == CACHE_LIVE) /* [acquire inside] */
        return true;
    open_gate(c);
    return false;
}

static struct cut cut_round(struct cache *c, unsigned class) {
    struct magazine *m = c->own[class].loaded;
    if (HARDENED || !m) /* hardened: free writes rounds below the top */
        return (struct cut){NULL, 0};
    void **top = top_load_relaxed(&c->top[class]);
    if (top <= &m->slot[c->own[class].bottom])
        return (struct cut){NULL, 0};
    return (struct cut){slot_swap_relaxed(top, NULL), (unsigned)(top - m->slot)};
}

/* Is all from the cut round down the taker's? Else, and where no fence was to be had, the cut is mended. */
static bool cut_holds(struct cache *c, unsigned class, struct cut cut, bool fenced) {
    void **at = &c->own[class].loaded->slot[cut.round], *none = NULL;
    if (fenced && top_load_acquire(&c->top[class]) >= at && !slot_load_relaxed(at)) /* [acquire cut] */
        return true;
    slot_cas_strong_relaxed(at, &none, cut.block);
    return false;
}

/* Gives back what the cut took; a forked child may not know the block of the round itself. */
static uint64_t return_cut(struct cache *c, unsigned class, struct cut cut) {
    struct own *o = &c->own[class];
    unsigned from = o->bottom + 1;
    GR_COMMIT(&o->bottom, (uint16_t)cut.round); /* from here on a forked child finds nothing of it */
    gr_bin_return(class, o->loaded->slot + from, cut.round - from, "free");
    gr_bin_return(class, &cut.block, cut.block != NULL, "free");
    return (uint64_t)(cut.round - from + 1) * class_bytes(class);
}

enum { EMPTIED = 1 }; /* beside a sum of tops, whose low bits are 0 */

/* What was emptied has tops as before, and is left alone until its thread moves one or takes a slow path. False: not now. */
static bool reclaim_cache(struct cache *c, uint64_t sum, uint64_t *bytes) {
    struct cut cuts[CLASSES + 1];
    bool any = false;
    if (!claim_gate(c))
        return false;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        *bytes += gr_cache_drop_reserve(c, class, false);
        cuts[class] = cut_round(c, class);
        any |= cuts[class].block != NULL;
    }
    bool fenced = any && os_heavy_fence();
    for (unsigned class = 1; class <= CLASSES; class ++)
        if (cuts[class].block && cut_holds(c, class, cuts[class], fenced))
            *bytes += return_cut(c, class, cuts[class]);
    gr_cache_drop_empties(c);
    word_store_relaxed(&c->cached, 0);
    word_store_relaxed(&c->idle_sum, sum | EMPTIED);
    open_gate(c);
    return true;
}

struct round {
    uint64_t bytes;
    bool idle;
};

static void visit(struct cache *c, void *argument) {
    struct round *r = argument;
    uint64_t sum = 0, before = word_load_relaxed(&c->idle_sum);
    if (c == gr_self || cache_is_orphan(c))
        return;
    for (unsigned class = 1; class <= CLASSES; class ++)
        sum = sum * 33 + (uintptr_t)top_load_relaxed(&c->top[class]);
    if (before == (sum | EMPTIED))
        return;
    if ((r->idle && sum != before) || !reclaim_cache(c, sum, &r->bytes))
        word_store_relaxed(&c->idle_sum, sum);
}

uint64_t gr_caches_reclaim(bool idle) {
    struct round r = {0, idle};
    gr_each_cache(visit, &r);
    return r.bytes;
}

unsigned gr_reclaim_close_up(void **round, unsigned n) {
    unsigned kept = 0;
    for (unsigned i = 0; i < n; i++)
        if (round[i])
            round[kept++] = round[i];
    return kept;
}

/* The survivor goes on where it is, perhaps in the middle of a hit: its top stays, and what a vanished taker has cut is given
 * back as he would have. */
static void finish_cut(struct cache *self, unsigned class) {
    struct magazine *m = self->own[class].loaded;
    if (!m)
        return;
    for (void **at = self->top[class]; at > &m->slot[self->own[class].bottom]; at--)
        if (!*at) {
            return_cut(self, class, (struct cut){NULL, (unsigned)(at - m->slot)});
            return;
        }
}

static void reopen(struct cache *c, void *self) {
    if (half_load_acquire(&c->gate) != GATE_OPEN) /* [acquire outside] */
        half_store_relaxed(&c->gate, GATE_OPEN);
    for (unsigned class = 1; c == self && class <= CLASSES; class ++)
        finish_cut(c, class);
}

void gr_reclaim_repair(struct cache *self) { gr_each_record(reopen, self); }
