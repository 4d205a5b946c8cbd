/* model_slab.cc -- slab/slab.h, slab/slab.c and central/bin.c as shipped: two slabs, three threads, blocks freed by anybody,
 * slabs adopted, parked, trimmed, retired and born again in another class, pages of free blocks purged.
 *
 * Beside the orders it checks at each step that no block is handed out twice or freed into another slab's life, that nobody
 * touches a block's memory, a parked field or a purged page without an edge; and in the end one-token and accounting.
 *
 * covers: S124 S125 C2 C4 C5 C6
 */
#include "model/c.h"

#include "base/bits.h"
#include "base/limits.h"
#include "base/stack.h"
#include "os/fatal.h"

#define uint16_t seam::watched16
#include "page/arena.h"
#undef uint16_t

#include "page/page_map.c"
#include "slab/slab.c"
#include "central/bin.c"

/* ---- the small world ---- */

enum { THREADS = 3, SLABS = 2, MOST_BLOCKS = 3, SMALL = 3 };

#define TINY(capacity_, threshold_)                                                                                    \
    {                                                                                                                  \
        .bytes = 16, .capacity = capacity_, .threshold = threshold_, .inverse = (1ull << 44) / 16, .granules = 1,      \
        .words = 1, .rounds = 2,                                                                                       \
    }
/* Listed at the first free block; at the second of three; when whole, which is to retire. */
const struct size_class gr_classes[CLASS_SLOTS] = {{}, TINY(2, 1), TINY(3, 2), TINY(2, 2)};

struct word gr_region_base = {1ull << 40};
static struct arena only_arena;
struct ref gr_arenas[REGION_ARENAS] = {{&only_arena}};
static struct word runs; /* vacant ones: the bit of their granule, as in `page/arena.c` */

struct slab_model;
static slab_model *now;
static void rewrite_blocks(uint32_t slab);
static void purge_blocks_at(void *at, size_t bytes);

size_t gr_run_claim_clean(size_t, size_t) { return 0; }
size_t gr_run_claim(size_t, size_t) {
    for (;;) {
        uint64_t vacant = word_load_relaxed(&runs);
        if (!vacant)
            return 0;
        uint64_t bit = vacant & (0 - vacant);
        if (word_and_acquire(&runs, ~bit) & bit)
            return bits_lowest(bit);
    }
}
void gr_run_free(size_t first, size_t) {
    rewrite_blocks((uint32_t)first); /* as a purge does */
    RL_ASSERT(!(word_or_release(&runs, 1ull << first) & 1ull << first));
}
void gr_run_mark_dirty(size_t first, size_t) { rewrite_blocks((uint32_t)first); /* as the next user does */ }
size_t gr_run_same_dirt(size_t, size_t granules, bool *dirty) {
    *dirty = true;
    return granules;
}
static uint32_t retired_late; /* by a mutant: the word is written after the run was freed */
void gr_purge_poll(void) {
    if (uint32_t slab = retired_late) {
        retired_late = 0;
        half_store_relaxed(&only_arena.slab[slab].word, SLAB_RETIRED);
    }
}
size_t os_page_bytes(void) { return 16; } /* each block is a page */
bool os_purge(void *at, size_t bytes) {
    purge_blocks_at(at, bytes);
    return true;
}
void gr_run_has_holes(size_t) {}
size_t gr_huge_bytes(const void *) { return 0; }
size_t gr_large_bytes(const void *) { return 0; }

GR_NORETURN static void fail(const char *what) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}
void gr_fatal_block(const char *, const char *, const void *, size_t) { fail("double free"); }
void gr_fatal_size(const char *, const void *, size_t, size_t) { fail("wrong size"); }
void gr_fatal_inside(const char *, const void *, size_t) { fail("not a block's start"); }
void gr_fatal_pointer(const char *, const char *, const void *, const char *) { fail("not a block"); }
void gr_check_failed(const char *what, const char *, int) { fail(what); }

/* ---- the model ---- */

enum { NO_MAIL = 0 };

struct slab_model : model::suite<slab_model, THREADS, 3 * SLABS + SLABS, SIDES * TIERS * SMALL + SLABS + 1, 2 * SLABS> {
    rl::var<unsigned> memory[SLABS + 1][MOST_BLOCKS]; /* of the blocks */
    rl::atomic<uint64_t> mail;                        /* a block on its way from thread to thread */
    bool live[SLABS + 1][MOST_BLOCKS];                /* in a user's hand */
    holding held[THREADS][SMALL + 1];
    rl::atomic<uint32_t> *state[SLABS + 1]; /* where the words of the slabs are simulated */
    rl::atomic<uint64_t> *bits[SLABS + 1];

    static unsigned class_of_slab(uint32_t slab) { return (unsigned)model::final_value(&gr_page_map[slab]); }

    /* Slab 1 of class c has all its blocks out, the first `out` of them in users' hands, the others in the budget of
     * `owner` if there is one; slab 2 is retired. */
    void start(unsigned c, int owner, unsigned out) {
        const struct size_class *k = &gr_classes[c];
        for (unsigned t = 0; t < THREADS; t++)
            for (auto &h : held[t])
                h = holding{};
        for (unsigned i = 1; i <= SMALL; i++) {
            for (unsigned n = 0; n < SIDES * TIERS; n++)
                bind(&bins[i].partial[n % SIDES][n / SIDES].head, 0);
        }
        for (unsigned s = 1; s <= SLABS; s++) {
            struct slab *r = &only_arena.slab[s];
            bind(&r->next, 0);
            bind(&r->word, s == 2 ? (uint32_t)SLAB_RETIRED : owner < 0 ? 0 : (uint32_t)SLAB_OWNED);
            bind(&r->bits[0], s == 2 ? 0 : bits_span(out, k->capacity - out));
            state[s] = seam::find_cell(&r->word)->narrow;
            bits[s] = seam::find_cell(&r->bits[0])->wide;
            bind(&gr_page_map[s], (uint8_t)(s == 1 ? c : 0));
            watch(&r->parked_clean_from);
            watch(&r->swept);
            for (unsigned b = 0; b < MOST_BLOCKS; b++) {
                memory[s][b]($) = 0;
                live[s][b] = s == 1 && b < out;
            }
        }
        bind(&runs, 1 << 2);
        retired_late = 0;
        mail.store(NO_MAIL, rl::mo_relaxed, $);
        if (owner >= 0)
            held[owner][c] = holding{1, (uint16_t)(k->capacity - out), 0, k->capacity};
        now = this;
    }

    /* ---- what users do ---- */

    void *get(unsigned t, unsigned c) {
        void *p;
        bool clean;
        if (!gr_bin_claim(&held[t][c], c, &p, 1, &clean))
            return nullptr;
        struct block_place at;
        RL_ASSERT(block_find(p, c, &at) && at.slab >= 1 && at.slab <= SLABS);
        RL_ASSERT(class_of_slab(at.slab) == c);
        RL_ASSERT(!live[at.slab][at.index]);
        live[at.slab][at.index] = true;
        memory[at.slab][at.index]($) = t;
        return p;
    }
    void give(unsigned t, void *p, void *q = nullptr) {
        void *both[2] = {p, q};
        unsigned c = (unsigned)page_class_of(p);
        RL_ASSERT(c >= 1 && c <= SMALL);
        for (unsigned i = 0; i < 2 && both[i]; i++) {
            struct block_place at;
            block_find(both[i], c, &at);
            RL_ASSERT(live[at.slab][at.index]);
            memory[at.slab][at.index]($) = 10 + t;
            live[at.slab][at.index] = false;
        }
        gr_bin_return(c, both, q ? 2 : 1, "free");
    }
    void give_first(unsigned t, unsigned block) { give(t, block_address(1, class_of_slab(1), block)); }
    void cycle(unsigned t, unsigned c) {
        if (void *p = get(t, c))
            give(t, p);
    }
    void leave(unsigned t, unsigned c) { gr_bin_release(&held[t][c], c); }
    void trim(unsigned c) { gr_bin_trim(c, SLABS, false); }
    void sweep_pages(unsigned c) { gr_bin_trim(c, SLABS, true); }
    void send(unsigned t, unsigned c) {
        if (void *p = get(t, c))
            deliver(t, mail.exchange((uint64_t)p, rl::mo_acq_rel, $));
    }
    void receive(unsigned t) { deliver(t, mail.exchange(NO_MAIL, rl::mo_acq_rel, $)); }
    void deliver(unsigned t, uint64_t p) {
        if (p != NO_MAIL)
            give(t, (void *)p);
    }

    /* ---- programs ---- */

    void set_up() {
        switch (model::program) {
        case 3:
            start(1, 1, 1);
            break;
        case 4:
            start(2, -1, 3);
            break;
        case 5:
            start(2, 1, 2);
            break;
        case 6:
            start(3, -1, 2);
            break;
        case 7:
            start(2, -1, 3);
            break;
        case 8:
            start(1, -1, 2);
            break;
        default:
            start(1, -1, 2);
        }
    }

    void run(unsigned t) {
        switch (model::program) {
        case 0:
            hand_over(t);
            break;
        case 1:
            rebirth(t);
            break;
        case 2:
            two_slabs(t);
            break;
        case 3:
            park(t, 1);
            break;
        case 4:
            threshold(t);
            break;
        case 5:
            park(t, 2);
            break;
        case 7:
            purge(t, 2);
            break;
        case 8:
            purge(t, 1);
            break;
        default:
            whole(t);
            break;
        }
    }
    void hand_over(unsigned t) {
        if (t == 0) {
            give_first(t, 0);
            receive(t);
        } else if (t == 1) {
            give_first(t, 1);
            cycle(t, 1);
            leave(t, 1);
        } else {
            cycle(t, 1);
            send(t, 1);
            leave(t, 1);
            trim(1);
        }
    }
    void rebirth(unsigned t) { /* in another class */
        if (t == 0) {
            give_first(t, 0);
            trim(1);
            cycle(t, 2);
            leave(t, 2);
        } else if (t == 1) {
            give_first(t, 1);
            receive(t);
            trim(1);
        } else {
            cycle(t, 1);
            leave(t, 1);
            send(t, 2);
            cycle(t, 2);
            leave(t, 2);
        }
    }
    void two_slabs(unsigned t) { /* on one stack, pops against pushes */
        if (t == 0) {
            give_first(t, 0);
            cycle(t, 1);
            leave(t, 1);
        } else if (t == 1) {
            give_first(t, 1);
            send(t, 1);
            send(t, 1);
            leave(t, 1);
        } else {
            send(t, 1);
            receive(t);
            leave(t, 1);
            trim(1);
        }
    }
    void park(unsigned t, unsigned c) { /* owner parks, giver lists, another adopts */
        if (t == 0) {
            give_first(t, 0);
            if (c == 2)
                give_first(t, 1);
        } else if (t == 1) {
            get(t, c);
            leave(t, c);
        } else {
            get(t, c);
            get(t, c);
            leave(t, c);
        }
    }
    void threshold(unsigned t) { /* three blocks, listed at two; two given at once */
        if (t == 0) {
            give(t, block_address(1, 2, 0), block_address(1, 2, 1));
            cycle(t, 2);
            leave(t, 2);
        } else if (t == 1) {
            give_first(t, 2);
            cycle(t, 2);
            leave(t, 2);
        } else {
            send(t, 2);
            receive(t);
            trim(2);
            leave(t, 2);
        }
    }
    void whole(unsigned t) { /* never listed: who makes it whole retires it */
        if (t == 0) {
            give_first(t, 0);
            cycle(t, 3);
        } else if (t == 1) {
            give_first(t, 1);
            receive(t);
            leave(t, 3);
        } else {
            send(t, 1);
            leave(t, 1);
            trim(1);
        }
        leave(t, 3);
    }

    void purge(unsigned t, unsigned c) { /* pages of free blocks, beside givers, and a claimer of what was purged */
        if (t == 0) {
            give_first(t, 0);
            if (c == 2)
                give_first(t, 1);
        } else if (t == 1) {
            sweep_pages(c);
            sweep_pages(c);
        } else {
            give_first(t, c);
            get(t, c);
            leave(t, c);
        }
    }

    /* ---- in every state: accounting, as far as it can be seen from outside ---- */

    void invariant() {
        for (unsigned s = 1; s <= SLABS; s++) {
            uint32_t count = (uint32_t)state[s]->debug_value() & SLAB_COUNT_MASK, most = 0;
            for (unsigned t = 0; t < THREADS; t++)
                for (unsigned c = 1; c <= SMALL; c++)
                    most += held[t][c].slab == s ? held[t][c].budget : 0;
            RL_ASSERT(count + most <= bits_count(bits[s]->debug_value()));
        }
    }

    /* ---- in the end ---- */

    void check() {
        unsigned place[SLABS + 1] = {0};
        for (unsigned c = 1; c <= SMALL; c++)
            for (unsigned i = 0; i < SIDES * TIERS; i++)
                for (uint32_t s = stack_top(model::final_value(&bins[c].partial[i % SIDES][i / SIDES].head)), n = 0; s;
                     s = (uint32_t)model::final_value(&only_arena.slab[s].next)) {
                    RL_ASSERT(++n <= SLABS);
                    RL_ASSERT(class_of_slab(s) == c); /* listed-class */
                    place[s]++;
                }
        for (unsigned s = 1; s <= SLABS; s++)
            check_slab(s, place[s]);
    }
    void check_slab(unsigned s, unsigned places) {
        uint32_t state = (uint32_t)model::final_value(&only_arena.slab[s].word), count = state & SLAB_COUNT_MASK,
                 budget = 0;
        uint64_t bits = model::final_value(&only_arena.slab[s].bits[0]), out = 0;
        const struct size_class *k = &gr_classes[class_of_slab(s)];
        bool vacant = model::final_value(&runs) >> s & 1;
        places += vacant;
        for (unsigned t = 0; t < THREADS; t++)
            for (unsigned c = 1; c <= SMALL; c++)
                if (held[t][c].slab == s) {
                    places++;
                    budget += held[t][c].budget;
                    RL_ASSERT(state & SLAB_OWNED);
                }
        for (unsigned b = 0; b < MOST_BLOCKS; b++)
            out |= (uint64_t)live[s][b] << b;
        RL_ASSERT(vacant == (state == SLAB_RETIRED));
        if (vacant) {
            RL_ASSERT(places == 1 && !out && k == &gr_classes[0]);
            return;
        }
        places += !(state & SLAB_OWNED) && count < k->threshold; /* parked */
        RL_ASSERT(places == 1);                                  /* one-token */
        RL_ASSERT(!(bits & out) && (bits | out) == bits_span(0, k->capacity));
        RL_ASSERT(bits_count(bits) == count + budget); /* accounting */
    }
};

static void rewrite_blocks(uint32_t slab) {
    for (unsigned b = 0; b < MOST_BLOCKS; b++) {
        RL_ASSERT(!now->live[slab][b]);
        now->memory[slab][b]($) = 77;
    }
}

static void purge_blocks_at(void *at, size_t bytes) {
    size_t offset = (uintptr_t)at - gr_region_base.value;
    uint32_t slab = (uint32_t)(offset / GRANULE_BYTES);
    unsigned first = (unsigned)(offset % GRANULE_BYTES / 16), end = first + (unsigned)(bytes / 16);
    for (unsigned b = first; b < end && b < MOST_BLOCKS; b++) {
        RL_ASSERT(!now->live[slab][b]);
        now->memory[slab][b]($) = 88;
    }
}

/* ---- the model's own mutants ---- */

static uint64_t wrong_operand(const seam::site &s, const void *at, uint64_t value) {
    if (seam::mutant_is("freed-before-retired") && !strcmp(s.function, "gr_slab_retire")) {
        seam::withheld = true;
        retired_late = at == &only_arena.slab[1].word ? 1 : 2;
    }
    return value;
}

static uint64_t wrong_answer(const seam::site &s, const void *at, uint64_t value) {
    for (unsigned i = 1; i <= SLABS && value < SLAB_OWNED; i++) { /* nobody's slab */
        if (at != &only_arena.slab[i].word)
            continue;
        unsigned class = slab_model::class_of_slab(i);
        const struct size_class *k = &gr_classes[class];
        uint64_t bits = model::final_value(&only_arena.slab[i].bits[0]);
        if (!strcmp(s.function, "slab_add_any")) {
            if (seam::mutant_is("every-giver-lists") && value >= k->threshold)
                return k->threshold - 1u;
            if (seam::mutant_is("retire-by-bits") && bits_count(bits) == k->capacity && k->threshold == k->capacity)
                return k->capacity - 1u;
        }
    }
    if (seam::mutant_is("budget-by-bits") && !strcmp(s.function, "slab_take_owner"))
        for (unsigned i = 1; i <= SLABS; i++)
            if (at == &only_arena.slab[i].word)
                return bits_count(model::final_value(&only_arena.slab[i].bits[0]));
    if (seam::mutant_is("purges-the-live") && !strcmp(s.function, "slab_look_owner"))
        return bits_span(0, MOST_BLOCKS);
    if (seam::mutant_is("lists-above-threshold") && !strcmp(s.function, "slab_release_owner"))
        return value & SLAB_COUNT_MASK ? value - 1 : value;
    return value;
}

int main(int argc, char **argv) {
    seam::alter_operand = wrong_operand;
    seam::alter_answer = wrong_answer;
    return model::main_of<slab_model>(
        argc, argv,
        {"slab",
         {"hand-over", "rebirth", "two-slabs", "park", "threshold", "park-two", "whole", "purge", "purge-one"},
         {"every-giver-lists", "retire-by-bits", "budget-by-bits", "lists-above-threshold", "freed-before-retired",
          "purges-the-live"},
         {"slab/slab.h", "slab/slab.c", "central/bin.c", "page/page_map.h", "page/page_map.c", "base/stack.h",
          "model_slab.cc"},
         {1, 1, 1, 2, 1, 2, 2, 2, 2}});
}
