/* unit_guard.c -- page/guard.h: runs without access, opened by their claimer. In the plain build nothing is held back for long. */
/* test: hardened=only wrap=madvise,os_thread_us */
/* test: hardened=only name=split args="split" */
#include "test.h"

#include <errno.h>

#include "os/os.h"
#include "page/arena.h"
#include "page/guard.h"
#include "page/large.h"
#include "page/region.h"

/* With `split` the kernel is one that cannot mark pages: guards split mappings. */
static bool split;
int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice) {
    if (split && (advice == 102 || advice == 103)) {
        errno = EINVAL;
        return -1;
    }
    return __real_madvise(at, bytes, advice);
}

uint64_t __wrap_os_thread_us(void);
uint64_t __wrap_os_thread_us(void) { return 0; } /* no huge page is dear */

static int read_at(void *p) { return *(volatile char *)p; }

static void must_fault(void *p) {
    struct ending ending = in_child(read_at, p, 20);
    must(ending.signal == SIGSEGV);
}

static void must_read_zero(char *p, size_t bytes) { must(all_bytes_are(p, bytes, 0)); }

static void guard_tail_then_open(void **state) {
    (void)state;
    size_t first = gr_run_claim(3, 1);
    char *p = region_address(first);
    assert_true(gr_guard_open(first, 3));
    memset(p, 1, 3 * GRANULE_BYTES);
    gr_guard_tail(first, 3, 2 * GRANULE_BYTES + 4096);
    size_t guarded = first;
    bool splits;
    assert_int_equal(gr_run_guarded(&guarded, 3, &splits), 1);
    assert_int_equal(splits, os_guards_split());
    assert_int_equal(guarded, first + 2);
    must_fault(p + 2 * GRANULE_BYTES + 4096);
    must_fault(p + 3 * GRANULE_BYTES - 1);
    assert_true(all_bytes_are(p, 2 * GRANULE_BYTES + 4096, 1));
    assert_true(gr_guard_open(first, 3));
    guarded = first;
    assert_int_equal(gr_run_guarded(&guarded, 3, &splits), 0);
    must_read_zero(p + 2 * GRANULE_BYTES + 4096, GRANULE_BYTES - 4096);
    memset(p, 0, 3 * GRANULE_BYTES);
    gr_run_mark_dirty(first, 3);
    gr_run_free(first, 3);
}

static void guard_free_holds_back(void **state) {
    (void)state;
    size_t first = gr_run_claim(2, 1);
    assert_true(gr_guard_open(first, 2));
    memset(region_address(first), 7, 2 * GRANULE_BYTES);
    gr_run_mark_dirty(first, 2);
    gr_guard_free(first, 2, 2 * GRANULE_BYTES);
    must_fault(region_address(first));
    assert_false(gr_run_claim_at(first, 2)); /* not yet */
    for (unsigned i = 1; i < HELD_BACK_RUNS; i++) {
        size_t other = gr_run_claim(1, 1);
        must(other != first && other != first + 1);
        gr_guard_free(other, 1, GRANULE_BYTES);
    }
    size_t last = gr_run_claim(1, 1);
    gr_guard_free(last, 1, GRANULE_BYTES); /* the line is full: the first leaves it */
    assert_true(gr_run_claim_at(first, 2));
    must_fault(region_address(first));
    assert_true(gr_guard_open(first, 2));
    must_read_zero(region_address(first), 2 * GRANULE_BYTES);
    gr_run_free(first, 2);
    gr_guard_flush();
}

/* What is guarded as a whole splits one mapping, of whatever length; its parts are opened one by one. */
static void guard_of_a_long_run(void **state) {
    (void)state;
    enum { LONG = 2 * SPLIT_FROM_GRANULES };
    size_t first = gr_run_claim(LONG, 1);
    char *p = region_address(first);
    assert_true(gr_guard_open(first, LONG));
    size_t before = gr_granules_split();
    gr_guard_tail(first, LONG, LONG * GRANULE_BYTES - 4096);
    memset(p, 1, LONG * GRANULE_BYTES - 4096);
    gr_run_mark_dirty(first, LONG);
    gr_guard_free(first, LONG, LONG * GRANULE_BYTES - 4096);
    gr_guard_flush();
    assert_int_equal(gr_granules_split(), before + LONG);
    assert_true(gr_run_claim_at(first, 3));
    assert_true(gr_guard_open(first, 3));
    must_read_zero(p, 3 * GRANULE_BYTES);
    must_fault(p + 3 * GRANULE_BYTES);
    assert_true(gr_run_claim_at(first + 3, LONG - 3));
    assert_true(gr_guard_open(first + 3, LONG - 3)); /* the mark at its end goes, too */
    must_read_zero(p + 3 * GRANULE_BYTES, (LONG - 3) * GRANULE_BYTES);
    assert_int_equal(gr_granules_split(), before);
    gr_run_free(first, LONG);
}

/* What the system can mark no guard in, it may have marked around. */
static void guard_of_locked_pages(void **state) {
    (void)state;
    enum { RUN = 5 };
    size_t first = gr_run_claim(RUN, 1);
    char *p = region_address(first);
    assert_true(gr_guard_open(first, RUN));
    memset(p, 1, RUN * GRANULE_BYTES);
    gr_run_mark_dirty(first, RUN);
    assert_int_equal(mlock(p + 2 * GRANULE_BYTES, 4096), 0);
    gr_guard_free(first, RUN, RUN * GRANULE_BYTES);
    assert_int_equal(munlock(p + 2 * GRANULE_BYTES, 4096), 0);
    gr_guard_flush();
    assert_true(gr_run_claim_at(first, RUN));
    assert_true(gr_guard_open(first, RUN));
    must_read_zero(p, RUN * GRANULE_BYTES);
    gr_run_free(first, RUN);
}

/* However much is guarded, and by runs of whatever length, it may all be opened granule by granule. */
static void guard_splits_are_bounded(void **state) {
    (void)state;
    enum { LONG = CHUNK_GRANULES, RUNS = SPLIT_MOST_WHOLE / LONG + 50 };
    static size_t runs[RUNS];
    for (size_t i = 0; i < RUNS; i++)
        must((runs[i] = gr_run_claim(LONG, 1)) != 0 && gr_guard_open(runs[i], LONG));
    for (size_t i = 0; i < RUNS; i++)
        gr_guard_free(runs[i], LONG, LONG * GRANULE_BYTES);
    assert_in_range(gr_granules_split(), SPLIT_MOST / 2, SPLIT_MOST_WHOLE);
    for (size_t i = 0; i < RUNS; i += RUNS / 20)
        must(os_guards_split() || i + HELD_BACK_RUNS > RUNS ||
             in_child(read_at, region_address(runs[i]), 20).signal == SIGSEGV);
    gr_guard_flush();
}

static void guard_flush_gives_all_back(void **state) {
    (void)state;
    gr_guard_flush();
    uint64_t vacant = gr_arena_totals().vacant;
    size_t runs[5];
    for (size_t i = 0; i < COUNT_OF(runs); i++)
        runs[i] = gr_run_claim(2, 1);
    for (size_t i = 0; i < COUNT_OF(runs); i++)
        gr_guard_free(runs[i], 2, 2 * GRANULE_BYTES);
    assert_true(gr_arena_totals().vacant < vacant);
    gr_guard_flush();
    assert_int_equal(gr_arena_totals().vacant, vacant);
}

static void guard_behind_a_large_block(void **state) {
    (void)state;
    char *p = gr_large_alloc(300000, 1, false);
    assert_int_equal(gr_large_bytes(p), 300000);
    assert_true(gr_large_is_whole(p));
    memset(p, 1, 300000);
    assert_true(gr_large_is_whole(p));
    must_fault(p + 303104);
    p[300000] = 0;
    assert_false(gr_large_is_whole(p));
    p[300000] = (char)SLACK_MARK;
    p[303103] = 1;
    assert_false(gr_large_is_whole(p));
    p[303103] = 0;
    /* grown where it is, then shrunk: the guard goes along, and nothing of the user's is behind it */
    assert_true(gr_large_resize(p, 1 << 20));
    assert_true(gr_large_is_whole(p));
    assert_true(all_bytes_are(p, 300000, 1));
    must_read_zero(p + 300000, (1 << 20) - 300000);
    memset(p, 2, 1 << 20);
    must_fault(p + (1 << 20));
    assert_true(gr_large_resize(p, 270001));
    assert_int_equal(gr_large_bytes(p), 270001);
    assert_true(gr_large_is_whole(p) && all_bytes_are(p, 270001, 2));
    must_fault(p + 270336);
    assert_true(gr_large_free(p));
    must_fault(p);
}

static void guard_count_is_bounded_where_guards_split(void **state) {
    (void)state;
    if (!os_guards_split()) /* the marks of some kernels cost no mapping */
        return;
    enum { RUNS = 9000 };
    static size_t runs[RUNS];
    gr_guard_flush();
    for (size_t i = 0; i < RUNS; i++) {
        runs[i] = gr_run_claim(1, 1);
        must(runs[i] && gr_guard_open(runs[i], 1));
        gr_guard_tail(runs[i], 1, GRANULE_BYTES - 4096);
    }
    assert_in_range(gr_granules_split(), 4096, 8192);
    for (size_t i = 0; i < RUNS; i++) {
        must(gr_guard_open(runs[i], 1));
        gr_run_free(runs[i], 1);
    }
}

enum { HEAP_GRANULES = (THP_FROM_CHUNKS + 4) * CHUNK_GRANULES };

/* A large block that had to lie among slabs leaves guards there; the next slab in its place asks for a huge page. */
static int claim_guarded(void *unused) {
    size_t first = 0, last = 0;
    (void)unused;
    for (size_t n = 0; n < HEAP_GRANULES || !first || last != first + HUGE_PAGE_GRANULES - 1; n++) {
        must(n < 2 * HEAP_GRANULES && (last = gr_run_claim(1, 1)) != 0);
        if (n >= HEAP_GRANULES && last % HUGE_PAGE_GRANULES == 0)
            first = last;
    }
    gr_guard_free(first, HUGE_PAGE_GRANULES, HUGE_PAGE_GRANULES * GRANULE_BYTES);
    gr_guard_flush();
    must(gr_run_claim(1, 1) == first);
    must(gr_guard_open(first, 1));
    must_read_zero(region_address(first), GRANULE_BYTES);
    return 0;
}

static void guard_is_not_touched_for_a_huge_page(void **state) {
    (void)state;
    must_end_well(in_child(claim_guarded, NULL, 20), "claimed where guards are");
}

int main(int argc, char **argv) {
    split = argc == 2 && strcmp(argv[1], "split") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guard_tail_then_open),
        cmocka_unit_test(guard_free_holds_back),
        cmocka_unit_test(guard_of_a_long_run),
        cmocka_unit_test(guard_of_locked_pages),
        cmocka_unit_test(guard_flush_gives_all_back),
        cmocka_unit_test(guard_behind_a_large_block),
        cmocka_unit_test(guard_count_is_bounded_where_guards_split),
        cmocka_unit_test(guard_is_not_touched_for_a_huge_page),
        cmocka_unit_test(guard_splits_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
