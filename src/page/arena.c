/* page/arena.c -- see `page/arena.h`. */
#include "page/arena.h"

#include "base/check.h"
#include "os/os.h"
#include "page/limit.h"
#include "page/meta.h"
#include "page/page_map.h"
#include "page/purge.h"
#include "page/region.h"
#include "page/thp.h"

GR_SPARSE struct ref gr_arenas[REGION_ARENAS];

/* The first arena costs no system call: a small program needs no other. */
GR_SPARSE static struct arena first_arena;

/* any thread writes */
static struct {
    GR_LINE struct word count;                     /* arenas that may exist */
    struct word mapped;                            /* granules */
    GR_LINE struct word vacant_dirty;              /* granules */
    struct word split;                             /* granules */
    GR_LINE struct word roomy[REGION_ARENAS / 64]; /* 1: the arena may have a vacant granule */
} arenas;

size_t gr_arena_count(void) { return word_load_acquire(&arenas.count); /* [acquire counted-arena] */ }
uint64_t gr_vacant_dirty(void) {
    uint64_t n = word_load_relaxed(&arenas.vacant_dirty);
    return n > REGION_GRANULES ? 0 : n; /* two threads at work may make the sum dip below zero */
}
uint64_t gr_granules_mapped(void) { return word_load_relaxed(&arenas.mapped); }

bool gr_granule_is_mapped(size_t granule) {
    const struct arena *a = granule < REGION_GRANULES ? arena_of(granule) : NULL;
    return a && half_load_relaxed(&a->chunk[granule % ARENA_GRANULES / CHUNK_GRANULES]) == CHUNK_MAPPED;
}

static void set_roomy(size_t arena) {
    struct word *w = &arenas.roomy[arena / 64];
    word_or_release(w, 1ull << arena % 64); /* [release roomy] */
}

static bool has_vacant(const struct arena *a) {
    for (unsigned w = 0; w < ARENA_CHUNKS; w++)
        if (word_load_acquire(&a->vacant[w])) /* [acquire run-home] */
            return true;
    return false;
}

/* Clears the hint, then looks again: a granule freed in between sets it anew or is seen here. */
static void clear_roomy_if_full(struct arena *a, size_t arena) {
    if (has_vacant(a))
        return;
    word_and_acquire(&arenas.roomy[arena / 64], ~(1ull << arena % 64)); /* [acquire roomy] */
    if (has_vacant(a))
        set_roomy(arena);
}

/* ---- sets of granules within one arena, as plain copies of its bitmaps ---- */

struct granules {
    uint64_t w[ARENA_CHUNKS];
};

static unsigned next_one(const struct granules *s, unsigned from) {
    for (unsigned w = from / 64; w < ARENA_CHUNKS; w++, from = w * 64) {
        uint64_t rest = s->w[w] & (~0ull << from % 64);
        if (rest)
            return w * 64 + bits_lowest(rest);
    }
    return ARENA_GRANULES;
}

static unsigned next_zero(const struct granules *s, unsigned from) {
    for (unsigned w = from / 64; w < ARENA_CHUNKS; w++, from = w * 64) {
        uint64_t rest = ~s->w[w] & (~0ull << from % 64);
        if (rest)
            return w * 64 + bits_lowest(rest);
    }
    return ARENA_GRANULES;
}

/* The next row of ones behind *to. */
static bool next_gap(const struct granules *s, unsigned *from, unsigned *to) {
    *from = next_one(s, *to);
    *to = next_zero(s, *from);
    return *from < ARENA_GRANULES;
}

/* The tightest run that holds n granules from a multiple of align on, the lowest of the tightest; ARENA_GRANULES: none.
 * Tight fits keep the wide gaps whole, and so whole huge pages empty. */
static unsigned tightest_fit(const struct granules *s, unsigned n, unsigned align) {
    unsigned best = ARENA_GRANULES, best_length = ARENA_GRANULES + 1;
    for (unsigned from, to = 0; next_gap(s, &from, &to);) {
        unsigned at = (from + align - 1) & ~(align - 1);
        if (at + n <= to && to - from < best_length) {
            best = at;
            best_length = to - from;
            if (best_length == n)
                break;
        }
    }
    return best;
}

/* Calls body with `w`, `mask` for each word that granules [at, at + n) of an arena touch. */
#define FOR_WORDS(at, n, w, mask)                                                                                      \
    for (unsigned w = (at) / 64, end_ = (at) + (n), from_ = (at) % 64; w * 64 < end_; w++, from_ = 0)                  \
        for (uint64_t mask = bits_span(from_, (end_ - w * 64 < 64 ? end_ - w * 64 : 64) - from_); mask; mask = 0)

static void vacate(struct arena *a, unsigned at, unsigned n) {
    FOR_WORDS (at, n, w, mask) {
        uint64_t old = word_or_release(&a->vacant[w], mask); /* [release run-home] */
        CHECK(!(old & mask));
    }
}

/* A claim that fails may have hidden its bits from a search that then cleared the hint: it sets the hint again. */
static bool claim_exactly(struct arena *a, size_t index, unsigned at, unsigned n) {
    FOR_WORDS (at, n, w, mask) {
        uint64_t old = word_and_acquire(&a->vacant[w], ~mask); /* [acquire run-home] */
        if ((old & mask) == mask)
            continue;
        word_or_release(&a->vacant[w], old & mask); /* [release run-home] */
        if (w * 64 > at)
            vacate(a, at, w * 64 - at);
        set_roomy(index);
        return false;
    }
    return true;
}

/* The widest gap that holds n granules. */
GR_COLD static unsigned widest_fit(const struct granules *s, unsigned n, unsigned *length) {
    unsigned best = ARENA_GRANULES;
    *length = 0;
    for (unsigned from, to = 0; next_gap(s, &from, &to);)
        if (to - from >= n && to - from > *length) {
            *length = to - from;
            best = from;
        }
    return best;
}

/* Which vacant granules a claim considers. */
struct wanted {
    bool dirty_only, clean_only;
    bool dense, sparse; /* in chunks of these kinds */
};

static void copy_vacant(const struct arena *a, struct wanted wanted, struct granules *out) {
    uint32_t dense = half_load_relaxed(&a->dense);
    for (unsigned w = 0; w < ARENA_CHUNKS; w++) {
        out->w[w] = (dense >> w & 1 ? wanted.dense : wanted.sparse) ? word_load_relaxed(&a->vacant[w]) : 0;
        if (wanted.dirty_only && out->w[w])
            out->w[w] &= word_load_relaxed(&a->dirty[w]);
        if (wanted.clean_only && out->w[w])
            out->w[w] &= ~word_load_relaxed(&a->dirty[w]);
    }
}

static unsigned dirty_in(const struct arena *a, unsigned at, unsigned n) {
    unsigned dirty = 0;
    FOR_WORDS (at, n, w, mask)
        dirty += bits_count(word_load_relaxed(&a->dirty[w]) & mask);
    return dirty;
}

/* n granules' bytes were taken for the run `first`; those of its dirty ones have been before, and 0 is no run. */
static size_t settled(size_t first, unsigned n) {
    gr_limit_give((uint64_t)GRANULE_BYTES * (first ? dirty_in(arena_of(first), first % ARENA_GRANULES, n) : n));
    return first;
}

/* A run chosen because it was dirty, and so paid for: what a purge has made clean before it was claimed is taken anew. 0: there was
 * none, or the limit is in the way and it is vacant again. */
static size_t settled_dirty(size_t first, unsigned n) {
    if (!first)
        return 0;
    struct arena *a = arena_of(first);
    unsigned at = first % ARENA_GRANULES, clean = n - dirty_in(a, at, n);
    if (GR_LIKELY(!clean) || gr_limit_take((uint64_t)GRANULE_BYTES * clean))
        return first;
    vacate(a, at, n);
    set_roomy(first / ARENA_GRANULES);
    return 0;
}

/* From the lowest arena on: addresses stay dense, the high ones drain. 0: no vacant run fits. */
static size_t claim_vacant(unsigned n, unsigned align, struct wanted wanted) {
    size_t count = gr_arena_count();
    for (size_t block = 0; block * 64 < count; block++)
        for (uint64_t hints = word_load_acquire(&arenas.roomy[block]); hints;
             hints &= hints - 1) { /* [acquire roomy] */
            size_t index = block * 64 + bits_lowest(hints);
            struct arena *a = ref_load_acquire(&gr_arenas[index]); /* [acquire arena-born] */
            for (;;) {
                struct granules vacant;
                copy_vacant(a, wanted, &vacant);
                unsigned at = tightest_fit(&vacant, n, align);
                if (at == ARENA_GRANULES) {
                    if (n == 1 && !wanted.dirty_only && !wanted.clean_only)
                        clear_roomy_if_full(a, index);
                    break;
                }
                if (claim_exactly(a, index, at, n))
                    return index * ARENA_GRANULES + at;
            }
        }
    return 0;
}

/* ---- growth ---- */

static struct arena *arena_find_or_make(size_t index) {
    void *seen = ref_load_acquire(&gr_arenas[index]); /* [acquire arena-born] */
    if (!seen) {
        struct arena *fresh = index ? os_map(sizeof *fresh) : &first_arena;
        if (!fresh)
            return NULL;
        if (ref_cas_strong_acq_rel(&gr_arenas[index], &seen, fresh)) { /* [release arena-born] */
            seen = fresh;
            if (index)
                gr_meta_count_mapped(sizeof *fresh);
        } else if (index) {
            os_unmap(fresh, sizeof *fresh);
        }
    }
    /* Whoever finds the arena helps to count it: its maker may be stopped for ever. */
    uint64_t count = word_load_relaxed(&arenas.count);
    while (count <= index && !word_cas_strong_acq_rel(&arenas.count, &count, index + 1)) /* [release counted-arena] */
        ;
    return seen;
}

static void set_bit(struct half *set, unsigned bit, bool on) {
    if (on)
        half_or_relaxed(set, 1u << bit);
    else
        half_and_relaxed(set, ~(1u << bit));
}

static void publish(struct arena *a, size_t index, unsigned chunk, bool dense, bool huge) {
    uint64_t all = ~0ull;
    set_bit(&a->dense, chunk, dense);
    set_bit(&a->huge, chunk, huge);
    if (index == 0 && chunk == 0)
        all &= ~1ull; /* granule 0 stands for "none" */
    half_store_relaxed(&a->chunk[chunk], CHUNK_MAPPED);
    word_add_relaxed(&arenas.mapped, CHUNK_GRANULES);
    word_or_release(&a->vacant[chunk], all); /* [release run-home] */
    set_roomy(index);
}

static bool take_chunk(struct arena *a, unsigned chunk) {
    uint32_t seen = CHUNK_UNMAPPED;
    return half_load_relaxed(&a->chunk[chunk]) == CHUNK_UNMAPPED &&
           half_cas_strong_acq_rel(&a->chunk[chunk], &seen, CHUNK_GROWING); /* [acquire chunk-gone] */
}

/* Maps chunks [from, from + n), which the caller took. */
static enum os_result map_taken(struct arena *a, size_t index, unsigned from, unsigned n, bool dense) {
    size_t first = index * ARENA_CHUNKS + from;
    enum os_result result = gr_region_map(first, n);
    if (result == OS_OK) {
        bool huge = gr_thp_may(first, n, dense);
        for (unsigned c = from; c < from + n; c++)
            publish(a, index, c, dense, huge);
    } else if (n == 1) {
        half_store_relaxed(&a->chunk[from], result == OS_TAKEN ? CHUNK_FOREIGN : CHUNK_UNMAPPED);
    } else {
        /* Each by itself: a stranger in one of them, or too little memory for all. */
        enum os_result any = OS_NO_MEMORY;
        for (unsigned c = from; c < from + n; c++) {
            enum os_result one = map_taken(a, index, c, 1, dense);
            if (one != OS_NO_MEMORY)
                any = one;
        }
        return any;
    }
    return result;
}

/* Maps at least `need` chunks in a row in some arena, if it can. OS_TAKEN: something changed, look again. */
static enum os_result grow(unsigned need, bool dense) {
    if (!gr_region_boot())
        return OS_NO_MEMORY;
    unsigned wish = (unsigned)min_size(gr_granules_mapped() / CHUNK_GRANULES / 8, ARENA_CHUNKS);
    size_t limit = min_size(gr_arena_count() + 1, REGION_ARENAS);
    for (size_t index = 0; index < limit; index++) {
        struct arena *a = arena_find_or_make(index);
        if (!a)
            return OS_NO_MEMORY;
        for (unsigned from = 0; from + need <= ARENA_CHUNKS; from++) {
            unsigned n = 0;
            while (from + n < ARENA_CHUNKS && half_load_relaxed(&a->chunk[from + n]) == CHUNK_UNMAPPED)
                n++;
            if (n < need) {
                from += n;
                continue;
            }
            unsigned taken = 0;
            while (taken < n && taken < max_size(need, wish) && take_chunk(a, from + taken))
                taken++;
            if (!taken)
                return OS_TAKEN;
            if (index == 0 && from == 0 && REGION_BOOT_CHUNK == 0) {
                publish(a, 0, 0, dense, gr_thp_may(0, 1, dense)); /* boot mapped it */
                if (taken > 1)
                    map_taken(a, 0, 1, taken - 1, dense);
                return OS_OK;
            }
            return map_taken(a, index, from, taken, dense);
        }
    }
    /* Others may have made and filled arenas beyond those looked at. */
    return limit < REGION_ARENAS && gr_arena_count() + 1 > limit ? OS_TAKEN : OS_NO_MEMORY;
}

/* ---- runs ---- */

/* How many pages of the run are in memory. False: the system does not say. */
GR_COLD static bool pages_there(size_t first, size_t granules, size_t *pages) {
    uint8_t there[CHUNK_BYTES / 4096];
    size_t bytes = granules * GRANULE_BYTES;
    if (!os_residence(region_address(first), bytes, there))
        return false;
    *pages = 0;
    for (size_t i = 0; i < bytes / os_page_bytes(); i++)
        *pages += there[i];
    return true;
}

static bool is_huge(const struct arena *a, unsigned chunk) { return half_load_relaxed(&a->huge) >> chunk & 1; }

/* The heap is not large yet, and fills its pages: of the granules in the same place of the dense chunk before, 15 pages in 16 are in
 * memory, hardened 14: each slab ends in a guard. Those just before it are not asked about: slabs there have blocks that were not handed out yet. */
GR_COLD static bool is_filled_before(const struct arena *a, size_t first) {
    unsigned chunk = first % ARENA_GRANULES / CHUNK_GRANULES;
    uint64_t below = half_load_relaxed(&a->dense) & ((1u << chunk) - 1);
    if (!below)
        return false;
    size_t before = first - (chunk - bits_highest(below)) * (size_t)CHUNK_GRANULES, pages;
    return pages_there(before, HUGE_PAGE_GRANULES, &pages) &&
           pages >= HUGE_PAGE_GRANULES * (GRANULE_BYTES / os_page_bytes()) / 16 * (HARDENED ? 14 : 15);
}

/* With a huge page where it is the first granule of one, in a chunk that may have them, and nobody has been there. Not where a guard
 * is, which the claimer opens. */
static size_t in_huge_page(size_t first) {
    struct arena *a = first ? arena_of(first) : NULL;
    unsigned at = first % ARENA_GRANULES, chunk = at / CHUNK_GRANULES;
    size_t guarded = first;
    bool split;
    if (HARDENED && a && gr_run_guarded(&guarded, 1, &split))
        return first;
    if (a && at % HUGE_PAGE_GRANULES == 0 && !dirty_in(a, at, HUGE_PAGE_GRANULES) &&
        (is_huge(a, chunk) || (gr_thp_may_early() && is_filled_before(a, first))) &&
        gr_thp_ask(first, HUGE_PAGE_GRANULES, first))
        set_bit(&a->huge, chunk, true);
    return first;
}

/* In as many chunks in a row there is such a run. */
static unsigned chunks_for(size_t granules, size_t align) {
    return (unsigned)((granules + (align > 1 ? align - 1 : 0) + CHUNK_GRANULES - 1) / CHUNK_GRANULES);
}

size_t gr_run_claim(size_t granules, size_t align) {
    ASSERT(granules && granules <= ARENA_GRANULES && is_power_of_two(align));
    unsigned n = (unsigned)granules, a = (unsigned)align, chunks = chunks_for(granules, align);
    if (chunks > ARENA_CHUNKS)
        return 0;
    /* Slabs of one granule fill their chunks, and huge pages with them; all else has chunks of its own. Dirty memory is used
     * first, of the other kind too where one granule will do; the other kind's clean memory only when there is no more. */
    bool dense = granules == 1 && align == 1;
    const struct wanted dirty = {.dirty_only = true, .dense = dense, .sparse = true};
    const struct wanted own = {.dense = dense, .sparse = !dense}, any = {.dense = true, .sparse = true};
    for (;;) {
        size_t first = gr_vacant_dirty() >= granules ? settled_dirty(claim_vacant(n, a, dirty), n) : 0;
        if (first)
            return first;
        if (!gr_limit_take(granules * GRANULE_BYTES))
            return 0;
        first = settled(claim_vacant(n, a, own), n);
        if (first)
            return dense ? in_huge_page(first) : first;
        if (grow(chunks, dense) == OS_NO_MEMORY)
            return gr_limit_take(granules * GRANULE_BYTES) ? settled(claim_vacant(n, a, any), n) : 0;
    }
}

size_t gr_run_claim_clean(size_t granules, size_t align) {
    const struct wanted clean = {.clean_only = true, .sparse = true};
    while (!gr_limit_is_tight() && gr_limit_take(granules * GRANULE_BYTES)) {
        size_t first = settled(claim_vacant((unsigned)granules, (unsigned)align, clean), (unsigned)granules);
        if (first || grow(chunks_for(granules, align), false) == OS_NO_MEMORY)
            return first;
    }
    return 0;
}

/* Maps the chunks of [at, at + n) that are not mapped, if everything else in it is vacant. */
static bool grow_at(struct arena *a, size_t index, unsigned at, unsigned n) {
    bool grew = false;
    FOR_WORDS (at, n, w, mask)
        if ((word_load_relaxed(&a->vacant[w]) & mask) != mask && half_load_relaxed(&a->chunk[w]) != CHUNK_UNMAPPED)
            return false;
    FOR_WORDS (at, n, u, unused)
        if (take_chunk(a, u))
            grew = map_taken(a, index, u, 1, false) == OS_OK;
    return grew;
}

GR_COLD static bool claim_or_grow(struct arena *a, size_t index, unsigned at, unsigned n) {
    return claim_exactly(a, index, at, n) || (grow_at(a, index, at, n) && claim_exactly(a, index, at, n));
}

bool gr_run_claim_at(size_t first, size_t granules) {
    unsigned at = first % ARENA_GRANULES, n = (unsigned)granules;
    if (at == 0 || at + granules > ARENA_GRANULES)
        return false;
    return gr_limit_take(granules * GRANULE_BYTES) &&
           settled(claim_or_grow(arena_of(first), first / ARENA_GRANULES, at, n) ? first : 0, n);
}

GR_COLD size_t gr_run_claim_roomy(size_t granules, bool dirty) {
    unsigned n = (unsigned)granules, length;
    size_t limit = min_size(gr_arena_count() + !dirty, REGION_ARENAS);
    if (!gr_limit_take(granules * GRANULE_BYTES))
        return 0;
    for (size_t index = 0; index < limit; index++) {
        struct arena *a = arena_find_or_make(index);
        if (!a)
            break;
        struct granules room;
        copy_vacant(a, (struct wanted){.dirty_only = dirty, .sparse = true}, &room);
        for (unsigned c = 0; c < ARENA_CHUNKS && !dirty; c++)
            if (half_load_relaxed(&a->chunk[c]) == CHUNK_UNMAPPED)
                room.w[c] = ~0ull;
        if (index == 0)
            room.w[0] &= ~1ull;
        unsigned at = widest_fit(&room, n, &length);
        bool last = index + 1 == limit;
        if (!dirty && at < ARENA_GRANULES && at && length >= 4 * n &&
            page_class(index * ARENA_GRANULES + at - 1) > CLASSES)
            at += length / 4; /* the large block before it may want to grow too */
        if (at < ARENA_GRANULES && ((last && !dirty) || length >= 2 * n) && claim_or_grow(a, index, at, n))
            return settled(index * ARENA_GRANULES + at, n);
    }
    return settled(0, n);
}

size_t gr_run_same_dirt(size_t first, size_t granules, bool *dirty) {
    struct arena *a = arena_of(first);
    size_t at = first % ARENA_GRANULES, end = at + granules;
    *dirty = word_load_relaxed(&a->dirty[at / 64]) >> at % 64 & 1;
    while (at < end) {
        uint64_t word = word_load_relaxed(&a->dirty[at / 64]), others = (*dirty ? ~word : word) >> at % 64;
        if (others)
            return min_size(at + bits_lowest(others), end) - (end - granules);
        at = (at | 63) + 1;
    }
    return granules;
}

void gr_run_mark_dirty(size_t first, size_t granules) {
    struct arena *a = arena_of(first);
    unsigned at = first % ARENA_GRANULES;
    uint64_t were_dirty = 0;
    FOR_WORDS (at, (unsigned)granules, w, mask) {
        uint64_t old = word_load_relaxed(&a->dirty[w]) & mask;
        if (old != mask)
            old = word_or_relaxed(&a->dirty[w], mask) & mask;
        were_dirty += bits_count(old);
    }
    if (were_dirty)
        word_add_relaxed(&arenas.vacant_dirty, 0 - were_dirty);
}

GR_COLD void gr_run_mark_clean(size_t first, size_t granules) {
    struct arena *a = arena_of(first);
    FOR_WORDS (first % ARENA_GRANULES, (unsigned)granules, w, mask)
        word_and_relaxed(&a->dirty[w], ~mask);
}

size_t gr_run_guarded(size_t *first, size_t granules, bool *split) {
    struct arena *a = arena_of(*first);
    size_t arena = *first / ARENA_GRANULES * ARENA_GRANULES, from = 0, to = 0;
    *split = false;
    FOR_WORDS (*first % ARENA_GRANULES, (unsigned)granules, w, mask) {
        uint64_t found = word_load_relaxed(&a->guarded[HARDENED ? w : 0]) & mask;
        if (!found)
            continue;
        *split |= (word_load_relaxed(&a->split[HARDENED ? w : 0]) & mask) != 0;
        from = to ? from : arena + w * 64 + bits_lowest(found);
        to = arena + w * 64 + bits_highest(found) + 1;
    }
    *first = from;
    return to - from;
}

/* How many more it has now. */
static uint64_t set_or_clear(struct word *bits, uint64_t mask, bool set) {
    uint64_t old = (set ? word_or_relaxed(bits, mask) : word_and_relaxed(bits, ~mask)) & mask;
    return (set ? bits_count(mask) : 0) - (uint64_t)bits_count(old);
}

void gr_run_mark_guarded(size_t first, size_t granules, enum guard guard) {
    struct arena *a = arena_of(first);
    FOR_WORDS (first % ARENA_GRANULES, (unsigned)granules, w, mask) {
        size_t at = HARDENED ? w : 0;
        uint64_t more = set_or_clear(&a->split[at], mask, guard == GUARD_SPLIT);
        if (more)
            word_add_relaxed(&arenas.split, more);
        set_or_clear(&a->guarded[at], mask, guard != GUARD_NONE);
    }
}

size_t gr_granules_split(void) { return word_load_relaxed(&arenas.split); }

bool gr_run_was_given(size_t first, size_t granules) {
    struct byte *given = &arena_of(first)->given[HARDENED ? first % ARENA_GRANULES : 0];
    bool was = false;
    for (size_t i = 0; i < granules; i++)
        was |= byte_load_relaxed(&given[i]) != 0;
    bytes_fill_relaxed(given, granules, 1);
    return was;
}

void gr_run_free(size_t first, size_t granules) {
    struct arena *a = arena_of(first);
    unsigned at = first % ARENA_GRANULES;
    bytes_fill_relaxed(&a->stamp[at], granules, gr_purge_tick());
    uint64_t dirty = dirty_in(a, at, (unsigned)granules);
    gr_limit_give((granules - dirty) * GRANULE_BYTES);
    word_add_relaxed(&arenas.vacant_dirty, dirty);
    vacate(a, at, (unsigned)granules);
    set_roomy(first / ARENA_GRANULES);
}

/* Is less than half of the run in memory? */
GR_COLD static bool is_sparse(size_t first, unsigned granules) {
    size_t pages;
    return pages_there(first, granules, &pages) && pages < granules * (GRANULE_BYTES / os_page_bytes()) / 2;
}

/* The first of the runs that a word's mask holds, which leaves the mask. */
static uint64_t next_run(uint64_t *mask, unsigned *from, unsigned *n) {
    *from = bits_lowest(*mask);
    *n = *mask >> *from == ~0ull >> *from ? 64 - *from : bits_lowest(~(*mask >> *from));
    uint64_t run = bits_span(*from, *n);
    *mask &= ~run;
    return run;
}

/* Clean granules to which nobody has been, and which a huge page has brought into memory beside used ones. */
static void purge_clean(struct arena *a, size_t index, unsigned word) {
    unsigned from, n;
    for (uint64_t mask = word_load_relaxed(&a->vacant[word]) & ~word_load_relaxed(&a->dirty[word]); mask;) {
        next_run(&mask, &from, &n);
        if (!claim_exactly(a, index, word * 64 + from, n))
            continue;
        os_purge(region_address(index * ARENA_GRANULES + word * 64 + from), n * GRANULE_BYTES);
        vacate(a, word * 64 + from, n);
        set_roomy(index);
    }
}

static void set_huge(struct arena *a, size_t first, size_t granules) {
    FOR_WORDS (first % ARENA_GRANULES, (unsigned)granules, w, unused)
        set_bit(&a->huge, w, true);
}

/* Under those 2 MiB of [from, end) to which nobody has been. `bring`: nobody else has the granules from there on, and they will be
 * written; 0: nobody knows. */
static void want_huge_pages(struct arena *a, size_t from, size_t end, size_t bring) {
    for (size_t to = from; from < end; to += HUGE_PAGE_GRANULES) {
        if (to + HUGE_PAGE_GRANULES <= end && !dirty_in(a, to % ARENA_GRANULES, HUGE_PAGE_GRANULES))
            continue;
        if (from < to && gr_thp_ask(from, to - from, bring ? max_size(from, bring) : 0))
            set_huge(a, from, to - from);
        from = to + HUGE_PAGE_GRANULES;
    }
}

GR_COLD void gr_run_want_huge_pages(size_t first, size_t granules, bool written) {
    want_huge_pages(arena_of(first), round_up(first, HUGE_PAGE_GRANULES), first + granules, written ? first : 0);
}

GR_COLD void gr_run_want_huge_pages_around(size_t first, size_t granules) {
    want_huge_pages(arena_of(first), first / HUGE_PAGE_GRANULES * HUGE_PAGE_GRANULES,
                    round_up(first + granules, HUGE_PAGE_GRANULES), first);
}

GR_COLD bool gr_run_want_huge_pages_on(size_t first, size_t have, size_t granules) {
    struct arena *a = arena_of(first);
    size_t end = first + granules, next = round_up(end, HUGE_PAGE_GRANULES), page = next - HUGE_PAGE_GRANULES;
    size_t bring = round_up(first + have, HUGE_PAGE_GRANULES);
    uint64_t rest = bits_span(end % 64, (unsigned)(next - end));
    if (page >= first && !dirty_in(a, page % ARENA_GRANULES, HUGE_PAGE_GRANULES) &&
        (word_load_relaxed(&a->vacant[page % ARENA_GRANULES / 64]) & rest) == rest)
        end = next;
    if (bring + HUGE_PAGE_GRANULES > end)
        return false;
    if (dirty_in(a, bring % ARENA_GRANULES, HUGE_PAGE_GRANULES))
        bring = 0;
    bool asked = gr_thp_ask(first, end - first, bring);
    if (asked)
        set_huge(a, first, end - first);
    else if (is_huge(a, first % ARENA_GRANULES / CHUNK_GRANULES))
        gr_thp_ask_no_more(first, granules);
    return asked;
}

GR_COLD void gr_run_has_holes(size_t granule) {
    struct arena *a = arena_of(granule);
    unsigned chunk = granule % ARENA_GRANULES / CHUNK_GRANULES;
    uint32_t bit = 1u << chunk;
    if (is_huge(a, chunk) && half_and_relaxed(&a->huge, ~bit) & bit) {
        gr_thp_ask_no_more(granule & ~(size_t)(CHUNK_GRANULES - 1), CHUNK_GRANULES);
        purge_clean(a, granule / ARENA_GRANULES, chunk);
    }
}

GR_COLD void gr_arenas_drop_untouched(void) {
    for (size_t i = 0; i < gr_arena_count(); i++) {
        struct arena *a = ref_load_acquire(&gr_arenas[i]); /* [acquire arena-born] */
        for (unsigned c = 0; a && c < ARENA_CHUNKS; c++)
            if (word_load_relaxed(&a->vacant[c]) & ~word_load_relaxed(&a->dirty[c]))
                gr_run_has_holes(i * ARENA_GRANULES + c * CHUNK_GRANULES);
    }
}

unsigned gr_run_purge(struct arena *a, size_t arena_index, unsigned word, uint64_t mask, bool if_sparse) {
    unsigned purged = 0, from, n;
    while (mask) {
        uint64_t run = next_run(&mask, &from, &n);
        if (!claim_exactly(a, arena_index, word * 64 + from, n))
            continue;
        uint64_t dirty = word_load_relaxed(&a->dirty[word]) & run;
        size_t first = arena_index * ARENA_GRANULES + word * 64 + from;
        if (dirty && (!if_sparse || is_sparse(first, n)) && os_purge(region_address(first), n * GRANULE_BYTES)) {
            if (n < CHUNK_GRANULES || (!(half_load_relaxed(&a->dense) >> word & 1) && gr_thp_by_run()))
                gr_run_has_holes(first);
            word_and_relaxed(&a->dirty[word], ~run);
            word_add_relaxed(&arenas.vacant_dirty, 0 - (uint64_t)bits_count(dirty));
            gr_limit_give((uint64_t)bits_count(dirty) * GRANULE_BYTES);
            purged += n;
        }
        word_or_release(&a->vacant[word], run); /* [release run-home] */
        set_roomy(arena_index);
    }
    return purged;
}

/* A chunk that is wholly vacant leaves the address space. */
static bool unmap_chunk(struct arena *a, size_t index, unsigned chunk) {
    if (word_load_relaxed(&a->vacant[chunk]) != ~0ull ||
        !claim_exactly(a, index, chunk * CHUNK_GRANULES, CHUNK_GRANULES))
        return false;
    half_store_relaxed(&a->chunk[chunk], CHUNK_GROWING);
    bool gone = os_unmap(region_address(index * ARENA_GRANULES + chunk * CHUNK_GRANULES), CHUNK_BYTES);
    if (gone) {
        uint64_t dirty = bits_count(word_load_relaxed(&a->dirty[chunk]));
        word_add_relaxed(&arenas.vacant_dirty, 0 - dirty);
        gr_limit_give(dirty * GRANULE_BYTES);
        word_add_relaxed(&arenas.mapped, 0 - (uint64_t)CHUNK_GRANULES);
        word_store_relaxed(&a->dirty[chunk], 0);
        if (HARDENED)
            gr_run_mark_guarded(index * ARENA_GRANULES + chunk * CHUNK_GRANULES, CHUNK_GRANULES, GUARD_NONE);
        half_store_release(&a->chunk[chunk], CHUNK_UNMAPPED); /* [release chunk-gone] */
    } else {
        half_store_relaxed(&a->chunk[chunk], CHUNK_MAPPED);
        vacate(a, chunk * CHUNK_GRANULES, CHUNK_GRANULES);
        set_roomy(index);
    }
    return gone;
}

GR_COLD uint64_t gr_arenas_unmap_vacant(void) {
    uint64_t chunks = 0;
    for (size_t i = gr_arena_count(); i-- > 0;) {
        struct arena *a = ref_load_acquire(&gr_arenas[i]); /* [acquire arena-born] */
        for (unsigned c = ARENA_CHUNKS; a && c-- > 0;)
            chunks += unmap_chunk(a, i, c);
    }
    return chunks * CHUNK_GRANULES;
}

GR_COLD struct arena_totals gr_arena_totals(void) {
    struct arena_totals t = {gr_granules_mapped(), 0, 0};
    for (size_t i = 0; i < gr_arena_count(); i++) {
        struct arena *a = ref_load_acquire(&gr_arenas[i]); /* [acquire arena-born] */
        if (!a)
            continue;
        for (unsigned w = 0; w < ARENA_CHUNKS; w++) {
            uint64_t vacant = word_load_relaxed(&a->vacant[w]);
            t.vacant += bits_count(vacant);
            t.vacant_dirty += bits_count(vacant & word_load_relaxed(&a->dirty[w]));
        }
    }
    return t;
}

GR_COLD void gr_arenas_repair(bool (*held)(size_t granule)) {
    uint64_t vacant_dirty = 0;
    for (size_t i = 0; i < gr_arena_count(); i++) {
        struct arena *a = ref_load_acquire(&gr_arenas[i]); /* [acquire arena-born] */
        if (!a)
            continue;
        for (unsigned w = 0; w < ARENA_CHUNKS; w++) {
            uint32_t state = half_load_relaxed(&a->chunk[w]);
            if (state == CHUNK_GROWING)
                half_store_relaxed(&a->chunk[w], CHUNK_UNMAPPED);
            if (state != CHUNK_MAPPED)
                continue;
            uint64_t vacant = word_load_relaxed(&a->vacant[w]), lost = 0;
            for (unsigned b = 0; b < 64; b++) {
                size_t granule = i * ARENA_GRANULES + w * 64 + b;
                if (granule && !(vacant >> b & 1) && !held(granule))
                    lost |= 1ull << b;
            }
            /* What a dead thread had in hand may be a user's, on its way back. */
            for (uint64_t rest = HARDENED ? lost : 0; rest; rest &= rest - 1)
                os_purge(region_address(i * ARENA_GRANULES + w * 64 + bits_lowest(rest)), GRANULE_BYTES);
            word_or_relaxed(&a->dirty[w], lost);
            word_or_release(&a->vacant[w], lost); /* [release run-home] */
            vacant_dirty += bits_count((vacant | lost) & word_load_relaxed(&a->dirty[w]));
        }
        set_roomy(i);
    }
    word_store_relaxed(&arenas.vacant_dirty, vacant_dirty);
}
