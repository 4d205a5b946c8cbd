/* central/bin.c -- see `central/bin.h`. */
#include "central/bin.h"

#include "base/check.h"
#include "base/stack.h"
#include "os/fatal.h"
#include "os/os.h"
#include "page/huge.h"
#include "page/large.h"

enum {
    COMBINE_ENTRIES = 64, /* bitmap words gathered at once in a return */
    COMBINE_FEW = 8,      /* for returns of no more blocks */
    TRIM_WHOLE_SLABS = 4, /* known to be whole before a return looks for them */
    TRIM_LOOKS = 16,      /* slabs looked at then */
    TICK_LOOKS = 256,     /* slabs looked at once in a while */
};

enum { SIDES = 2, TIERS = 3 };

GR_SPARSE static struct bin {
    /* any thread writes */
    GR_LINE struct stack partial[SIDES][TIERS];
    struct half whole;    /* slabs that became whole while they were listed: a hint */
    struct half side;     /* from which trim pops: a hint */
    struct half granules; /* in slabs of the class */
    struct half sparse;   /* 1: its blocks are to gather in few slabs: a hint; the keeper writes */
    struct half returned; /* 1: blocks came back since the keeper asked: a hint */
} bins[CLASSES + 1];

/* What trim sees: hints. */
GR_SPARSE static struct {
    /* who trims writes */
    struct half seen; /* free blocks of the listed slabs that it has looked at in this round */
    struct half free; /* of all of them, as of the last whole round */
} sight[CLASSES + 1];

/* Slabs. The most that there were, or about it, is a clock for growth: slabs that come and go do not move it. One of large blocks
 * counts like the others: of its granules little may be in use. */
static struct {
    /* any thread writes */
    GR_LINE struct word now;
    struct word most;
} slabs;

uint32_t gr_bins_growth(void) { return (uint32_t)(word_load_relaxed(&slabs.most) / GROWTH_SLABS); }

static void count_born(void) {
    uint64_t now = word_add_relaxed(&slabs.now, 1) + 1;
    if (now > word_load_relaxed(&slabs.most))
        word_store_relaxed(&slabs.most, now);
}

static struct half *link_of(void *unused, uint32_t index) {
    (void)unused;
    return &slab_at(index)->next;
}

static uint32_t free_of(uint32_t slab) { return half_load_relaxed(&slab_at(slab)->word) & SLAB_COUNT_MASK; }

/* By how much of it was free when trim looked: less than a quarter, five eighths, more. */
static unsigned tier_of(uint32_t slab, unsigned class) {
    uint32_t eighths = free_of(slab) * 8 / gr_classes[class].capacity;
    return eighths < 2 ? 0 : eighths < 5 ? 1 : 2;
}

static uint32_t pop_fullest(unsigned class) {
    uint32_t slab = 0;
    for (unsigned i = 0; i < SIDES * TIERS && !slab; i++)
        slab = stack_pop(&bins[class].partial[i % SIDES][i / SIDES], link_of, NULL);
    return slab;
}

static uint32_t pop_emptiest(unsigned class, unsigned side) {
    uint32_t slab = 0;
    for (unsigned tier = TIERS; tier-- && !slab;)
        slab = stack_pop(&bins[class].partial[side][tier], link_of, NULL);
    return slab;
}

static void retire(uint32_t slab, unsigned class) {
    half_add_relaxed(&bins[class].granules, 0u - gr_classes[class].granules);
    word_add_relaxed(&slabs.now, ~0ull);
    gr_slab_retire(slab, class);
}

size_t gr_bin_granules(unsigned class) { return half_load_relaxed(&bins[class].granules); }

/* Does what the token's holder has to do. */
static void settle(uint32_t slab, unsigned class, enum slab_given given) {
    if (given == SLAB_LIST)
        stack_push(&bins[class].partial[0][0], slab, link_of, NULL);
    else if (given == SLAB_RETIRE)
        retire(slab, class);
    else if (given == SLAB_WHOLE)
        half_add_relaxed(&bins[class].whole, 1);
}

/* ---- claiming ---- */

/* The lowest free block first: the high pages of a slab that is never full stay untouched. Hardened: nobody can tell which. */
static uint16_t first_word(unsigned class) {
    return HARDENED ? (uint16_t)(gr_seal_random() % gr_classes[class].words) : 0;
}

static bool adopt(struct holding *h, unsigned class, bool may_be_new) {
    uint32_t slab = pop_fullest(class);
    if (slab) {
        struct slab *s = slab_at(slab);
        h->budget = (uint16_t)slab_take_owner(s);
        h->clean_from = s->parked_clean_from;
        s->swept = 0;
    } else {
        bool clean;
        if (!may_be_new || !(slab = gr_slab_birth(class, !gr_bin_granules(class), &clean)))
            return false;
        half_add_relaxed(&bins[class].granules, gr_classes[class].granules);
        count_born();
        h->budget = gr_classes[class].capacity;
        h->clean_from = clean ? 0 : gr_classes[class].capacity;
    }
    h->slab = slab;
    h->cursor = first_word(class);
    return true;
}

void gr_bin_release(struct holding *h, unsigned class) {
    if (!h->slab)
        return;
    struct slab *s = slab_at(h->slab);
    uint32_t slab = h->slab, budget = h->budget;
    s->parked_clean_from = h->clean_from;
    h->slab = 0;
    h->budget = 0;
    settle(slab, class, slab_release_owner(s, &gr_classes[class], budget));
}

/* Claims from the held slab, whose budget is not 0. */
static unsigned claim_held(struct holding *h, unsigned class, void **out, unsigned want, bool *clean) {
    const struct size_class *k = &gr_classes[class];
    char *base = region_address(h->slab);
    unsigned n = 0, looked = 0;
    while (n < want && h->budget) {
        CHECK(looked <= k->words); /* the count was ahead of the bits */
        uint64_t mask = slab_claim_owner(h->slab, h->cursor, (uint32_t)min_size(want - n, h->budget));
        looked += !mask;
        h->budget = (uint16_t)(h->budget - bits_count(mask));
        for (; mask; mask &= mask - 1) {
            unsigned index = h->cursor * 64u + bits_lowest(mask);
            if (index < h->clean_from)
                *clean = false;
            else
                h->clean_from = (uint16_t)(index + 1);
            out[n] = base + (size_t)index * k->bytes;
            if (HARDENED && k->bytes <= SHORT_BYTES)
                block_touch(out[n], k->bytes);
            n++;
        }
        if (n < want && h->budget && ++h->cursor >= k->words)
            h->cursor = 0;
    }
    return n;
}

unsigned gr_bin_claim(struct holding *h, unsigned class, void **out, unsigned want, bool *clean) {
    unsigned n = 0;
    *clean = true;
    while (n < want) {
        if (!h->slab && !adopt(h, class, n == 0))
            break;
        if (!h->budget) {
            h->cursor = first_word(class);
            if (!(h->budget = (uint16_t)slab_take_owner(slab_at(h->slab)))) {
                gr_bin_release(h, class);
                continue;
            }
        }
        n += claim_held(h, class, out + n, want - n, clean);
    }
    return n;
}

/* ---- returning ---- */

/* Blocks of one bitmap word on their way back. */
struct combined {
    uint32_t slab; /* 0: none */
    uint32_t word;
    uint64_t mask;
};

GR_COLD GR_NORETURN static void double_free(const struct combined *c, unsigned class, uint64_t twice,
                                            const char *call) {
    gr_fatal_block("double free", call, block_address(c->slab, class, c->word * 64 + bits_lowest(twice)),
                   class_bytes(class));
}

GR_COLD GR_NORETURN static void not_ours(void *p, unsigned class, const char *call) {
    unsigned found = (unsigned)page_class_of(p);
    size_t have = found && found <= CLASSES ? class_bytes(found)
                  : found == CLASS_LARGE    ? gr_large_bytes(p)
                  : found                   ? 0
                                            : gr_huge_bytes(p);
    if (have)
        gr_fatal_size(call, p, class_bytes(class), have);
    gr_fatal_pointer("invalid free", call, p, "was not allocated, or its slab was freed since");
}

static void count(uint32_t slab, unsigned class, uint32_t blocks) {
    if (blocks)
        settle(slab, class, slab_add_any(slab_at(slab), &gr_classes[class], blocks));
}

/* Sets the bits of one word; returns how many blocks are to be counted. */
static uint32_t give(const struct combined *c, unsigned class, const char *call) {
    if (!c->slab)
        return 0;
    uint64_t twice = slab_or_any(c->slab, c->word, c->mask);
    if (GR_UNLIKELY(twice))
        double_free(c, class, twice, call);
    return bits_count(c->mask);
}

/* Words of one slab stand in a row: they are counted by one add. */
static void give_all(const struct combined *table, unsigned entries, unsigned class, const char *call) {
    uint32_t slab = 0, blocks = 0;
    for (const struct combined *c = table; c < table + entries; c++) {
        if (c->slab && c->slab != slab) {
            count(slab, class, blocks);
            slab = c->slab;
            blocks = 0;
        }
        blocks += give(c, class, call);
    }
    count(slab, class, blocks);
}

void gr_bin_return(unsigned class, void *const *blocks, unsigned n, const char *call) {
    struct combined table[COMBINE_ENTRIES];
    unsigned entries = n <= COMBINE_FEW ? COMBINE_FEW : COMBINE_ENTRIES;
    for (unsigned i = 0; i < entries; i++)
        table[i].slab = 0;
    for (unsigned i = 0; i < n; i++) {
        struct block_place at;
        if (GR_UNLIKELY(page_class_of(blocks[i]) != class))
            not_ours(blocks[i], class, call);
        if (GR_UNLIKELY(!block_find(blocks[i], class, &at)))
            gr_fatal_inside(call, blocks[i], class_bytes(class));
        uint32_t word = at.index / 64;
        uint64_t bit = 1ull << at.index % 64;
        struct combined *c = &table[(at.slab * 7 + word) % entries];
        if (c->slab != at.slab || c->word != word) {
            count(c->slab, class, give(c, class, call));
            *c = (struct combined){at.slab, word, 0};
        }
        if (GR_UNLIKELY(c->mask & bit))
            double_free(c, class, bit, call);
        c->mask |= bit;
    }
    give_all(table, entries, class, call);
    if (!half_load_relaxed(&bins[class].returned))
        half_store_relaxed(&bins[class].returned, 1);
    if (half_load_relaxed(&bins[class].whole) >= TRIM_WHOLE_SLABS && !gr_bin_is_sparse(class))
        gr_bin_trim(class, TRIM_LOOKS, false);
}

/* ---- trimming ---- */

/* Free blocks [from, to) of an owned slab, which nobody else can claim: the pages that lie wholly in them go back. */
static void purge_blocks(struct holding *h, unsigned class, unsigned from, unsigned to) {
    const struct size_class *k = &gr_classes[class];
    size_t page = os_page_bytes(), first = round_up((size_t)from * k->bytes, page);
    size_t end = to == k->capacity ? (size_t)k->granules * GRANULE_BYTES : (size_t)to * k->bytes & ~(page - 1);
    if (first >= end)
        return;
    gr_run_has_holes(h->slab);
    bool purged = os_purge((char *)region_address(h->slab) + first, end - first);
    if (purged && to == k->capacity)
        h->clean_from = (uint16_t)min_size(h->clean_from, (first + k->bytes - 1) / k->bytes);
}

/* Also what givers have set and not yet counted: they do not come back to it. */
static void purge_pages(struct holding *h, unsigned class) {
    const struct size_class *k = &gr_classes[class];
    unsigned from = k->capacity; /* of the present row of free blocks */
    for (unsigned w = 0; w < k->words; w++) {
        uint64_t free = slab_look_owner(h->slab, w);
        for (unsigned bit = 0; bit < 64;) {
            uint64_t rest = (from == k->capacity ? free : ~free) >> bit; /* where the row begins, or ends */
            if (!rest)
                break;
            bit += bits_lowest(rest);
            if (from == k->capacity) {
                from = w * 64 + bit;
            } else {
                purge_blocks(h, class, from, w * 64 + bit);
                from = k->capacity;
            }
        }
    }
    if (from < k->capacity)
        purge_blocks(h, class, from, k->capacity);
}

enum { SWEEP_SHARE = 32 }; /* that part of a slab has to become free before its pages are looked at again */

/* A slab in hand that is not whole; what its holder has to do next. */
static enum slab_given sweep(uint32_t slab, unsigned class) {
    const struct size_class *k = &gr_classes[class];
    struct slab *s = slab_at(slab);
    struct holding h = {.slab = slab, .budget = (uint16_t)slab_take_owner(s), .clean_from = s->parked_clean_from};
    if ((unsigned)(h.budget - s->swept) * SWEEP_SHARE >= k->capacity) {
        purge_pages(&h, class);
        s->swept = h.budget;
        s->parked_clean_from = h.clean_from;
    }
    return slab_release_owner(s, k, h.budget);
}

enum trim { TRIM_WHOLE, TRIM_PAGES, TRIM_SETTLED };

/* A slab in hand that is not whole, and was not claimed from since it was last seen here. */
static bool is_settled(struct slab *s) {
    if (s->swept)
        return true;
    s->swept = 1;
    return false;
}

/* Looks at up to `most` slabs of a stack. Returns how many were retired. */
static unsigned trim(unsigned class, unsigned most, enum trim how) {
    struct bin *b = &bins[class];
    unsigned retired = 0, side = half_load_relaxed(&b->side) & 1, free = half_load_relaxed(&sight[class].seen);
    while (most--) {
        uint32_t slab = pop_emptiest(class, side);
        if (!slab) {
            half_store_relaxed(&b->side, !side);
            half_store_relaxed(&b->whole, 0);
            half_store_relaxed(&sight[class].free, free);
            free = 0;
            break;
        }
        struct slab *s = slab_at(slab);
        enum slab_given given = SLAB_LIST;
        if (slab_is_whole_token(s, &gr_classes[class]))
            given = SLAB_RETIRE;
        else if (how == TRIM_PAGES || (how == TRIM_SETTLED && is_settled(s)))
            given = sweep(slab, class);
        free += free_of(slab);
        if (given == SLAB_RETIRE) {
            retire(slab, class);
            retired++;
        } else if (given == SLAB_LIST) {
            stack_push(&b->partial[!side][tier_of(slab, class)], slab, link_of, NULL);
        }
    }
    half_store_relaxed(&sight[class].seen, free);
    uint32_t whole = half_load_relaxed(&b->whole);
    half_store_relaxed(&b->whole, whole > retired ? whole - retired : 0);
    return retired;
}

unsigned gr_bin_trim(unsigned class, unsigned most, bool pages) {
    return trim(class, most, pages ? TRIM_PAGES : TRIM_WHOLE);
}

/* ---- gathering ---- */

enum {
    GATHER_FROM_GRANULES = 16, /* a MiB of slabs */
    GATHER_PART = 16,          /* of the slabs, that is to go */
    GATHER_LOOKS = 120,        /* in so many: a minute */
};

/* What the keeper hopes of a class. */
GR_SPARSE static struct {
    uint32_t granules; /* it had when this was last seen to help */
    uint32_t looks;    /* since */
} hope[CLASSES + 1];

/* Where blocks are that nobody frees slabs stay, whatever is done: hope ends, until there is an eighth more. */
static bool judge(unsigned class) {
    const struct size_class *k = &gr_classes[class];
    uint32_t granules = (uint32_t)gr_bin_granules(class), before = hope[class].granules;
    bool was = gr_bin_is_sparse(class);
    uint64_t all = (uint64_t)granules / k->granules * k->capacity, free = half_load_relaxed(&sight[class].free);
    if (granules < GATHER_FROM_GRANULES || free * (was ? 4 : 2) < all) {
        hope[class].granules = 0;
        return false;
    }
    if (was ? granules + before / GATHER_PART <= before : granules > before + before / 8) {
        hope[class].granules = granules;
        hope[class].looks = 0;
        return true;
    }
    return hope[class].looks++ < GATHER_LOOKS; /* also on from where nobody looked for a while */
}

void gr_bin_gather(unsigned class, unsigned most) {
    trim(class, most, TRIM_SETTLED);
    gr_bin_judge(class);
}

GR_COLD void gr_bin_judge(unsigned class) { half_store_relaxed(&bins[class].sparse, judge(class)); }

bool gr_bin_is_sparse(unsigned class) { return half_load_relaxed(&bins[class].sparse); }

void gr_bin_gathered(unsigned class) {
    if (gr_bin_is_sparse(class))
        half_store_relaxed(&bins[class].sparse, 0);
}

uint64_t gr_bin_activity(unsigned class) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < SIDES * TIERS; i++)
        sum += word_load_relaxed(&bins[class].partial[i % SIDES][i / SIDES].head);
    return sum;
}

bool gr_bin_was_returned_to(unsigned class) {
    bool was = half_load_relaxed(&bins[class].returned);
    if (was)
        half_store_relaxed(&bins[class].returned, 0);
    return was;
}

void gr_bin_tick(unsigned class) {
    if (half_load_relaxed(&bins[class].whole))
        gr_bin_trim(class, TICK_LOOKS, false);
}

/* ---- repair ---- */

void gr_bin_relist(uint32_t slab, unsigned class) {
    const struct size_class *k = &gr_classes[class];
    uint32_t count = gr_slab_recount(slab, class);
    struct slab *s = slab_at(slab);
    half_store_relaxed(&s->word, count);
    s->parked_clean_from = k->capacity; /* what its last owner handed out is not known */
    settle(slab, class, count == k->capacity ? SLAB_RETIRE : count >= k->threshold ? SLAB_LIST : SLAB_DONE);
}
