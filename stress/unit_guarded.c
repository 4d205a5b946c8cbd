/* unit_guarded.c -- page/guarded.h: slots between two guards, oldest first, both ends, what stands beside a block, how often one is
 * drawn. What a report says is in misuse_guards.c.
 */
/* test: hardened=off wrap=mmap,munmap,madvise,mremap,mprotect */
/* test: hardened=off name=split args="split" */
#include "oom_fault.h"

#include "base/bits.h"
#include "base/limits.h"
#include "os/os.h"
#include "page/guarded.h"

enum { SEED = 12345, ONE_IN = 1000 };

static void *some(size_t n, size_t align) { return gr_guarded_alloc(n, align, n + 7, __builtin_frame_address(0)); }

static void put(void *p) { assert_true(gr_guarded_free(p, "free", __builtin_frame_address(0))); }

static size_t bytes_of(void *p, size_t *room) { return gr_guarded_bytes(p, room, "test", __builtin_frame_address(0)); }

static int touch(void *p) {
    *(volatile char *)p = 1;
    return 0;
}

static bool faults(void *p) { return in_child(touch, p, 20).signal == SIGSEGV; }

static size_t page_of(const void *p) { return (uintptr_t)p / os_page_bytes(); }

/* Before the start nothing is guarded, nothing is found, nothing costs anything. */
static void none_before_the_start(void **state) {
    (void)state;
    size_t room;
    assert_false(guarded_in_use());
    assert_null(some(100, 1));
    assert_false(gr_guarded_free((void *)0x1000, "free", NULL));
    assert_int_equal(bytes_of((void *)0x1000, &room), 0);
    assert_int_equal(gr_guarded_pages(), 0);
    gr_guarded_repair();
    fault_arm(FAULT_MADVISE | FAULT_MPROTECT, 1, true, ENOMEM);
    gr_guarded_start(ONE_IN, SEED);
    fault_disarm();
    assert_false(guarded_in_use()); /* no guards, no guarded blocks */
    gr_guarded_start(ONE_IN, SEED);
    assert_true(guarded_in_use());
}

static void block_is_zero_between_marks_and_guards(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 15, 16, 17, 100, 1000, 2048, 4095, 4096};
    size_t page = os_page_bytes(), at_start = 0, at_end = 0, room;
    for (size_t i = 0; i < 400; i++) {
        size_t n = sizes[i % COUNT_OF(sizes)], align = (size_t)1 << i / 10 % 13;
        unsigned char *p = some(n, align), *open = (unsigned char *)(page_of(p) * page);
        assert_non_null(p);
        n = n ? n : 1;
        assert_true(is_aligned(p, align) && is_aligned(p, 16));
        assert_int_equal(bytes_of(p, &room), n);
        assert_int_equal(room, sizes[i % COUNT_OF(sizes)] ? n + 7 : 7);
        assert_true(all_bytes_are(p, n, 0));
        assert_true(all_bytes_are(open, (size_t)(p - open), SLACK_MARK));
        assert_true(all_bytes_are(p + n, page - n - (size_t)(p - open), SLACK_MARK));
        at_start += p == open;
        at_end += p + n + max_size(align, 16) > open + page;
        assert_true(p == open || p + n + max_size(align, 16) > open + page);
        memset(p, 1, n);
        assert_int_equal(gr_guarded_pages(), 1);
        if (i % 40 == 0) {
            assert_true(faults(open - 1));
            assert_true(faults(open + page));
            assert_false(faults(p));
        }
        put(p);
        assert_int_equal(gr_guarded_pages(), 0);
        if (i % 40 == 0)
            assert_true(faults(p));
    }
    assert_true(at_start > 100 && at_end > 100);
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    assert_null(some(GUARDED_MAX_BYTES + 1, 1));
    assert_null(some(SIZE_MAX, 1));
    assert_null(some(1, 2 * GUARDED_MAX_BYTES));
    void *p = some(GUARDED_MAX_BYTES, GUARDED_MAX_BYTES);
    assert_non_null(p);
    put(p);
}

/* closed -> claim: of the closed ones the one that was freed first. */
static void slot_that_waits_longest_is_next(void **state) {
    (void)state;
    static char *p[GUARDED_SLOTS];
    for (unsigned i = 0; i < GUARDED_SLOTS; i++) {
        assert_non_null(p[i] = some(100, 1));
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(page_of(p[i]), page_of(p[k]));
    }
    assert_int_equal(gr_guarded_pages(), GUARDED_SLOTS);
    assert_null(some(1, 1)); /* all live */
    for (unsigned i = 0; i < GUARDED_SLOTS; i++)
        put(p[i * 37 % GUARDED_SLOTS]);
    for (unsigned i = 0; i < GUARDED_SLOTS; i++) {
        char *q = some(100, 1);
        assert_int_equal(page_of(q), page_of(p[i * 37 % GUARDED_SLOTS]));
        put(q);
    }
}

static void refusals_of_the_system_are_survived(void **state) {
    (void)state;
    fault_arm(FAULT_MADVISE | FAULT_MPROTECT, 1, true, ENOMEM);
    assert_null(some(100, 1));
    fault_disarm();
    char *p = some(100, 1);
    assert_non_null(p);
    memset(p, 1, 100);
    fault_arm(FAULT_MADVISE | FAULT_MPROTECT, 1, true, ENOMEM);
    put(p);
    fault_disarm();
    for (unsigned i = 0; i <= GUARDED_SLOTS; i++) { /* around to that slot, which no guard was put on */
        char *q = some(100, 1);
        assert_non_null(q);
        assert_true(all_bytes_are(q, 100, 0));
        put(q);
    }
}

/* A child has what its parent had, each its own. */
static int use_in_child(void *block) {
    char *p = block;
    must(all_bytes_are(p, 100, 3));
    memset(p, 4, 100);
    gr_guarded_repair(); /* nobody holds a slot: nothing happens */
    must(gr_guarded_pages() == 1);
    must(gr_guarded_free(p, "free", __builtin_frame_address(0)));
    must(faults(p));
    p = some(50, 1);
    must(p != NULL && !faults(p));
    return 0;
}

static void child_has_its_own(void **state) {
    (void)state;
    char *p = some(100, 1);
    memset(p, 3, 100);
    must_end_well(in_child(use_in_child, p, 20), "child");
    assert_true(all_bytes_are(p, 100, 3));
    put(p);
}

static void draws_are_one_in_so_many(void **state) {
    (void)state;
    enum { DRAWS = 100000 };
    uint64_t sum = 0;
    unsigned low = 0;
    for (unsigned i = 0; i < DRAWS; i++) {
        uint32_t drawn = gr_guarded_draw();
        assert_in_range(drawn, 1, 2 * ONE_IN - 1);
        sum += drawn;
        low += drawn <= ONE_IN / 2;
    }
    assert_in_range(sum / DRAWS, ONE_IN - 10, ONE_IN + 10); /* 5.5 standard deviations */
    assert_in_range(low, DRAWS / 4 - 1000, DRAWS / 4 + 1000);
}

/* split: the kernel is taken for one that cannot mark pages, as its first answer is a refusal. */
int main(int argc, char **argv) {
    (void)argv;
    if (argc == 1)
        os_guards_split();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_before_the_start),
        cmocka_unit_test(block_is_zero_between_marks_and_guards),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(slot_that_waits_longest_is_next),
        cmocka_unit_test(refusals_of_the_system_are_survived),
        cmocka_unit_test(child_has_its_own),
        cmocka_unit_test(draws_are_one_in_so_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
