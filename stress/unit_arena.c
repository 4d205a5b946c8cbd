/* unit_arena.c -- page/arena.h against a byte for each granule.
 * covers: S120 C12
 */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect timeout=120 */
#include "oom_fault.h"

#include "page/arena.h"
#include "page/page_map.h"
#include "page/region.h"

enum { ORACLE_ARENAS = 40, ORACLE = ORACLE_ARENAS * ARENA_GRANULES, MOST_RUNS = 2000 };

/* What every granule is, kept by the test. */
static struct oracle {
    bool held[ORACLE], dirty[ORACLE];
    size_t held_count, dirty_vacant;
    struct run {
        size_t first, n;
    } run[MOST_RUNS];
    size_t runs;
} oracle = {.held = {true}, .held_count = 1}; /* granule 0 stands for "none" */

static bool is_mapped(size_t granule) {
    struct arena *a = ref_load_acquire(&gr_arenas[granule / ARENA_GRANULES]);
    return a && half_load_acquire(&a->chunk[granule % ARENA_GRANULES / CHUNK_GRANULES]) == CHUNK_MAPPED;
}

static bool is_unmapped(size_t granule) {
    struct arena *a = ref_load_acquire(&gr_arenas[granule / ARENA_GRANULES]);
    return !a || half_load_acquire(&a->chunk[granule % ARENA_GRANULES / CHUNK_GRANULES]) == CHUNK_UNMAPPED;
}

static bool is_dense(size_t granule) {
    struct arena *a = arena_of(granule);
    return half_load_relaxed(&a->dense) >> granule % ARENA_GRANULES / CHUNK_GRANULES & 1;
}

/* What a claim considers: dirty granules alone or all, in chunks for runs of one granule or in the others. */
struct kinds {
    bool dirty_only, dense, sparse;
};

static bool may_use(size_t granule, struct kinds kinds) {
    return is_mapped(granule) && !oracle.held[granule] && (!kinds.dirty_only || oracle.dirty[granule]) &&
           (is_dense(granule) ? kinds.dense : kinds.sparse);
}

/* The tightest run that fits, the lowest of these, in the lowest arena that has one. 0: none. */
static size_t expected_place(size_t n, size_t align, struct kinds kinds) {
    for (size_t arena = 0; arena < gr_arena_count(); arena++) {
        size_t best = 0, best_length = SIZE_MAX, end = (arena + 1) * ARENA_GRANULES;
        for (size_t from = arena * ARENA_GRANULES; from < end;) {
            size_t to = from;
            while (to < end && may_use(to, kinds))
                to++;
            size_t at = round_up(from, align);
            if (at + n <= to && to - from < best_length) {
                best = at;
                best_length = to - from;
            }
            from = to + 1;
        }
        if (best)
            return best;
    }
    return 0;
}

static void oracle_hold(size_t first, size_t n, bool hold) {
    for (size_t g = first; g < first + n; g++) {
        must(g < ORACLE && oracle.held[g] != hold && is_mapped(g));
        oracle.held[g] = hold;
        oracle.held_count += hold ? 1 : (size_t)-1;
        oracle.dirty_vacant += !oracle.dirty[g] ? 0 : hold ? (size_t)-1 : 1;
    }
}

static void check_totals(void) {
    struct arena_totals t = gr_arena_totals();
    must(t.mapped == gr_granules_mapped());
    must(t.vacant == t.mapped - oracle.held_count);
    must(t.vacant_dirty == oracle.dirty_vacant);
    must(gr_vacant_dirty() == oracle.dirty_vacant);
}

static size_t claim(size_t n, size_t align) {
    bool dense = n == 1 && align == 1;
    size_t want = oracle.dirty_vacant >= n ? expected_place(n, align, (struct kinds){true, dense, true}) : 0;
    if (!want)
        want = expected_place(n, align, (struct kinds){false, dense, !dense});
    uint64_t mapped = gr_granules_mapped();
    size_t first = gr_run_claim(n, align);
    must(first && first % align == 0);
    must(first / ARENA_GRANULES == (first + n - 1) / ARENA_GRANULES);
    must(!want || first == want);
    must((gr_granules_mapped() == mapped) == (want != 0));
    oracle_hold(first, n, true);
    return first;
}

/* For a block that is to grow: the first of the widest gaps in sparse chunks and in what nobody has mapped yet, in the lowest
 * arena where as much again is free behind it; a quarter of a gap of four times its length is left to a large block before it.
 * The last arena looked at is a new one. */
static size_t expected_roomy(size_t n, size_t arenas) {
    for (size_t arena = 0; arena <= arenas && arena < ORACLE_ARENAS; arena++) {
        size_t widest = 0, length = 0, end = (arena + 1) * ARENA_GRANULES;
        for (size_t from = arena * ARENA_GRANULES; from < end;) {
            size_t to = from;
            while (to < end && !oracle.held[to] && (is_mapped(to) ? !is_dense(to) : is_unmapped(to)))
                to++;
            if (to - from >= n && to - from > length) {
                widest = from;
                length = to - from;
            }
            from = to + 1;
        }
        if (length >= 2 * n) {
            bool behind_large = widest % ARENA_GRANULES && page_class(widest - 1) > CLASSES;
            return widest + (behind_large && length >= 4 * n ? length / 4 : 0);
        }
    }
    return 0;
}

/* As its holder would enter it: a slab, or a large block. */
static void enter(size_t first, size_t n) { gr_page_map_set(first, n, n == 1 ? 1 : CLASS_INSIDE); }

static size_t claim_roomy(size_t n) {
    size_t want = expected_roomy(n, gr_arena_count());
    size_t first = gr_run_claim_roomy(n, false);
    must(want && first == want);
    for (size_t g = first; g < first + n; g++)
        must(is_mapped(g) && !is_dense(g));
    oracle_hold(first, n, true);
    return first;
}

static void mark_dirty(size_t first, size_t n) {
    gr_run_mark_dirty(first, n);
    memset(oracle.dirty + first, true, n);
}

/* A new run is as dirty as the oracle thinks, in stretches; then it is marked. */
static void check_dirt(size_t first, size_t n) {
    for (size_t done = 0; done < n;) {
        bool dirty;
        size_t same = gr_run_same_dirt(first + done, n - done, &dirty), want = 1;
        must(dirty == oracle.dirty[first + done]);
        while (done + want < n && oracle.dirty[first + done + want] == dirty)
            want++;
        must(same == want);
        done += same;
    }
    mark_dirty(first, n);
}

static void free_run(size_t first, size_t n) {
    gr_page_map_set(first, n, 0);
    gr_run_free(first, n);
    oracle_hold(first, n, false);
}

static void purge_word(size_t arena, unsigned word, uint64_t mask) {
    unsigned want = 0;
    uint64_t due = 0;
    for (unsigned b = 0; b < 64; b++) {
        size_t g = arena * ARENA_GRANULES + word * 64 + b;
        if (mask >> b & 1 && may_use(g, (struct kinds){true, true, true})) {
            due |= 1ull << b;
            oracle.dirty[g] = false;
            oracle.dirty_vacant--;
            want++;
        }
    }
    must(gr_run_purge(ref_load_acquire(&gr_arenas[arena]), arena, word, due, false) == want);
}

static size_t random_length(struct rng *rng) {
    switch (rng_below(rng, 4)) {
    case 0:
        return 1;
    case 1:
        return 1 + rng_below(rng, 8);
    case 2:
        return 1 + rng_below(rng, 80);
    default:
        return 1 + rng_below(rng, LARGE_MAX_GRANULES);
    }
}

static void arena_120_random_runs_against_the_oracle(void **state) {
    (void)state;
    struct rng rng = rng_for(1);
    size_t only = claim(1, 1); /* the first chunk is mapped */
    mark_dirty(only, 1);       /* who frees a run has marked it */
    free_run(only, 1);
    for (unsigned turn = 0; turn < 12000; turn++) {
        bool room = oracle.runs < MOST_RUNS && oracle.held_count < 4 * ARENA_GRANULES;
        size_t act = rng_below(&rng, 8);
        if (act < 4 && room) {
            size_t n = random_length(&rng), align = rng_below(&rng, 3) ? 1 : (size_t)1 << rng_below(&rng, 10);
            bool roomy = rng_below(&rng, 8) == 0 && gr_arena_count() < ORACLE_ARENAS / 4; /* it makes arenas readily */
            n = roomy ? 1 + n / 8 : n;
            size_t first = roomy ? claim_roomy(n) : claim(n, align);
            check_dirt(first, n);
            enter(first, n);
            oracle.run[oracle.runs++] = (struct run){first, n};
        } else if (act < 7 && oracle.runs) {
            struct run *r = &oracle.run[rng_below(&rng, oracle.runs)];
            size_t keep = rng_below(&rng, 3) ? 0 : rng_below(&rng, r->n); /* all, or a tail as a shrink does */
            free_run(r->first + keep, r->n - keep);
            if (keep)
                r->n = keep;
            else
                *r = oracle.run[--oracle.runs];
        } else if (oracle.runs) {
            purge_word(rng_below(&rng, gr_arena_count()), (unsigned)rng_below(&rng, ARENA_CHUNKS), rng_next(&rng));
        }
        if (turn % 16 == 0)
            check_totals();
    }
    for (; oracle.runs; oracle.runs--)
        free_run(oracle.run[oracle.runs - 1].first, oracle.run[oracle.runs - 1].n);
    check_totals();
    assert_int_equal(oracle.held_count, 1);
}

/* Claims every vacant granule by its number. */
static void hold_all(void) {
    for (size_t g = 1; g < ORACLE; g++)
        if (is_mapped(g) && !oracle.held[g]) {
            if (g % ARENA_GRANULES) /* the first has none before it to grow into it */
                must(gr_run_claim_at(g, 1));
            else
                must(word_and_acquire(&arena_of(g)->vacant[0], ~1ull) & 1);
            oracle_hold(g, 1, true);
            mark_dirty(g, 1);
        }
}

static bool held_before[ORACLE];

static void free_what_was_vacant(void) {
    for (size_t g = 1; g < ORACLE; g++)
        if (oracle.held[g] && !held_before[g])
            free_run(g, 1);
    check_totals();
}

static void arena_120_all_full_then_all_empty(void **state) {
    (void)state;
    memcpy(held_before, oracle.held, sizeof held_before);
    hold_all();
    assert_int_equal(gr_arena_totals().vacant, 0);
    assert_int_equal(gr_vacant_dirty(), 0);
    free_what_was_vacant();
}

/* No granule is left in the arenas that there are, neither vacant nor to be mapped. */
static void fill(void) {
    hold_all();
    for (size_t g = 0; g < gr_arena_count() * ARENA_GRANULES; g += CHUNK_GRANULES)
        if (is_unmapped(g)) {
            mark_dirty(claim(CHUNK_GRANULES, 1), CHUNK_GRANULES);
            hold_all();
            g = 0;
        }
}

/* Dense chunks are for slabs: a vacant one is no room, and a new arena is made sooner. */
static void arena_roomy_in_sparse_chunks_alone(void **state) {
    (void)state;
    const size_t n = 16;
    memcpy(held_before, oracle.held, sizeof held_before);
    fill();
    size_t dense = claim(1, 1); /* in a new arena */
    mark_dirty(dense, 1);
    hold_all();
    size_t sparse = claim(CHUNK_GRANULES, CHUNK_GRANULES);
    mark_dirty(sparse, CHUNK_GRANULES);
    fill();
    assert_true(is_dense(dense) && !is_dense(sparse) && dense < sparse);
    free_run(dense, CHUNK_GRANULES);
    free_run(sparse, 3 * n);
    size_t first = claim_roomy(n);
    assert_int_equal(first, sparse);
    mark_dirty(first, n);
    free_run(first, n);
    first = claim_roomy(2 * n); /* as much again must be free behind it */
    assert_int_equal(first % ARENA_GRANULES, 0);
    mark_dirty(first, 2 * n);
    free_run(first, 2 * n);
    free_what_was_vacant();
}

/* Only what is not mapped yet is left, and that is refused: no claim, and nothing is lost. */
static void arena_roomy_refused_without_memory(void **state) {
    (void)state;
    memcpy(held_before, oracle.held, sizeof held_before);
    hold_all();
    for (size_t n = 1; n <= LARGE_MAX_GRANULES; n *= 4) {
        uint64_t mapped = gr_granules_mapped();
        fault_arm(FAULT_MMAP, 1, true, ENOMEM);
        assert_int_equal(gr_run_claim_roomy(n, false), 0);
        assert_true(fault_disarm() > 0);
        assert_int_equal(gr_granules_mapped(), mapped);
        check_totals();
        free_run(claim_roomy(n), n); /* there is memory again */
        hold_all();
    }
    free_what_was_vacant();
}

/* Somebody else's page lies where the run would: the run goes elsewhere, and the page stays. */
static void arena_roomy_goes_around_a_stranger(void **state) {
    (void)state;
    memcpy(held_before, oracle.held, sizeof held_before);
    fill();
    const size_t n = 3 * CHUNK_GRANULES;
    size_t want = expected_roomy(n, gr_arena_count());
    size_t taken = want + n - CHUNK_GRANULES;
    char *stranger = region_address(taken);
    must(mmap(stranger, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == stranger);
    memset(stranger, 0x5a, 4096);
    size_t first = gr_run_claim_roomy(n, false); /* or 0: what the system says now was not known before */
    if (first) {
        assert_true(first + n <= taken || first >= taken + CHUNK_GRANULES);
        oracle_hold(first, n, true);
        mark_dirty(first, n);
        free_run(first, n);
    }
    hold_all();
    first = claim_roomy(n); /* the chunk is known as a stranger's from now on, to the oracle too */
    mark_dirty(first, n);
    assert_true(all_bytes_are(stranger, 4096, 0x5a));
    free_run(first, n);
    must(munmap(stranger, 4096) == 0);
    free_what_was_vacant();
}

/* Two words of which the test holds every granule, and nothing else is vacant. */
static size_t two_words(void) {
    size_t first = gr_run_claim(2 * CHUNK_GRANULES, CHUNK_GRANULES);
    oracle_hold(first, 2 * CHUNK_GRANULES, true);
    mark_dirty(first, 2 * CHUNK_GRANULES);
    hold_all();
    return first;
}

static uint64_t vacant_word(size_t granule) {
    struct arena *a = arena_of(granule);
    return word_load_relaxed(&a->vacant[granule % ARENA_GRANULES / 64]);
}

static void arena_120_one_word_exhaustively(void **state) {
    (void)state;
    size_t base = two_words();
    for (unsigned from = 0; from < 64; from++)
        for (unsigned n = 1; from + n <= 64; n++) {
            gr_run_free(base + from, n);
            must(vacant_word(base) == bits_span(from, n));
            for (unsigned at = 0; at < 64; at++)
                for (unsigned m = 1; at + m <= 64; m += m < 4 ? 1 : 7) {
                    bool fits = at >= from && at + m <= from + n;
                    must(gr_run_claim_at(base + at, m) == fits);
                    must(vacant_word(base) == (fits ? bits_span(from, n) & ~bits_span(at, m) : bits_span(from, n)));
                    if (fits)
                        gr_run_free(base + at, m);
                }
            for (unsigned align = 1; align <= 64; align *= 2) {
                unsigned at = (from + align - 1) & ~(align - 1);
                if (at < from + n)
                    for (unsigned m = 1; at + m <= from + n; m++) {
                        must(gr_run_claim(m, align) == base + at);
                        gr_run_free(base + at, m);
                    }
            }
            must(gr_run_claim(n, 1) == base + from);
        }
}

static void arena_120_runs_over_the_word_border(void **state) {
    (void)state;
    size_t base = 0;
    for (size_t g = 64; g < ORACLE; g += 64) /* the two words of the test before: held, by nobody in `run` */
        if (is_mapped(g) && is_mapped(g + 64) && g % ARENA_GRANULES < ARENA_GRANULES - 64) {
            base = g;
            break;
        }
    for (unsigned from = 40; from < 90; from += 3)
        for (unsigned to = from + 1; to < 96; to += 5) {
            gr_run_free(base + from, to - from);
            uint64_t low = vacant_word(base), high = vacant_word(base + 64);
            for (unsigned at = 36; at < 98; at++)
                for (unsigned end = at + 1; end < 100; end++) {
                    bool fits = at >= from && end <= to;
                    must(gr_run_claim_at(base + at, end - at) == fits);
                    if (fits)
                        gr_run_free(base + at, end - at);
                    must(vacant_word(base) == low && vacant_word(base + 64) == high); /* what failed is undone */
                }
            must(gr_run_claim(to - from, 1) == base + from);
        }
}

static void arena_claim_at_stays_in_the_arena(void **state) {
    (void)state;
    assert_false(gr_run_claim_at(ARENA_GRANULES, 1)); /* the granule before is in another arena */
    assert_false(gr_run_claim_at(ARENA_GRANULES - 1, 2));
    assert_false(gr_run_claim_at(0, 1));
}

/* ---- purging ---- */

static void arena_vacant_dirty_to_clean_by_purge(void **state) {
    (void)state;
    size_t first = gr_run_claim(4, 4);
    char *p = region_address(first);
    gr_run_mark_dirty(first, 4);
    memset(p, 1, 4 * GRANULE_BYTES);
    gr_run_free(first, 4);
    struct arena *a = arena_of(first);
    unsigned word = first % ARENA_GRANULES / 64, bit = first % 64;
    uint64_t before = gr_vacant_dirty();
    fault_arm(FAULT_MADVISE, 1, true, ENOMEM);
    assert_int_equal(gr_run_purge(a, first / ARENA_GRANULES, word, bits_span(bit, 4), false), 0);
    fault_disarm();
    assert_int_equal(gr_vacant_dirty(), before); /* refused: as it was */
    assert_true(all_bytes_are(p, 4 * GRANULE_BYTES, 1));
    assert_true(gr_run_claim_at(first + 1, 1)); /* held: not purged */
    assert_int_equal(gr_run_purge(a, first / ARENA_GRANULES, word, bits_span(bit, 1), false), 1);
    assert_int_equal(gr_run_purge(a, first / ARENA_GRANULES, word, bits_span(bit + 1, 1), false), 0);
    assert_int_equal(gr_run_purge(a, first / ARENA_GRANULES, word, bits_span(bit + 2, 2), false), 2);
    assert_true(all_bytes_are(p, GRANULE_BYTES, 0));
    assert_true(all_bytes_are(p + GRANULE_BYTES, GRANULE_BYTES, 1));
    assert_true(all_bytes_are(p + 2 * GRANULE_BYTES, 2 * GRANULE_BYTES, 0));
    bool dirty;
    assert_int_equal(gr_run_same_dirt(first + 1, 1, &dirty), 1);
    assert_true(dirty);
    gr_run_free(first + 1, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_120_random_runs_against_the_oracle),
        cmocka_unit_test(arena_120_all_full_then_all_empty),
        cmocka_unit_test(arena_roomy_in_sparse_chunks_alone),
        cmocka_unit_test(arena_roomy_refused_without_memory),
        cmocka_unit_test(arena_roomy_goes_around_a_stranger),
        cmocka_unit_test(arena_vacant_dirty_to_clean_by_purge),
        cmocka_unit_test(arena_120_one_word_exhaustively),
        cmocka_unit_test(arena_120_runs_over_the_word_border),
        cmocka_unit_test(arena_claim_at_stays_in_the_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
