/* model_reclaim.cc -- cache/reclaim.c and the hits of cache/cache.h as shipped: a thread that pops, pushes, misses and ends while
 * others take its cache, and the heir of its record.
 *
 * The thread's slow paths are the model's: those of cache/cache.c as far as they touch the loaded magazine, and birth and end as in
 * cache/thread.c. Blocks are on the slabs, in the magazine, or in one hand; whoever has one writes it as plain memory, so that
 * a block which changes hands without an edge is a data race. So are the bottom of the magazine and the rest of the cache
 * (`reserve`), which one thread at a time may touch.
 *
 * covers: S125 C2
 */
#include "model/c.h"

#include "base/bits.h"
#include "base/limits.h"
#include "base/stack.h"
#include "central/bin.h"
#include "central/magazine.h"
#include "os/os.h"

#define uint16_t seam::watched16
#include "cache/cache.h"
#undef uint16_t

/* A fence of each caller's, a site of its own. */
static bool refused; /* the system has no heavy fence any more */
static bool heavy_fence(SEAM_HERE) {
    seam::fence("heavy_fence", function, file, line);
    return true;
}
#define os_heavy_fence() (!refused && heavy_fence())
#include "cache/reclaim.c"

enum { THREADS = 3, CLASS = 1, ROUNDS = 3, BLOCKS = 3, LAST = BLOCKS - 1, NOBODY = -1 };

/* ---- the small world ---- */

const struct size_class gr_classes[CLASS_SLOTS] = {
    {}, {.bytes = 16, .capacity = 4, .threshold = 1, .inverse = 0, .granules = 1, .words = 1, .rounds = ROUNDS}};

alignas(16) static char memory[sizeof(struct magazine) + (ROUNDS + 2) * sizeof(void *)];
static struct magazine *const magazine = (struct magazine *)memory;
static struct cache one; /* there is one record */
static void *no_rounds[4] = {NULL, NULL, MAGAZINE_FULL, NULL};
static char block_memory[BLOCKS + 1];
thread_local struct cache *gr_self;
struct half gr_forks; /* none: there are no orphans */

static void *block(unsigned b) { return &block_memory[b]; }

struct reclaim_model;
static reclaim_model *now;
static void return_blocks(void *const *blocks, unsigned n);
static uint64_t drop_reserve();
static void flush();
static void forget();

void gr_bin_return(unsigned, void *const *blocks, unsigned n, const char *) { return_blocks(blocks, n); }
uint64_t gr_cache_drop_reserve(struct cache *, unsigned class, bool) { return class == CLASS ? drop_reserve() : 0; }
void gr_cache_drop_empties(struct cache *) {}
void gr_cache_flush(struct cache *, bool) { flush(); }
void gr_thread_forget(struct cache *) { forget(); }
void gr_each_cache(void (*body)(struct cache *, void *), void *argument) { body(&one, argument); }
void gr_each_record(void (*body)(struct cache *, void *), void *argument) { body(&one, argument); }
void gr_check_failed(const char *what, const char *, int) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}

/* ---- the model ---- */

struct reclaim_model : model::suite<reclaim_model, THREADS, 3, ROUNDS + 3, 1> {
    rl::atomic<uint64_t> home;          /* blocks on the slabs: bit b for block b */
    rl::atomic<uint32_t> pool;          /* 1: the record waits for a thread */
    rl::var<unsigned> contents[BLOCKS]; /* of the blocks */
    rl::var<unsigned> reserve;          /* the spare and the held slab */
    int hand[BLOCKS];                   /* whose */
    bool ended;                         /* the thread: its record must not stay behind */

    unsigned number(void *p) {
        RL_ASSERT(p >= block(0) && p < block(BLOCKS));
        return (unsigned)((char *)p - block_memory);
    }
    void take(unsigned t, void *p) {
        unsigned b = number(p);
        RL_ASSERT(hand[b] == NOBODY);
        hand[b] = (int)t;
        contents[b]($) = t;
    }
    void let_go(unsigned t, void *p) {
        unsigned b = number(p);
        RL_ASSERT(hand[b] == (int)t);
        contents[b]($) = 10 + t;
        hand[b] = NOBODY;
    }

    /* ---- the slabs ---- */

    void *claim(unsigned t) {
        for (;;) {
            uint64_t free = home.load(rl::mo_acquire, $);
            if (!free)
                return NULL;
            uint64_t bit = free & (0 - free);
            if (home.fetch_and(~bit, rl::mo_acquire, $) & bit) {
                take(t, block(bits_lowest(bit)));
                return block(bits_lowest(bit));
            }
        }
    }
    void return_one(unsigned t, void *p) {
        let_go(t, p);
        uint64_t bit = 1ull << number(p);
        RL_ASSERT(!(home.fetch_or(bit, rl::mo_release, $) & bit));
    }

    /* ---- a thread with a cache, of which there is one at a time ---- */

    unsigned bottom() { return one.own[CLASS].bottom; }
    /* Stores that are no sites. */
    void set_top(void **to) { seam::find_cell(&one.top[CLASS])->wide->store((uint64_t)to, rl::mo_release, $); }
    void set_slot(unsigned i, void *p) {
        seam::find_cell(&magazine->slot[i])->wide->store((uint64_t)p, rl::mo_relaxed, $);
    }
    void set_state(uint32_t state, rl::memory_order order) {
        seam::find_cell(&one.state)->narrow->store(state, order, $);
    }

    /* The loaded magazine taken out: its rounds are moved to its own bottom. Returns how many. */
    unsigned unload() {
        if (!one.own[CLASS].loaded)
            return 0;
        unsigned from = bottom(), n = (unsigned)(top_load_owner(&one.top[CLASS]) - magazine->slot) - from;
        set_top(&no_rounds[1]);
        one.own[CLASS].loaded = NULL;
        one.own[CLASS].bottom = 0;
        for (unsigned i = 1; from && i <= n; i++)
            set_slot(i, slot_load_owner(&magazine->slot[i + from]));
        return n;
    }
    void load(unsigned n) {
        one.own[CLASS].loaded = magazine;
        set_top(&magazine->slot[n]);
    }
    void *miss(unsigned t) {
        if (!cache_enter_owner(&one))
            return claim(t);
        reserve($) = t;
        void *p = cache_pop_owner(&one, CLASS);
        if (p)
            take(t, p);
        else {
            unsigned n = unload();
            RL_ASSERT(n == 0);
            while (n < 2 && (p = claim(t))) {
                let_go(t, p);
                set_slot(++n, p);
            }
            load(n);
            p = cache_pop_owner(&one, CLASS);
            if (p)
                take(t, p);
        }
        reserve($) = t;
        cache_leave_owner(&one);
        return p;
    }
    void overflow(unsigned t, void *p) {
        if (!cache_enter_owner(&one))
            return return_one(t, p);
        reserve($) = t;
        if (bottom()) {
            load(unload());
            let_go(t, p);
            RL_ASSERT(cache_push_owner(&one, CLASS, p));
        } else {
            return_one(t, p);
        }
        reserve($) = t;
        cache_leave_owner(&one);
    }
    void look_in(unsigned t) {
        if (!cache_enter_owner(&one))
            return;
        reserve($) = t;
        cache_leave_owner(&one);
    }
    void *get(unsigned t) {
        void *p = cache_pop_owner(&one, CLASS);
        if (!p)
            return miss(t);
        take(t, p);
        return p;
    }
    void give(unsigned t, void *p) {
        if (!p)
            return;
        let_go(t, p);
        if (!cache_push_owner(&one, CLASS, p)) {
            hand[number(p)] = (int)t;
            overflow(t, p);
        }
    }
    void retire() {
        set_state(CACHE_UNUSED, rl::mo_relaxed);
        cache_leave_owner(&one);
        pool.store(1, rl::mo_release, $);
    }
    void depart() {
        ended = true;
        do
            if (cache_enter_owner(&one)) {
                flush_all(rl::thread_index());
                retire();
                break;
            }
        while (!cache_abandon_owner(&one));
    }
    bool birth() {
        if (!pool.exchange(0, rl::mo_acquire, $))
            return false;
        if (!cache_enter_owner(&one)) {
            pool.store(1, rl::mo_release, $);
            return false;
        }
        ended = false;
        reserve($) = 0;
        set_top(&no_rounds[1]);
        set_state(CACHE_LIVE, rl::mo_release);
        cache_leave_owner(&one);
        return true;
    }
    void flush_all(unsigned t) {
        reserve($) = t;
        for (unsigned n = unload(); n; n--)
            give_home(t, slot_load_owner(&magazine->slot[n]));
    }
    void give_home(unsigned t, void *p) {
        take(t, p);
        return_one(t, p);
    }
    void reclaim() {
        uint64_t bytes = 0;
        reclaim_cache(&one, 0, &bytes);
    }

    /* ---- programs ---- */

    /* Blocks 0 .. loaded - 1 are in the magazine above `from` empty rounds, the last one in the thread's hand, others on the
     * slabs. */
    void start(unsigned loaded, unsigned from = 0) {
        bind(&one.gate, GATE_OPEN);
        bind(&one.inside, 0);
        bind(&one.state, CACHE_LIVE);
        pool.store(0, rl::mo_relaxed, $);
        home.store(bits_span(loaded, BLOCKS - 1 - loaded), rl::mo_relaxed, $);
        ended = false;
        for (unsigned i = 0; i <= ROUNDS + 1; i++)
            bind((struct ref *)&magazine->slot[i], i > ROUNDS                       ? MAGAZINE_FULL
                                                   : i > from && i <= from + loaded ? block(i - from - 1)
                                                                                    : NULL);
        bind((struct ref *)&one.top[CLASS], &magazine->slot[from + loaded]);
        watch(&one.own[CLASS].bottom);
        one.own[CLASS].bottom = (uint16_t)from;
        one.own[CLASS].loaded = magazine;
        reserve($) = 0;
        for (unsigned b = 0; b < BLOCKS; b++) {
            contents[b]($) = 0;
            hand[b] = b == LAST ? 0 : NOBODY;
        }
        refused = false;
        now = this;
    }

    void set_up() {
        switch (model::program) {
        case 1: /* miss */
            start(1);
            break;
        case 3: /* full */
            start(2, 1);
            break;
        case 8: /* gate */
            start(0);
            break;
        default:
            start(2);
        }
    }
    void run(unsigned t) {
        if (t == 0)
            return owner();
        if (t == 1)
            return reclaim();
        switch (model::program) {
        case 0:
        case 3:
        case 7:
            break; /* the fewer, the deeper */
        case 5:
            heir();
            break;
        case 6:
            refused = true;
            break;
        default:
            reclaim();
        }
    }
    void owner() {
        void *p, *q, *last = block(LAST);
        switch (model::program) {
        case 0: /* hits: down, up over the cut with another block */
            p = get(0);
            give(0, last);
            give(0, p);
            break;
        case 1: /* misses, with the slow path or without */
            p = get(0);
            q = get(0);
            give(0, q);
            give(0, p);
            break;
        case 2: /* two takers */
            p = get(0);
            give(0, p);
            get(0);
            break;
        case 3: /* room below the bottom */
            p = get(0);
            give(0, last);
            give(0, p);
            break;
        case 4: /* the end, after a miss */
            get(0);
            get(0);
            depart();
            break;
        case 5: /* the end, and an heir */
            give(0, last);
            depart();
            break;
        case 6: /* mended */
            p = get(0);
            q = get(0);
            give(0, last);
            give(0, p);
            break;
        case 7: /* idle: all of it goes home */
            break;
        case 8: /* the gate alone */
            look_in(0);
            look_in(0);
            break;
        default: /* the end alone */
            depart();
        }
    }
    void heir() {
        if (!birth())
            return;
        void *p = get(2);
        give(2, p);
    }

    /* ---- in the end ---- */

    void check() {
        unsigned places[BLOCKS] = {0};
        uint64_t free = home.debug_value();
        for (unsigned b = 0; b < BLOCKS; b++)
            places[b] = (free >> b & 1) + (hand[b] != NOBODY);
        if (one.own[CLASS].loaded) {
            void **top = (void **)model::final_value((struct word *)&one.top[CLASS]),
                 **at = &magazine->slot[one.own[CLASS].bottom];
            RL_ASSERT(top >= at && top <= &magazine->slot[ROUNDS]);
            RL_ASSERT(model::final_value((struct word *)at) == 0);
            while (++at <= top)
                places[number((void *)model::final_value((struct word *)at))]++;
        }
        for (unsigned b = 0; b < BLOCKS; b++)
            RL_ASSERT(places[b] == 1); /* none in two, none lost */
        RL_ASSERT(model::final_value(&one.gate) == GATE_OPEN && model::final_value(&one.inside) == 0);
        RL_ASSERT((pool.debug_value() == 1) == (model::final_value(&one.state) == CACHE_UNUSED));
        RL_ASSERT(!ended || pool.debug_value() == 1);
        RL_ASSERT(model::program != 7 || free == bits_span(0, LAST));
    }
};

static void return_blocks(void *const *blocks, unsigned n) {
    while (n--)
        now->give_home(rl::thread_index(), slot_load_owner(blocks++));
}
static uint64_t drop_reserve() {
    now->reserve($) = 20;
    return 0;
}
static void flush() { now->flush_all(rl::thread_index()); }
static void forget() { now->retire(); }

/* ---- the model's own mutants ---- */

static bool held_back; /* the top's move, until the round was read */

static uint64_t wrong_operand(const seam::site &s, const void *, uint64_t value) {
    if (seam::mutant_is("reads-before-it-commits") && !strcmp(s.function, "cache_pop_owner") && s.kind == seam::STORE &&
        !held_back) {
        seam::withheld = true;
        held_back = true;
    }
    return value;
}

static uint64_t wrong_answer(const seam::site &s, const void *at, uint64_t value) {
    bool in_holds = !strcmp(s.function, "cut_holds");
    if (held_back && !strcmp(s.function, "cache_pop_owner") && !strcmp(s.verb, "slot_load_owner")) {
        top_move_release(&one.top[CLASS], -1, "late move", __FILE__, 0);
        held_back = false;
    }
    if (seam::mutant_is("looks-at-the-round-only") && in_holds && at == &one.top[CLASS])
        return (uint64_t)&magazine->slot[ROUNDS];
    if (seam::mutant_is("looks-at-the-top-only") && in_holds && !strcmp(s.verb, "slot_load_relaxed"))
        return 0;
    if (seam::mutant_is("claims-without-a-look") && !strcmp(s.function, "claim_gate") && at == &one.inside)
        return 0;
    return value;
}

int main(int argc, char **argv) {
    seam::alter_operand = wrong_operand;
    seam::alter_answer = wrong_answer;
    return model::main_of<reclaim_model>(
        argc, argv,
        {"reclaim",
         {"hits", "miss", "two-takers", "full", "end", "heir", "refused", "idle", "gate", "end-alone"},
         {"reads-before-it-commits", "looks-at-the-round-only", "looks-at-the-top-only", "claims-without-a-look"},
         {"cache/reclaim.c", "cache/reclaim.h", "cache/cache.h", "model_reclaim.cc"},
         {2, 2, 2, 2, 2, 2, 2, 2, 2, 2}});
}
