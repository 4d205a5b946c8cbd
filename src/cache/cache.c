/* cache/cache.c -- see `cache/cache.h`. */
#include "cache/cache.h"

#include <limits.h>
#include <string.h>

#include "base/check.h"
#include "cache/thread.h"
#include "central/depot.h"
#include "os/options.h"
#include "page/limit.h"

enum {
    FIRST_ROUNDS = HARDENED ? 16 : 8, /* at most, and FIRST_BYTES of blocks, but two; hardened: that draw among more */
    FIRST_BYTES = 8 * 1024,
    CLAIM_BYTES = 2 * 1024,   /* a class's first claims, so many rounds at most */
    CLAIM_PART = 2,           /* later ones: this part of what was claimed before */
    CLAIMED_MOST = UINT8_MAX, /* who claimed so much has whole magazines */
    SWAPS_GROW = 64,          /* so many with the spare, and no miss: one magazine should do */
    LEAST_BUDGET = 32 * 1024, /* of a thread, in bytes of blocks in one magazine per class */
    SHARES_TOTAL = 8 * 1024 * 1024,
    SHARES_LEAST = 4, /* threads' shares that there are at least */
    HOME_THREADS = 8, /* that begin at one stack of a depot */
};

/* Of all threads' budgets: a thread's share in a small heap, to SHARES_TOTAL, and the part of a large one. The first is for classes
 * that the thread only allocates or only frees, the other for those that swing: there twice the rounds are a quarter of the
 * exchanges. */
static const struct { uint32_t share, part; } budgets[2] = {{192 * 1024, 8}, {256 * 1024, 3}};

/* Unused magazines of each kind that a thread keeps, for its next exchange: 4 KiB of each. */
static const uint8_t keeps[MAGAZINE_KINDS] = {32, 20, 7, 2};

static void *no_rounds[2] = {NULL, MAGAZINE_FULL};

/* Where the thread begins in depots and pools: few threads share one stack of each, which is warm, many spread. */
static unsigned home_of(const struct cache *self) {
    unsigned homes = (unsigned)gr_threads_alive() / HOME_THREADS + 1;
    return homes == 1 ? 0 : self->index % homes;
}

static unsigned delay_slots(unsigned class) {
    unsigned slots = DELAY_SLOTS;
    while (slots > 1 && slots * class_bytes(class) > DELAY_BYTES)
        slots /= 2;
    return slots;
}

void gr_cache_init(struct cache *self) {
    static const uint8_t by_16[CLASS_BY_16_ENTRIES] = CLASS_BY_16;
    for (unsigned c = 0; c < CLASS_SLOTS; c++)
        GR_COMMIT(&self->top[c], no_rounds);
    for (unsigned i = 0; i < CLASS_BY_16_ENTRIES; i++)
        self->class_by_16[i] = (uint8_t)class_in_shard(by_16[i], (self->index - 1) % SHARDS);
    if (HARDENED) {
        self->random = gr_seal_random() | 1;
        for (unsigned c = 1; c <= CLASSES; c++) {
            self->delay[c].rule = gr_block_rule_of(c);
            self->delay[c].last = (uint8_t)(delay_slots(c) - 1);
        }
    }
    self->tick = 0;
    word_store_relaxed(&self->cached, 0);
}

/* Where the slab is that blocks of the class are claimed from. */
static struct holding *holding_of(struct cache *self, unsigned class) {
    size_t by_16 = class_bytes(class) / 16;
    return by_16 <= HELD && self->class_by_16[by_16] == class ? &self->held[by_16] : &self->held[0];
}

/* ---- magazines ---- */

/* A top at NULL is at the bottom, but in a child that was forked between a cut and the pop that met it. */
static unsigned loaded_count(const struct cache *self, unsigned class) {
    const struct magazine *m = self->own[class].loaded;
    return m && *self->top[class] ? (unsigned)(self->top[class] - (void *const *)m->slot) - self->own[class].bottom : 0;
}

/* Others took what was below: the blocks move down to the magazine's own bottom. */
GR_COLD static void close_gap(struct own *o, struct magazine *m) {
    memmove(m->slot + 1, m->slot + 1 + o->bottom, m->count * sizeof *m->slot);
    o->bottom = 0;
}

/* Takes the loaded magazine out; it knows its count. */
GR_INLINE struct magazine *unload(struct cache *self, unsigned class) {
    struct own *o = &self->own[class];
    struct magazine *m = o->loaded;
    if (m) {
        m->count = (uint16_t)loaded_count(self, class);
        GR_COMMIT(&self->top[class], no_rounds);
        GR_COMMIT(&o->loaded, NULL);
        if (GR_UNLIKELY(o->bottom))
            close_gap(o, m);
    }
    return m;
}

GR_INLINE void load(struct cache *self, unsigned class, struct magazine *m) {
    GR_COMMIT(&self->own[class].loaded, m);
    GR_COMMIT(&self->top[class], &m->slot[m->count]);
}

static void dissolve(unsigned class, struct magazine *m, const char *call) {
    unsigned n = m->count;
    m->count = 0;
    gr_bin_return(class, m->slot + 1, n, call);
}

static struct magazine *new_empty(struct cache *self, unsigned rounds) {
    unsigned kind = gr_magazine_kind(rounds);
    struct magazine *m = self->empty[kind];
    if (!m)
        return gr_magazine_new(home_of(self), rounds);
    GR_COMMIT(&self->empty[kind], m->slot[1]);
    self->empties[kind]--;
    gr_magazine_renew(m, rounds);
    return m;
}

static void keep_empty(struct cache *self, struct magazine *m) {
    unsigned kind = magazine_kind(m);
    if (self->empties[kind] >= keeps[kind]) {
        gr_magazine_free(home_of(self), m);
        return;
    }
    m->slot[1] = self->empty[kind];
    self->empties[kind]++;
    GR_COMMIT(&self->empty[kind], m);
}

void gr_cache_drop_empties(struct cache *self) {
    for (unsigned kind = 0; kind < MAGAZINE_KINDS; kind++) {
        struct magazine *m = self->empty[kind];
        GR_COMMIT(&self->empty[kind], NULL);
        self->empties[kind] = 0;
        for (struct magazine *next; m; m = next) {
            next = m->slot[1];
            gr_magazine_free(home_of(self), m);
        }
    }
}

/* A magazine in hand goes where it can: back to the pool if empty, to the depot if it is worth it, else dissolved. */
static void put_away(struct cache *self, unsigned class, struct magazine *m, bool keep_depot) {
    if (!m)
        return;
    if (keep_depot && m->count * 4u >= m->rounds && gr_depot_push(home_of(self), class, m))
        return;
    if (m->count)
        dissolve(class, m, "free");
    gr_magazine_free(home_of(self), m);
}

/* ---- budgets ---- */

uint64_t gr_cache_budget(bool swings) {
    uint64_t threads = max_size(gr_threads_alive(), 1);
    uint64_t shares = min_size(max_size(threads, SHARES_LEAST) * budgets[swings].share, SHARES_TOTAL);
    uint64_t total = max_size(limit_footprint() / budgets[swings].part, shares);
    uint64_t mine = min_size(total, option_get(OPTION_TOTAL_CACHE)) / threads;
    return max_size(min_size(mine, option_get(OPTION_THREAD_CACHE)), LEAST_BUDGET);
}

static bool is_delaying(const struct cache *self, unsigned class) {
    const struct delay *d = &self->delay[HARDENED ? class : 0];
    return HARDENED && d->slot[(d->next - 1u) & d->last];
}

void gr_cache_release_delay(struct cache *self, unsigned class) {
    struct delay *d = &self->delay[HARDENED ? class : 0];
    for (unsigned i = 0; HARDENED && i <= d->last; i++) {
        void *p = d->slot[i];
        GR_COMMIT(&d->slot[i], NULL);
        if (p)
            gr_bin_return(class, &p, 1, "free");
    }
}

uint64_t gr_cache_drop_reserve(struct cache *self, unsigned class, bool keep_depot) {
    struct magazine *spare = self->own[class].spare;
    struct holding *h = holding_of(self, class);
    uint64_t blocks = (spare ? spare->count : 0) + (uint64_t)h->budget;
    GR_COMMIT(&self->own[class].spare, NULL);
    put_away(self, class, spare, keep_depot);
    gr_bin_release(h, class);
    return blocks * class_bytes(class);
}

static void empty_class(struct cache *self, unsigned class, bool keep_depot) {
    struct own *o = &self->own[class];
    if (is_delaying(self, class))
        gr_cache_release_delay(self, class);
    put_away(self, class, unload(self, class), keep_depot);
    gr_cache_drop_reserve(self, class, keep_depot);
    self->rounds_bytes -= (uint64_t)o->rounds * class_bytes(class);
    o->rounds = 0;
    o->claimed = 0;
    o->overflowed = false;
}

/* Empties a class whose top has not moved since this was last asked, and one that is sparse: its magazines begin small again. */
static void empty_if_idle(struct cache *self, unsigned class) {
    struct own *o = &self->own[class];
    uint16_t now = (uint16_t)(uintptr_t)self->top[class];
    if ((o->seen == now || gr_bin_is_sparse(class)) &&
        (o->rounds || holding_of(self, class)->slab || is_delaying(self, class)))
        empty_class(self, class, true);
    o->seen = now;
}

/* The most that the next claim may be. A thread that allocates little leaves little that is claimed and not used: the pages of blocks
 * above a few hundred bytes are others' too. One that frees the class as well uses all that it claims. */
static unsigned claim_rounds(const struct own *o, unsigned class) {
    if (HARDENED || o->overflowed || o->claimed == CLAIMED_MOST)
        return UINT_MAX;
    size_t first = max_size(min_size(CLAIM_BYTES / class_bytes(class), FIRST_ROUNDS), 2);
    return (unsigned)max_size(first, o->claimed / CLAIM_PART);
}

/* The class's next magazine may hold twice as much, within the budget. True: its first one has to do, which is then not
 * joined by a second one before it has been full twice; else each of a thousand threads that allocate and free once would have
 * one of every class. */
static bool grow_rounds(struct cache *self, unsigned class, uint64_t budget) {
    struct own *o = &self->own[class];
    const struct size_class *k = &gr_classes[class];
    unsigned first = (unsigned)max_size(min_size(FIRST_BYTES / k->bytes, FIRST_ROUNDS), 2);
    unsigned next = o->rounds ? o->rounds * 2u : first;
    if (next > k->rounds)
        next = k->rounds;
    if (next == o->rounds)
        return false;
    uint64_t more = (uint64_t)(next - o->rounds) * k->bytes;
    if (o->rounds && (gr_bin_is_sparse(class) || self->rounds_bytes + more > budget))
        return o->rounds <= FIRST_ROUNDS; /* until other classes fall idle */
    o->rounds = (uint8_t)next;
    self->rounds_bytes += more;
    return false;
}

/* ---- misses ---- */

/* An empty magazine of at least the class's present rounds is loaded. False without memory and without any. */
static bool load_empty(struct cache *self, unsigned class) {
    struct own *o = &self->own[class];
    if (o->loaded && o->loaded->rounds >= o->rounds)
        return true;
    struct magazine *bigger = new_empty(self, o->rounds);
    if (!bigger)
        return o->loaded != NULL;
    struct magazine *old = unload(self, class);
    load(self, class, bigger);
    if (old)
        keep_empty(self, old);
    return true;
}

/* The lowest address goes out first. Hardened: any. */
static void put_in_order(struct cache *self, void **from, unsigned n) {
    for (void **to = from + n; from + 1 < to; from++) {
        void *p = *from, **with = HARDENED ? from + random_below(&self->random, (uint32_t)(to - from)) : --to;
        *from = *with;
        *with = p;
    }
}

static unsigned claim(struct cache *self, unsigned class, void **out, unsigned want, bool *clean) {
    struct holding *h = holding_of(self, class);
    unsigned n = gr_bin_claim(h, class, out, want, clean);
    if (h == &self->held[0] ||
        self->own[class].rounds <= FIRST_ROUNDS) /* what claims little leaves the rest to others */
        gr_bin_release(h, class);
    return n;
}

static void *refill_from_slabs(struct cache *self, unsigned class, bool *clean) {
    struct own *o = &self->own[class];
    if (!load_empty(self, class))
        return gr_direct_alloc(class);
    struct magazine *m = o->loaded;
    if (o->bottom)
        load(self, class, unload(self, class)); /* empty, from its own bottom on */
    unsigned want = (unsigned)min_size(claim_rounds(o, class), min_size(o->rounds, m->rounds));
    unsigned n = claim(self, class, m->slot + 1, want, clean);
    if (!n)
        return NULL;
    put_in_order(self, m->slot + 1, n);
    o->claimed = (uint8_t)min_size(o->claimed + n, CLAIMED_MOST);
    m->count = (uint16_t)n;
    load(self, class, m);
    return cache_pop_owner(self, class);
}

/* The spare and the loaded magazine, which is as full or as empty as the spare is not, change places. A dead thread's top is
 * believed while it lies in the loaded magazine: it leaves first and comes back last. */
GR_INLINE void swap_spare(struct cache *self, unsigned class, struct magazine *spare) {
    struct own *o = &self->own[class];
    GR_COMMIT(&self->top[class], no_rounds);
    struct magazine *m = o->loaded;
    GR_COMMIT(&o->loaded, spare);
    GR_COMMIT(&o->spare, m);
    GR_COMMIT(&self->top[class], &spare->slot[spare->count]);
}

/* A class that swings within its two magazines never misses, but each swap is a jump that no processor foresees: with larger ones it
 * swings within one, and holds no more blocks for that. So it may go beyond the budget, to twice that. */
GR_COLD static void enlarge(struct cache *self, unsigned class) {
    struct own *o = &self->own[class];
    struct magazine *bigger;
    o->swaps = 0;
    grow_rounds(self, class, 2 * gr_cache_budget(true));
    if (o->loaded->rounds >= o->rounds || !(bigger = new_empty(self, o->rounds)))
        return;
    struct magazine *small = unload(self, class);
    memcpy(bigger->slot + 1, small->slot + 1, small->count * sizeof *small->slot);
    bigger->count = small->count;
    load(self, class, bigger);
    keep_empty(self, small);
}

void *gr_cache_pop_spare(struct cache *self, unsigned class) {
    struct own *o = &self->own[class];
    struct magazine *spare = o->spare;
    if (!spare || !spare->count)
        return NULL;
    ASSERT(loaded_count(self, class) == 0);
    if (GR_LIKELY(o->loaded != NULL))
        o->loaded->count = 0;
    o->bottom = 0;
    o->emptied = true;
    swap_spare(self, class, spare);
    if (GR_UNLIKELY(++o->swaps == SWAPS_GROW))
        enlarge(self, class);
    return cache_pop_owner(self, class);
}

bool gr_cache_push_spare(struct cache *self, unsigned class, void *p) {
    struct own *o = &self->own[class];
    struct magazine *spare = o->spare;
    if (GR_UNLIKELY(o->bottom)) {
        load(self, class, unload(self, class)); /* there is room below */
        return cache_push_owner(self, class, p);
    }
    if (!spare || spare->count || !o->loaded)
        return false;
    o->loaded->count = o->loaded->rounds;
    swap_spare(self, class, spare);
    return cache_push_owner(self, class, p);
}

void *gr_cache_refill(struct cache *self, unsigned class, bool *clean) {
    struct own *o = &self->own[class];
    *clean = false;
    ASSERT(loaded_count(self, class) == 0);
    void *p = gr_cache_pop_spare(self, class);
    if (GR_UNLIKELY(p != NULL)) /* the caller's own look came while the gate was claimed */
        return p;
    o->emptied = true;
    o->swaps = 0;
    if (!o->rounds || claim_rounds(o, class) >= o->rounds)
        grow_rounds(self, class, gr_cache_budget(o->overflowed));
    struct magazine *full = gr_depot_pop(home_of(self), class);
    if (full) {
        struct magazine *empty = unload(self, class);
        if (!o->spare)
            o->spare = empty;
        else if (empty)
            keep_empty(self, empty);
        load(self, class, full);
        return cache_pop_owner(self, class);
    }
    return refill_from_slabs(self, class, clean);
}

void *gr_cache_clean_block(struct cache *self, unsigned class) {
    const struct magazine *spare = self->own[class].spare;
    void *p;
    bool clean;
    if ((spare && spare->count) || gr_depot_depth(class) || !claim(self, class, &p, 1, &clean))
        return NULL;
    if (clean)
        return p;
    if (cache_push_owner(self, class, p))
        return NULL;
    gr_bin_return(class, &p, 1, "free");
    return NULL;
}

void gr_cache_overflow(struct cache *self, unsigned class, void *p) {
    struct own *o = &self->own[class];
    bool one_does = grow_rounds(self, class, gr_cache_budget(o->emptied)) && !o->overflowed;
    o->swaps = 0;
    struct magazine *full = unload(self, class), *away = full, *empty = NULL;
    if (o->emptied && !one_does) {
        away = o->spare;
        GR_COMMIT(&o->spare, full);
    } /* else it only frees: it has no use for a full spare, those who allocate have */
    o->emptied = false;
    o->overflowed = true;
    if (away && (one_does || !gr_depot_push(home_of(self), class, away))) {
        dissolve(class, away, "free");
        if (away->rounds >= o->rounds)
            empty = away;
        else
            keep_empty(self, away);
    }
    if (!empty)
        empty = new_empty(self, o->rounds);
    if (empty)
        load(self, class, empty);
    if (!cache_push_owner(self, class, p))
        gr_bin_return(class, &p, 1, "free");
}

void gr_cache_flush(struct cache *self, bool keep_depot) {
    for (unsigned class = 1; class <= CLASSES; class ++)
        if (self->own[class].rounds || holding_of(self, class)->slab || is_delaying(self, class))
            empty_class(self, class, keep_depot);
    gr_cache_drop_empties(self);
    word_store_relaxed(&self->cached, 0);
}

static uint64_t cached_bytes(struct cache *self) {
    uint64_t sum = 0;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        const struct own *o = &self->own[class];
        uint64_t blocks = loaded_count(self, class) + holding_of(self, class)->budget;
        if (o->spare)
            blocks += o->spare->count;
        if (is_delaying(self, class))
            blocks += self->delay[HARDENED ? class : 0].last + 1u;
        sum += blocks * class_bytes(class);
    }
    return sum;
}

/* Time and growth both make a tick: before more memory is taken, what lies idle is looked for. */
uint32_t gr_cache_clock(uint64_t now_ms) { return (uint32_t)(now_ms / CACHE_TICK_MS) + gr_bins_growth(); }

void gr_cache_tick(struct cache *self, uint64_t now_ms) {
    uint32_t now = gr_cache_clock(now_ms);
    if (!self || GR_LIKELY(now == self->tick))
        return;
    bool newborn = !self->tick;
    self->tick = now;
    if (newborn)
        return;
    for (unsigned class = 1; class <= CLASSES; class ++)
        empty_if_idle(self, class);
    gr_cache_drop_empties(self);
    word_store_relaxed(&self->cached, cached_bytes(self));
    gr_depots_tick(now);
}

/* ---- without a cache ---- */

void *gr_direct_alloc(unsigned class) {
    struct holding h = {0, 0, 0, 0};
    void *p = NULL;
    bool clean;
    gr_bin_claim(&h, class, &p, 1, &clean);
    gr_bin_release(&h, class);
    return p;
}

void gr_direct_free(unsigned class, void *p, const char *call) { gr_bin_return(class, &p, 1, call); }
