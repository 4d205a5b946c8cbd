/* unit_large.c -- page/large.h: runs that live, are freed once, grow and shrink where they are, and read as zero. */
/* Not in the hardened build, whose large blocks know their bytes and end at a guard: unit_guard.c. */
/* test: hardened=off wrap=mmap,munmap,madvise,mremap,mprotect,mincore timeout=60 */
#include "oom_fault.h"

#include "os/options.h"
#include "page/arena.h"
#include "page/large.h"
#include "page/region.h"

static uint64_t vacant(void) { return gr_arena_totals().vacant; }

static void must_be_marked(const void *p, size_t granules) {
    size_t first = region_granule(p);
    must(page_class(first) == CLASS_LARGE);
    for (size_t g = first + 1; g < first + granules; g++)
        must(page_class(g) == CLASS_INSIDE);
    must(gr_large_bytes(p) == granules * GRANULE_BYTES);
}

static void must_be_unmarked(size_t first, size_t granules) {
    for (size_t g = first; g < first + granules; g++)
        must(page_class(g) == 0);
}

static void large_alloc_to_live(void **state) {
    (void)state;
    static const size_t sizes[] = {
        1, GRANULE_BYTES - 1, GRANULE_BYTES, GRANULE_BYTES + 1, 300000, 1 << 20, (1 << 22) + 1, 1 << 24, 1 << 25};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *p = gr_large_alloc(sizes[i], 1, false);
        size_t granules = (sizes[i] + GRANULE_BYTES - 1) / GRANULE_BYTES;
        assert_non_null(p);
        assert_true(is_aligned(p, GRANULE_BYTES));
        must_be_marked(p, granules);
        pattern_sprinkle(p, granules * GRANULE_BYTES, i);
        assert_true(pattern_sprinkled(p, granules * GRANULE_BYTES, i));
        assert_int_equal(gr_large_freed_bytes(p), 0);
        assert_true(gr_large_free(p));
    }
}

static void large_alloc_aligned(void **state) {
    (void)state;
    void *odd = gr_large_alloc(GRANULE_BYTES, 1, false); /* so that the next vacant granule is not aligned by chance */
    for (size_t align = 1; align <= (size_t)LARGE_MAX_GRANULES * GRANULE_BYTES; align *= 2) {
        char *p = gr_large_alloc(3 * GRANULE_BYTES, align, false);
        assert_non_null(p);
        assert_true(is_aligned(p, align));
        must_be_marked(p, 3);
        assert_true(gr_large_free(p));
    }
    assert_true(gr_large_free(odd));
}

static void large_live_to_freed_once(void **state) {
    (void)state;
    char *p = gr_large_alloc(5 * GRANULE_BYTES, 1, false);
    uint64_t before = vacant();
    size_t first = region_granule(p);
    assert_true(gr_large_free(p));
    assert_int_equal(vacant(), before + 5);
    must_be_unmarked(first, 5);
    assert_int_equal(gr_large_freed_bytes(p), 5 * GRANULE_BYTES);
    for (unsigned i = 0; i < 3; i++)
        assert_false(gr_large_free(p));
    assert_int_equal(vacant(), before + 5);
    assert_int_equal(gr_large_freed_bytes(p), 5 * GRANULE_BYTES);
}

static void large_freed_to_live_again(void **state) {
    (void)state;
    char *p = gr_large_alloc(7 * GRANULE_BYTES, 1, false);
    assert_true(gr_large_free(p));
    char *q = gr_large_alloc(7 * GRANULE_BYTES, 1, false);
    assert_ptr_equal(p, q); /* the tightest fit, dirty first */
    assert_int_equal(gr_large_freed_bytes(q), 0);
    must_be_marked(q, 7);
    assert_true(gr_large_free(q));
}

static void large_freed_bytes_of_anything(void **state) {
    (void)state;
    int local = 0;
    assert_int_equal(gr_large_freed_bytes(&local), 0);
    assert_int_equal(gr_large_freed_bytes(NULL), 0);
    assert_int_equal(gr_large_freed_bytes((void *)UINTPTR_MAX), 0);
    assert_int_equal(gr_large_freed_bytes(region_address(REGION_GRANULES - 1)), 0);
    assert_int_equal(gr_large_freed_bytes(region_address(REGION_GRANULES)), 0);
}

/* Dirty before, clean behind, in every proportion: what was written before must not be read again. */
static void large_zeroed_reads_as_zero(void **state) {
    (void)state;
    enum { MOST = 24 };
    for (size_t dirty = 0; dirty <= MOST; dirty += 3) {
        char *p = gr_large_alloc(MOST * GRANULE_BYTES, 1, true);
        memset(p, 0xff, dirty * GRANULE_BYTES);
        assert_true(gr_large_free(p));
        char *q = gr_large_alloc(MOST * GRANULE_BYTES, 1, true);
        assert_ptr_equal(p, q);
        assert_true(all_bytes_are(q, MOST * GRANULE_BYTES, 0));
        assert_true(gr_large_free(q));
        char *half = gr_large_alloc(MOST / 2 * GRANULE_BYTES, 1, false);
        memset(half, 0xff, MOST / 2 * GRANULE_BYTES);
        assert_true(gr_large_free(half));
    }
}

/* Some granules of the run were purged, others not: the zeroing goes by stretches. */
static void large_zeroed_after_a_patchy_purge(void **state) {
    (void)state;
    for (unsigned turn = 1; turn < 20; turn++) {
        char *p = gr_large_alloc(40 * GRANULE_BYTES, CHUNK_BYTES, false);
        size_t first = region_granule(p);
        memset(p, 0xff, 40 * GRANULE_BYTES);
        assert_true(gr_large_free(p));
        uint64_t some = mix(turn) & bits_span(0, 40);
        gr_run_purge(arena_of(first), first / ARENA_GRANULES, first % ARENA_GRANULES / 64, some, false);
        char *q = gr_large_alloc(40 * GRANULE_BYTES, CHUNK_BYTES, true);
        assert_true(all_bytes_are(q, 40 * GRANULE_BYTES, 0));
        memset(q, 0xff, 40 * GRANULE_BYTES);
        assert_true(gr_large_free(q));
    }
}

/* ---- which dirty pages are there: a zeroing claim asks ---- */

static enum { HONEST, REFUSES, LIES } mincore_mode;

int __real_mincore(void *at, size_t bytes, unsigned char *there);
int __wrap_mincore(void *at, size_t bytes, unsigned char *there);
int __wrap_mincore(void *at, size_t bytes, unsigned char *there) {
    static struct rng rng = {1};
    if (mincore_mode == REFUSES) {
        errno = ENOSYS;
        return -1;
    }
    int result = __real_mincore(at, bytes, there);
    size_t pages = bytes / (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0, to; mincore_mode == LIES && i < pages; i = to) /* in short stretches and in long ones */
        for (to = i + 1 + rng_size(&rng, 9), there[i] = rng_next(&rng) & 1; i + 1 < to && i + 1 < pages; i++)
            there[i + 1] = there[i];
    return result;
}

/* A run without huge pages, whose fresh pages come one by one. */
static char *plain_run(size_t bytes) {
    char *p = gr_large_alloc(bytes, CHUNK_BYTES, false);
    must(p && madvise(p, bytes, MADV_NOHUGEPAGE) == 0 && madvise(p, bytes, MADV_DONTNEED) == 0);
    return p;
}

static size_t resident_pages(char *p, size_t bytes) {
    static unsigned char there[16384];
    size_t pages = bytes / (size_t)sysconf(_SC_PAGESIZE), count = 0;
    must(pages <= sizeof there && mincore(p, bytes, there) == 0);
    for (size_t i = 0; i < pages; i++)
        count += there[i] & 1;
    return count;
}

/* The run goes and comes again, to be zeroed. */
static void again_zeroed(char *p, size_t bytes) {
    must(gr_large_free(p));
    must(gr_large_alloc(bytes, CHUNK_BYTES, true) == p);
}

/* Touched at a few offsets far apart: what was not there does not come, what was is cleared. */
static void large_zeroed_brings_no_page_that_was_not_there(void **state) {
    (void)state;
    const size_t bytes = 16 * MIB, page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t touched[][5] = {
        {0, 0, 0, 0, 0},
        {0, MIB, 3 * MIB, 9 * MIB, 15 * MIB},                    /* the first page, and one in several windows */
        {0, 4 * MIB - page, 4 * MIB, 12 * MIB - page, 13 * MIB}, /* at the windows' borders */
        {0, page, 2 * page, 5 * MIB, bytes - page},
        {MIB, 2 * MIB, 6 * MIB, 10 * MIB, 15 * MIB}, /* not the first page */
        {bytes - page, bytes - page, bytes - page, bytes - page, bytes - page},
    };
    for (size_t i = 0; i < COUNT_OF(touched); i++) {
        char *p = plain_run(bytes);
        for (size_t t = 0; t < COUNT_OF(touched[i]); t++)
            memset(p + touched[i][t], 0xff, page);
        size_t before = resident_pages(p, bytes);
        assert_in_range(before, 1, COUNT_OF(touched[i]));
        again_zeroed(p, bytes);
        assert_true(resident_pages(p, bytes) <= before);
        assert_true(all_bytes_are(p, bytes, 0));
        assert_true(gr_large_free(p));
    }
}

/* Pages that are there are written: a purge would have the user wait for each of them again. */
static void large_zeroed_keeps_the_pages_that_were_there(void **state) {
    (void)state;
    const size_t bytes = 12 * MIB;
    char *p = plain_run(bytes);
    memset(p, 0xff, bytes);
    size_t before = resident_pages(p, bytes);
    again_zeroed(p, bytes);
    assert_int_equal(resident_pages(p, bytes), before);
    assert_true(all_bytes_are(p, bytes, 0));
    memset(p, 0xff, 6 * MIB); /* half of it, then nothing */
    must(madvise(p + 6 * MIB, 6 * MIB, MADV_DONTNEED) == 0);
    again_zeroed(p, bytes);
    assert_int_equal(resident_pages(p, bytes), before / 2);
    assert_true(all_bytes_are(p, bytes, 0));
    assert_true(gr_large_free(p));
}

/* The system refuses to purge what is locked, and stops there: all behind it has to be written. */
static void large_zeroed_although_a_page_is_locked(void **state) {
    (void)state;
    const size_t bytes = 8 * MIB, page = (size_t)sysconf(_SC_PAGESIZE);
    char *p = plain_run(bytes);
    if (mlock(p + 2 * MIB, page) != 0 || madvise(p, bytes, MADV_DONTNEED) == 0) { /* sanitizers lock nothing */
        munlock(p + 2 * MIB, page);
        assert_true(gr_large_free(p));
        skip();
    }
    memset(p + MIB, 0xff, page);
    memset(p + 2 * MIB, 0xff, page);
    memset(p + 6 * MIB, 0xff, 2 * page);
    again_zeroed(p, bytes);
    must(munlock(p + 2 * MIB, page) == 0);
    assert_true(all_bytes_are(p, bytes, 0));
    assert_true(gr_large_free(p));
}

/* What the system says decides how a page is cleared, never whether: it may be wrong by the time it has answered. */
static void large_zeroed_whatever_the_system_says(void **state) {
    (void)state;
    const size_t bytes = 12 * MIB;
    char *p = plain_run(bytes);
    for (unsigned turn = 0; turn < 32; turn++) {
        memset(p, 0xff, bytes);
        mincore_mode = turn % 8 ? LIES : REFUSES;
        if (turn % 2)
            fault_arm(FAULT_MADVISE, 1 + turn / 4, true, EINVAL);
        errno = 4711;
        again_zeroed(p, bytes);
        assert_int_equal(errno, 4711);
        fault_disarm();
        mincore_mode = HONEST;
        assert_true(all_bytes_are(p, bytes, 0));
    }
    assert_true(gr_large_free(p));
}

/* ---- in place ---- */

static void large_grow_in_place_where_the_neighbour_is_vacant(void **state) {
    (void)state;
    char *p = gr_large_alloc(30 * GRANULE_BYTES, 1, false);
    assert_true(gr_large_resize(p, 10 * GRANULE_BYTES));
    must_be_marked(p, 10);
    must_be_unmarked(region_granule(p) + 10, 20);
    uint64_t before = vacant();
    pattern_sprinkle(p, 10 * GRANULE_BYTES, 1);
    for (size_t n = 11; n <= 30; n++) {
        assert_true(gr_large_resize(p, (n - 1) * GRANULE_BYTES + 1));
        must_be_marked(p, n);
        assert_int_equal(vacant(), before - (n - 10));
    }
    assert_true(pattern_sprinkled(p, 10 * GRANULE_BYTES, 1));
    memset(p, 2, 30 * GRANULE_BYTES);
    assert_true(gr_large_free(p));
}

static void large_grow_is_refused_and_leaves_the_block(void **state) {
    (void)state;
    char *p = gr_large_alloc(20 * GRANULE_BYTES, 1, false);
    assert_true(gr_large_resize(p, 8 * GRANULE_BYTES));
    char *wall = region_address(region_granule(p) + 10);
    assert_true(gr_run_claim_at(region_granule(wall), 1)); /* two granules lie between */
    gr_run_mark_dirty(region_granule(wall), 1);
    uint64_t before = vacant();
    for (size_t n = 11; n < 15; n++)
        assert_false(gr_large_resize(p, n * GRANULE_BYTES));
    assert_false(gr_large_resize(p, (size_t)(LARGE_MAX_GRANULES + 1) * GRANULE_BYTES));
    must_be_marked(p, 8);
    must_be_unmarked(region_granule(p) + 8, 2);
    assert_int_equal(vacant(), before);
    assert_true(gr_large_resize(p, 10 * GRANULE_BYTES));
    must_be_marked(p, 10);
    gr_run_free(region_granule(wall), 1);
    assert_true(gr_large_free(p));
}

static int grow_over_the_border(void *unused) {
    (void)unused;
    char *p, *next = gr_large_alloc((size_t)LARGE_MAX_GRANULES * GRANULE_BYTES, 1, false);
    for (unsigned i = 0; i < 2; i++) /* the arena behind it has room */
        next = gr_large_alloc((size_t)LARGE_MAX_GRANULES * GRANULE_BYTES, 1, false);
    must(gr_large_free(next));
    do
        must((p = gr_large_alloc(GRANULE_BYTES, 1, false)) != NULL);
    while (region_granule(p) % ARENA_GRANULES != ARENA_GRANULES - 1);
    must(!gr_large_resize(p, 2 * GRANULE_BYTES));
    must_be_marked(p, 1);
    return 0;
}

static void large_grow_stays_in_the_arena(void **state) {
    (void)state;
    must_end_well(in_child(grow_over_the_border, NULL, 60), "border");
}

static void large_shrink_gives_the_tail_back(void **state) {
    (void)state;
    char *p = gr_large_alloc(64 * GRANULE_BYTES, 1, false);
    uint64_t before = vacant();
    pattern_fill(p, GRANULE_BYTES / 2, 5);
    for (size_t n = 63; n > 0; n--) {
        assert_true(gr_large_resize(p, n * GRANULE_BYTES - 5));
        must_be_marked(p, n);
        must_be_unmarked(region_granule(p) + n, 64 - n);
        assert_int_equal(vacant(), before + 64 - n);
    }
    assert_true(pattern_holds(p, GRANULE_BYTES / 2, 5));
    assert_true(gr_large_free(p));
}

/* A gap of n granules between two that are held. */
static size_t walled_gap(size_t n) {
    size_t wall = gr_run_claim(n + 2, 1);
    must(wall != 0);
    gr_run_mark_dirty(wall, n + 2);
    gr_run_free(wall + 1, n);
    return wall;
}

static void remove_walls(size_t wall, size_t n) {
    gr_run_free(wall, 1);
    gr_run_free(wall + n + 1, 1);
}

/* A copy where at least as much again is free behind it, not in the gap that it would just fill: there it grows in place. */
static void large_move_to_where_it_grows(void **state) {
    (void)state;
    for (size_t n = 5; n <= LARGE_MAX_GRANULES / 2; n = 2 * n + 1) {
        char *p = gr_large_alloc(n * GRANULE_BYTES, 1, false);
        size_t wall = walled_gap(n + 1);
        size_t old = region_granule(p);
        pattern_sprinkle(p, n * GRANULE_BYTES, n);
        char *q = gr_large_move(p, (n + 1) * GRANULE_BYTES - 5);
        assert_true(q && q != p);
        must_be_marked(q, n + 1);
        must_be_unmarked(old, n);
        assert_int_equal(gr_large_freed_bytes(p), n * GRANULE_BYTES);
        assert_true(gr_large_resize(q, 2 * (n + 1) * GRANULE_BYTES));
        must_be_marked(q, 2 * (n + 1));
        assert_true(pattern_sprinkled(q, n * GRANULE_BYTES, n));
        assert_true(gr_large_free(q));
        remove_walls(wall, n + 1);
    }
}

static void large_move_refused_leaves_the_block(void **state) {
    (void)state;
    char *p = gr_large_alloc(5 * GRANULE_BYTES, 1, false);
    uint64_t before = vacant();
    pattern_fill(p, 5 * GRANULE_BYTES, 1);
    assert_null(gr_large_move(p, (size_t)LARGE_MAX_GRANULES * GRANULE_BYTES + 1));
    assert_int_equal(vacant(), before);
    must_be_marked(p, 5);
    assert_true(pattern_holds(p, 5 * GRANULE_BYTES, 1));
    assert_true(gr_large_free(p));
}

/* ---- one caller frees ---- */

static _Atomic int go;
static _Atomic int freed;

static void *free_at_once(void *p) {
    while (!go) {
    }
    if (gr_large_free(p))
        freed++;
    return NULL;
}

static void large_freed_by_one_of_many(void **state) {
    (void)state;
    for (unsigned turn = 0; turn < 200; turn++) {
        pthread_t threads[3];
        void *p = gr_large_alloc(4 * GRANULE_BYTES, 1, false);
        uint64_t before = vacant();
        go = freed = 0;
        for (unsigned i = 0; i < COUNT_OF(threads); i++)
            must(pthread_create(&threads[i], NULL, free_at_once, p) == 0);
        go = 1;
        for (unsigned i = 0; i < COUNT_OF(threads); i++)
            must(pthread_join(threads[i], NULL) == 0);
        assert_int_equal(freed, 1);
        assert_int_equal(vacant(), before + 4);
    }
}

int main(void) {
    gr_options_parse("purge_ms:never", "test: ");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_alloc_to_live),
        cmocka_unit_test(large_alloc_aligned),
        cmocka_unit_test(large_live_to_freed_once),
        cmocka_unit_test(large_freed_to_live_again),
        cmocka_unit_test(large_freed_bytes_of_anything),
        cmocka_unit_test(large_zeroed_reads_as_zero),
        cmocka_unit_test(large_zeroed_after_a_patchy_purge),
        cmocka_unit_test(large_zeroed_brings_no_page_that_was_not_there),
        cmocka_unit_test(large_zeroed_keeps_the_pages_that_were_there),
        cmocka_unit_test(large_zeroed_although_a_page_is_locked),
        cmocka_unit_test(large_zeroed_whatever_the_system_says),
        cmocka_unit_test(large_grow_in_place_where_the_neighbour_is_vacant),
        cmocka_unit_test(large_grow_is_refused_and_leaves_the_block),
        cmocka_unit_test(large_grow_stays_in_the_arena),
        cmocka_unit_test(large_shrink_gives_the_tail_back),
        cmocka_unit_test(large_move_to_where_it_grows),
        cmocka_unit_test(large_move_refused_leaves_the_block),
        cmocka_unit_test(large_freed_by_one_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
