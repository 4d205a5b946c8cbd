/* semantics_aligned.c -- alignments asked for, those nobody can give, and those that are no alignments.
 * covers: S20 S21 S22 S23 S24 S25 C11
 */
#include "semantics_calls.h"

static const size_t sizes_in_brief[] = {0,    1,    7,     16,    17,     63,     64,          100,    1000,
                                        4095, 4097, 65536, 70000, 262144, 300000, 1 * MIB + 1, 5 * MIB};

static void must_be_aligned_block(void *ptr, size_t alignment, size_t size) {
    must(ptr != NULL);
    must(is_aligned(opaque(ptr), alignment));
    must(is_aligned(ptr, 16));
    must(granary_malloc_usable_size(ptr) >= size);
    touch_ends(ptr, size);
    touch_ends(ptr, granary_malloc_usable_size(ptr));
}

static void semantics_020_every_power_of_two_with_every_size(void **state) {
    (void)state;
    for (int shift = 0; shift <= 30; shift++) {
        size_t alignment = (size_t)1 << shift;
        void *held[COUNT_OF(sizes_in_brief)];
        for (size_t i = 0; i < COUNT_OF(sizes_in_brief); i++) {
            held[i] = granary_aligned_alloc(alignment, sizes_in_brief[i]);
            must_be_aligned_block(held[i], alignment, sizes_in_brief[i]);
            if (alignment > 64 * MIB) { /* many at once would ask for more address space than some machines give */
                granary_free(held[i]);
                held[i] = NULL;
            }
        }
        for (size_t i = 0; i < COUNT_OF(sizes_in_brief); i++) {
            granary_free(held[i]);
        }
    }
}

static void semantics_020_aligned_blocks_keep_apart(void **state) {
    (void)state;
    enum { HELD = 512 };
    static void *held[HELD];
    static size_t sizes[HELD];
    struct rng rng = rng_for(20);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < HELD; i++) {
            size_t alignment = (size_t)1 << rng_below(&rng, 18);
            sizes[i] = rng_size(&rng, 14);
            held[i] = granary_memalign(alignment, sizes[i]);
            must(held[i] != NULL && is_aligned(opaque(held[i]), alignment));
            sizes[i] = granary_malloc_usable_size(held[i]);
            pattern_sprinkle(held[i], sizes[i], i + (size_t)round);
        }
        for (size_t i = 0; i < HELD; i++) {
            must(pattern_sprinkled(held[i], sizes[i], i + (size_t)round));
            granary_free(held[i]);
        }
    }
}

static void semantics_020_a_gibibyte_at_a_gibibyte(void **state) {
    (void)state;
    void *ptr = granary_aligned_alloc(GIB, GIB);
    must_be_aligned_block(ptr, GIB, GIB);
    granary_free_aligned_sized(ptr, GIB, GIB);
}

static void semantics_021_aligned_alloc_rejects_what_is_no_power_of_two(void **state) {
    (void)state;
    const size_t alignments[] = {0, 3, 5, 6, 7, 9, 24, 65, 4095, 4097, ((size_t)1 << 62) + 1, PTRDIFF_MAX, SIZE_MAX};
    const size_t sizes[] = {0, 1, 64, 65, 1 * MIB, PTRDIFF_MAX, SIZE_MAX};
    for (size_t a = 0; a < COUNT_OF(alignments); a++) {
        for (size_t s = 0; s < COUNT_OF(sizes); s++) {
            errno = 0;
            assert_null(granary_aligned_alloc(opaque_size(alignments[a]), opaque_size(sizes[s])));
            assert_int_equal(errno, EINVAL);
        }
    }
}

static void semantics_022_alignments_beyond_the_machine_fail(void **state) {
    (void)state;
    for (int shift = 47; shift <= 63; shift++) {
        for (size_t i = 0; i < COUNT_OF(sizes_in_brief); i++) {
            size_t alignment = opaque_size((size_t)1 << shift);
            errno = 0;
            must_be_refused("aligned_alloc", alignment, granary_aligned_alloc(alignment, sizes_in_brief[i]));
        }
    }
}

static void semantics_023_memalign_rounds_the_alignment_up(void **state) {
    (void)state;
    const size_t rounded[][2] = {
        {0, 1}, {1, 1}, {3, 4}, {5, 8}, {24, 32}, {33, 64}, {1000, 1024}, {4097, 8192}, {MIB + 1, 2 * MIB}};
    for (size_t r = 0; r < COUNT_OF(rounded); r++) {
        for (size_t i = 0; i < COUNT_OF(sizes_in_brief); i++) {
            void *ptr = granary_memalign(opaque_size(rounded[r][0]), sizes_in_brief[i]);
            must_be_aligned_block(ptr, rounded[r][1], sizes_in_brief[i]);
            granary_free(ptr);
        }
    }
    const size_t unroundable[] = {((size_t)1 << 62) + 1, PTRDIFF_MAX, (size_t)1 << 63, SIZE_MAX - 63, SIZE_MAX};
    for (size_t i = 0; i < COUNT_OF(unroundable); i++) {
        errno = 0;
        assert_null(granary_memalign(opaque_size(unroundable[i]), 64));
        assert_int_equal(errno, EINVAL);
    }
}

static void semantics_023_memalign_survives_sums_that_wrap(void **state) {
    (void)state;
    for (int shift = 0; shift <= 40; shift++) {
        size_t alignment = (size_t)1 << shift;
        size_t complement = opaque_size(1 - alignment);
        errno = 0;
        if (shift > 0) { /* 1 - 1 is an honest 0 */
            must_be_refused("memalign(align, 1-align)", complement, granary_memalign(alignment, complement));
            errno = 0;
            assert_null(granary_memalign(complement, alignment));
            assert_true(errno == EINVAL || errno == ENOMEM);
        }
    }
}

static void semantics_024_posix_memalign_reports_by_its_result(void **state) {
    (void)state;
    const size_t bad[] = {0, 1, 2, 4, 3, 24, 12, 65, 4095, SIZE_MAX, SIZE_MAX - 7};
    void *mark = &mark;
    void *out = mark;
    errno = ERRNO_MARK;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(granary_posix_memalign(&out, opaque_size(bad[i]), 64), EINVAL);
        assert_int_equal(granary_posix_memalign(&out, opaque_size(bad[i]), SIZE_MAX), EINVAL);
        assert_ptr_equal(out, mark);
        assert_int_equal(errno, ERRNO_MARK);
    }
    for (size_t alignment = sizeof(void *); alignment <= GIB; alignment *= 2) {
        assert_int_equal(granary_posix_memalign(&out, alignment, opaque_size(PTRDIFF_MAX)), ENOMEM);
        assert_int_equal(granary_posix_memalign(&out, alignment, opaque_size(SIZE_MAX)), ENOMEM);
        assert_ptr_equal(out, mark);
        assert_int_equal(errno, ERRNO_MARK);
    }
    assert_int_equal(granary_posix_memalign(&out, (size_t)1 << 62, 1), ENOMEM);
    assert_ptr_equal(out, mark);
    for (size_t alignment = sizeof(void *); alignment <= 16 * MIB; alignment *= 2) {
        for (size_t i = 0; i < COUNT_OF(sizes_in_brief); i++) {
            assert_int_equal(granary_posix_memalign(&out, alignment, sizes_in_brief[i]), 0);
            must_be_aligned_block(out, alignment, sizes_in_brief[i]);
            granary_free(out);
        }
    }
    assert_int_equal(errno, ERRNO_MARK);
}

static void semantics_025_valloc_and_pvalloc_give_pages(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct grid *grid = grid_up_to(2 * MIB);
    for (size_t i = 0; i < grid->count; i++) {
        size_t n = grid->sizes[i];
        void *plain = granary_valloc(n);
        void *whole = granary_pvalloc(n);
        must_be_aligned_block(plain, page, n);
        must_be_aligned_block(whole, page, n ? (n + page - 1) / page * page : page);
        granary_free(plain);
        granary_free(whole);
    }
    for (size_t less = 0; less < 2 * page; less++) {
        errno = 0;
        must_be_refused("pvalloc", SIZE_MAX - less, granary_pvalloc(opaque_size(SIZE_MAX - less)));
        errno = 0;
        must_be_refused("valloc", SIZE_MAX - less, granary_valloc(opaque_size(SIZE_MAX - less)));
        errno = 0;
        must_be_refused("pvalloc", PTRDIFF_MAX - less, granary_pvalloc(opaque_size(PTRDIFF_MAX - less)));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_020_every_power_of_two_with_every_size),
        cmocka_unit_test(semantics_020_aligned_blocks_keep_apart),
        cmocka_unit_test(semantics_020_a_gibibyte_at_a_gibibyte),
        cmocka_unit_test(semantics_021_aligned_alloc_rejects_what_is_no_power_of_two),
        cmocka_unit_test(semantics_022_alignments_beyond_the_machine_fail),
        cmocka_unit_test(semantics_023_memalign_rounds_the_alignment_up),
        cmocka_unit_test(semantics_023_memalign_survives_sums_that_wrap),
        cmocka_unit_test(semantics_024_posix_memalign_reports_by_its_result),
        cmocka_unit_test(semantics_025_valloc_and_pvalloc_give_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
