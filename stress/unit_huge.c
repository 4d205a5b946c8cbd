/* unit_huge.c -- page/huge.h: each row of its table, the window of records, moves that lose nothing. */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect */
#include "oom_fault.h"

#include "base/limits.h"
#include "page/huge.h"

enum { SIZE = 1 << 20 };

static void huge_empty_to_shown_to_empty(void **state) {
    (void)state;
    size_t total = gr_huge_total();
    char *p = gr_huge_alloc(SIZE + 1, 1);
    assert_non_null(p);
    assert_true(is_aligned(p, 4096));
    size_t usable = HARDENED ? SIZE + 1 : SIZE + 4096;
    assert_int_equal(gr_huge_bytes(p), usable);
    assert_int_equal(gr_huge_total(), total + usable);
    assert_true(all_bytes_are(p, usable, 0));
    memset(p, 1, usable);
    assert_true(gr_huge_free(p));
    assert_int_equal(gr_huge_total(), total);
    assert_int_equal(gr_huge_bytes(p), 0);
}

static void huge_shown_to_hidden_once(void **state) {
    (void)state;
    char *p = gr_huge_alloc(SIZE, 1);
    assert_true(gr_huge_free(p));
    for (unsigned i = 0; i < 3; i++)
        assert_false(gr_huge_free(p));
    assert_null(gr_huge_resize(p, 2 * SIZE));
}

static void huge_finds_the_start_alone(void **state) {
    (void)state;
    char *p = gr_huge_alloc(SIZE, 1);
    assert_int_equal(gr_huge_bytes(p + 1), 0);
    assert_int_equal(gr_huge_bytes(p + 4096), 0);
    assert_int_equal(gr_huge_bytes(p - 4096), 0);
    assert_int_equal(gr_huge_bytes(&p), 0);
    assert_int_equal(gr_huge_bytes((void *)UINTPTR_MAX), 0);
    assert_false(gr_huge_free(p + 4096));
    assert_true(gr_huge_free(p));
}

static void huge_aligned_and_trimmed(void **state) {
    (void)state;
    size_t before = vsz_bytes();
    for (size_t align = 1; align <= GIB; align *= 2) {
        char *p = gr_huge_alloc(3 * SIZE, align);
        assert_non_null(p);
        assert_true(is_aligned(p, align));
        assert_true(vsz_bytes() <= before + 3 * SIZE + 64 * KIB);
        p[0] = p[3 * SIZE - 1] = 1;
        assert_true(gr_huge_free(p));
    }
    assert_true(vsz_bytes() <= before + 64 * KIB);
    assert_null(gr_huge_alloc(PTRDIFF_MAX / 2, (size_t)1 << 62));
    assert_null(gr_huge_alloc(SIZE, (size_t)1 << 62));
}

static void huge_resize_grows_and_keeps_the_contents(void **state) {
    (void)state;
    char *p = gr_huge_alloc(SIZE, 1);
    size_t total = gr_huge_total();
    pattern_fill(p, SIZE, 1);
    for (size_t n = 2; n <= 40; n++) {
        char *q = gr_huge_resize(p, n * SIZE);
        assert_non_null(q);
        assert_int_equal(gr_huge_bytes(q), n * SIZE);
        if (q != p)
            assert_int_equal(gr_huge_bytes(p), 0);
        assert_int_equal(gr_huge_total(), total + (n - 1) * SIZE);
        assert_true(pattern_holds(q, SIZE, 1));
        assert_true(all_bytes_are(q + SIZE, (n - 1) * SIZE, 0));
        p = q;
    }
    assert_true(gr_huge_free(p));
}

static void huge_resize_shrinks_in_place(void **state) {
    (void)state;
    char *p = gr_huge_alloc(40 * SIZE, 1);
    size_t total = gr_huge_total();
    pattern_fill(p, SIZE, 2);
    for (size_t n = 39; n >= 1; n--) {
        assert_ptr_equal(gr_huge_resize(p, n * SIZE), p);
        assert_int_equal(gr_huge_bytes(p), n * SIZE);
        assert_int_equal(gr_huge_total(), total - (40 - n) * SIZE);
    }
    assert_true(pattern_holds(p, SIZE, 2));
    assert_true(gr_huge_free(p));
}

static void huge_resize_moves_where_the_neighbour_is_in_the_way(void **state) {
    (void)state;
    char *p = gr_huge_alloc(SIZE, 1);
    char *wall =
        mmap(p + SIZE, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0); /* or it is there */
    pattern_fill(p, SIZE, 3);
    size_t total = gr_huge_total();
    char *q = gr_huge_resize(p, 4 * SIZE);
    assert_non_null(q);
    assert_ptr_not_equal(q, p);
    assert_int_equal(gr_huge_bytes(p), 0);
    assert_int_equal(gr_huge_total(), total + 3 * SIZE);
    assert_true(pattern_holds(q, SIZE, 3));
    assert_true(all_bytes_are(q + SIZE, 3 * SIZE, 0));
    assert_true(gr_huge_free(q));
    if (wall != MAP_FAILED)
        munmap(wall, 4096);
}

/* Whatever call fails, the block is there or moved, with its contents and its number of bytes. */
static void huge_resize_failing_leaves_the_block(void **state) {
    (void)state;
    const unsigned kinds[] = {FAULT_MREMAP, FAULT_MMAP | FAULT_MREMAP, FAULT_ANY};
    for (size_t k = 0; k < COUNT_OF(kinds); k++)
        for (long nth = 1; nth <= 4; nth++) {
            char *p = gr_huge_alloc(2 * SIZE, 1), *q;
            size_t total = gr_huge_total();
            pattern_fill(p, 2 * SIZE, 4);
            fault_arm(kinds[k], nth, nth % 2, ENOMEM);
            q = gr_huge_resize(p, 6 * SIZE);
            fault_disarm();
            if (!q) {
                assert_int_equal(gr_huge_total(), total);
                q = p;
            }
            assert_int_equal(gr_huge_bytes(q), q == p && gr_huge_total() == total ? 2 * SIZE : 6 * SIZE);
            assert_true(pattern_holds(q, 2 * SIZE, 4));
            assert_true(gr_huge_free(q));
            assert_int_equal(gr_huge_total(), total - 2 * SIZE);
        }
}

static void huge_alloc_without_memory(void **state) {
    (void)state;
    size_t total = gr_huge_total();
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    assert_null(gr_huge_alloc(SIZE, 1));
    assert_null(gr_huge_alloc(SIZE, SIZE));
    fault_disarm();
    assert_null(gr_huge_alloc((size_t)PTRDIFF_MAX - 4095, 1));
    assert_int_equal(gr_huge_total(), total);
}

/* As many blocks as the kernel allows maps for, or nearly: all are found, all can be freed in any order. */
static void huge_thousands_of_records(void **state) {
    (void)state;
    enum { COUNT = 6000 };
    static char *block[COUNT];
    size_t total = gr_huge_total(), got = 0;
    for (; got < COUNT; got++) {
        block[got] = gr_huge_alloc(4096 * (1 + got % 3), 1);
        assert_non_null(block[got]);
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(gr_huge_bytes(block[i]), 4096 * (1 + i % 3));
    for (size_t i = 0, at = 0; i < COUNT; i++, at = (at + 2477) % COUNT) {
        assert_true(gr_huge_free(block[at]));
        assert_false(gr_huge_free(block[at]));
    }
    assert_int_equal(gr_huge_total(), total);
}

/* ---- one caller frees ---- */

static _Atomic int go, freed;

static void *free_at_once(void *p) {
    while (!go) {
    }
    if (gr_huge_free(p))
        freed++;
    return NULL;
}

static void huge_hidden_by_one_of_many(void **state) {
    (void)state;
    for (unsigned turn = 0; turn < 200; turn++) {
        pthread_t threads[3];
        void *p = gr_huge_alloc(SIZE, 1);
        go = freed = 0;
        for (unsigned i = 0; i < COUNT_OF(threads); i++)
            must(pthread_create(&threads[i], NULL, free_at_once, p) == 0);
        go = 1;
        for (unsigned i = 0; i < COUNT_OF(threads); i++)
            must(pthread_join(threads[i], NULL) == 0);
        assert_int_equal(freed, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(huge_empty_to_shown_to_empty),
        cmocka_unit_test(huge_shown_to_hidden_once),
        cmocka_unit_test(huge_finds_the_start_alone),
        cmocka_unit_test(huge_aligned_and_trimmed),
        cmocka_unit_test(huge_resize_grows_and_keeps_the_contents),
        cmocka_unit_test(huge_resize_shrinks_in_place),
        cmocka_unit_test(huge_resize_moves_where_the_neighbour_is_in_the_way),
        cmocka_unit_test(huge_resize_failing_leaves_the_block),
        cmocka_unit_test(huge_alloc_without_memory),
        cmocka_unit_test(huge_thousands_of_records),
        cmocka_unit_test(huge_hidden_by_one_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
