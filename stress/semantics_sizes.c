/* semantics_sizes.c -- sizes that no machine has, and products that overflow: NULL and ENOMEM, at once and silently.
 * covers: S8 S17 S18 S19 C11
 */
#include "semantics_calls.h"

enum { LAST_VALUES = 1 << 14, STEPS = 50 };

static const size_t above_ptrdiff = (size_t)PTRDIFF_MAX + 1;

static void semantics_008_products_that_overflow_fail(void **state) {
    (void)state;
    const size_t pairs[][2] = {
        {SIZE_MAX, 2},
        {SIZE_MAX / 2 + 1, 2},
        {(size_t)1 << 32, (size_t)1 << 32},
        {PTRDIFF_MAX, 2},
        {SIZE_MAX, SIZE_MAX},
        {SIZE_MAX / 3 + 1, 3},
        {((size_t)1 << 32) + 1, ((size_t)1 << 32) - 1}, /* the product is SIZE_MAX: no overflow, too large */
    };
    for (size_t i = 0; i < COUNT_OF(pairs) * 2; i++) {
        size_t count = opaque_size(pairs[i / 2][i % 2]);
        size_t size = opaque_size(pairs[i / 2][1 - i % 2]);
        errno = 0;
        must_be_refused("calloc", count, granary_calloc(count, size));
        errno = 0;
        must_be_refused("reallocarray", count, granary_reallocarray(NULL, count, size));
    }
    for (size_t huge = SIZE_MAX - 2; huge != 0; huge++) {
        void *none = granary_calloc(0, opaque_size(huge));
        void *either = granary_calloc(opaque_size(huge), 0);
        assert_non_null(none);
        assert_non_null(either);
        granary_free(none);
        granary_free(either);
    }
}

/* Runs one(size) for every size that is impossible in a way of its own. */
static void each_impossible_size(void (*one)(size_t size)) {
    for (size_t k = 0; k < LAST_VALUES; k++) {
        one(SIZE_MAX - k);
    }
    for (size_t k = 0; k < STEPS; k++) {
        one(above_ptrdiff + k);
        one(above_ptrdiff + k * (SIZE_MAX / 2 / STEPS));
    }
}

static void malloc_refuses(size_t size) {
    errno = 0;
    must_be_refused("malloc", size, granary_malloc(opaque_size(size)));
}

/* Between two reads of the counters nothing may have been kept. */
static size_t bytes_held(void) {
    struct granary_stats stats;
    granary_get_stats(&stats);
    return stats.mapped_bytes;
}

static void semantics_017_sizes_above_ptrdiff_max_fail(void **state) {
    (void)state;
    granary_free(granary_malloc(1));
    size_t before = bytes_held();
    double start = seconds_now();
    each_impossible_size(malloc_refuses);
    assert_true(seconds_now() - start < 1.0);
    assert_int_equal(bytes_held(), before);
}

static void every_call_refuses(size_t size) {
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        errno = 0;
        must_be_refused(calls[c].name, size, calls[c].alloc(opaque_size(size)));
    }
}

static void every_resize_refuses(size_t size) {
    static unsigned char *block;
    if (block == NULL) {
        block = granary_malloc(100);
        pattern_fill(block, 100, 17);
    }
    errno = 0;
    must_be_refused("realloc", size, granary_realloc(block, opaque_size(size)));
    errno = 0;
    must_be_refused("reallocarray", size, granary_reallocarray(block, opaque_size(size), 1));
    must(granary_malloc_usable_size(block) >= 100);
    must(pattern_holds(block, 100, 17));
}

static int refuse_everything(void *unused) {
    (void)unused;
    each_impossible_size(every_call_refuses);
    each_impossible_size(every_resize_refuses);
    return 0;
}

static void semantics_018_every_call_refuses_them_silently(void **state) {
    (void)state;
    struct ending ending = in_child(refuse_everything, NULL, 30);
    must_end_well(ending, "impossible sizes");
    assert_int_equal(ending.length, 0); /* nothing is printed */
}

static void semantics_018_alignment_does_not_wrap_the_sum(void **state) {
    (void)state;
    for (int shift = 0; shift <= 62; shift++) {
        size_t alignment = (size_t)1 << shift;
        for (size_t k = 0; k < 4; k++) {
            const size_t sizes[] = {SIZE_MAX - k, (size_t)0 - alignment + k, (size_t)0 - alignment - k,
                                    above_ptrdiff - 1 - k, above_ptrdiff - alignment + k};
            for (size_t i = 0; i < COUNT_OF(sizes); i++) {
                size_t size = opaque_size(sizes[i]);
                if (size < ((size_t)1 << 46)) {
                    continue; /* the difference is small: it may succeed */
                }
                errno = 0;
                must_be_refused("aligned_alloc", size, granary_aligned_alloc(alignment, size));
                errno = 0;
                must_be_refused("memalign", size, granary_memalign(alignment, size));
                void *out = &out;
                errno = ERRNO_MARK;
                must(granary_posix_memalign(&out, alignment, size) == (alignment < sizeof(void *) ? EINVAL : ENOMEM));
                must(out == &out && errno == ERRNO_MARK);
            }
        }
    }
}

static void semantics_019_sizes_beyond_the_machine_fail_quickly(void **state) {
    (void)state;
    const size_t sizes[] = {PTRDIFF_MAX,     PTRDIFF_MAX - 4096,       (size_t)1 << 62, (size_t)1 << 48,
                            (size_t)1 << 47, ((size_t)1 << 47) - 8192, (size_t)1 << 46};
    size_t before = bytes_held();
    double start = seconds_now();
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (size_t c = 0; c < COUNT_OF(calls); c++) {
            errno = 0;
            must_be_refused(calls[c].name, sizes[i], calls[c].alloc(opaque_size(sizes[i])));
        }
    }
    assert_true(seconds_now() - start < 1.0);
    assert_int_equal(bytes_held(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_008_products_that_overflow_fail),
        cmocka_unit_test(semantics_017_sizes_above_ptrdiff_max_fail),
        cmocka_unit_test(semantics_018_every_call_refuses_them_silently),
        cmocka_unit_test(semantics_018_alignment_does_not_wrap_the_sum),
        cmocka_unit_test(semantics_019_sizes_beyond_the_machine_fail_quickly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
