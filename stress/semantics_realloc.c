/* semantics_realloc.c -- a block that changes its size keeps its contents, or stays as it was.
 * covers: S9 S10 S11 S12 S13 S14 S15 S16 C11
 */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect */
#include "oom_fault.h"
#include "semantics_calls.h"

/* A block under trial: every `stride`-th byte of it is known, also after it has shrunk or grown. */
struct trial {
    unsigned char *ptr;
    size_t size;
    size_t stride;
};

static unsigned char known_byte(const struct trial *trial, size_t at) {
    return (unsigned char)pattern_word(trial->stride, at);
}

static void resize_checked(struct trial *trial, size_t size) {
    size_t kept = trial->size < size ? trial->size : size;
    trial->ptr = granary_realloc(trial->ptr, size);
    trial->size = size;
    must(trial->ptr != NULL && is_aligned(opaque(trial->ptr), 16));
    must(granary_malloc_usable_size(trial->ptr) >= size);
    for (size_t at = 0; at < kept; at += trial->stride) {
        must(trial->ptr[at] == known_byte(trial, at));
    }
    for (size_t at = 0; at < size; at += trial->stride) {
        trial->ptr[at] = known_byte(trial, at);
    }
}

static void *filled(void *ptr, size_t size, uint64_t seed) {
    must(ptr != NULL);
    pattern_fill(ptr, size, seed);
    return ptr;
}

static void semantics_009_realloc_keeps_the_common_prefix(void **state) {
    (void)state;
    struct grid *grid = grid_up_to(STRESS_SLOW ? 2 * MIB : 64 * MIB);
    for (size_t i = 0; i < grid->count; i++) {
        size_t n = grid->sizes[i];
        struct trial trial = {NULL, 0, n < 100 * KIB ? 1 : 509};
        if (n >= 2) {
            const size_t sizes[] = {n, n, n + 1, n, n - 1, n / 2 + 1, n + n / 3 + 1};
            for (size_t k = 0; k < COUNT_OF(sizes); k++) {
                resize_checked(&trial, sizes[k]);
            }
        }
        granary_free(trial.ptr);
    }
}

static void semantics_009_realloc_grows_step_by_step(void **state) {
    (void)state;
    struct trial trial = {NULL, 0, 61};
    for (size_t next = 1; next <= 64 * MIB; next += next / 2 + 1) {
        resize_checked(&trial, next);
    }
    for (size_t next = trial.size; next > 1; next -= next / 3 + 1) {
        resize_checked(&trial, next);
    }
    granary_free(trial.ptr);
    void *ptr = NULL;
    for (size_t step = 1; step <= 20000; step++) { /* appends */
        ptr = granary_realloc(ptr, step * 3);
        must(ptr != NULL);
        ((unsigned char *)ptr)[step - 1] = (unsigned char)step;
    }
    for (size_t i = 0; i < 20000; i++) {
        must(((unsigned char *)ptr)[i] == (unsigned char)(i + 1));
    }
    granary_free(ptr);
}

static void semantics_010_realloc_to_zero_frees(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, 100, 5000, 100000, 300000, 2 * MIB, 40 * MIB};
    size_t settled = 0;
    for (int round = 0; round < 2000; round++) {
        size_t size = sizes[(size_t)round % COUNT_OF(sizes)];
        void *ptr = granary_malloc(size);
        touch_ends(ptr, size);
        errno = ERRNO_MARK;
        must(granary_realloc(ptr, opaque_size(0)) == NULL);
        must(errno == ERRNO_MARK);
        ptr = granary_malloc(size);
        touch_ends(ptr, size);
        must(granary_reallocarray(ptr, opaque_size(0), 8) == NULL);
        ptr = granary_malloc(size);
        touch_ends(ptr, size);
        must(granary_reallocarr(&ptr, 8, opaque_size(0)) == 0 && ptr == NULL);
        must(errno == ERRNO_MARK);
        if (round == 200) {
            settled = rss_bytes();
        }
    }
    assert_true(rss_bytes() <= settled + 4 * MIB); /* nothing leaked */
    granary_trim();                                /* nothing was freed twice */
}

static void semantics_011_impossible_growth_leaves_the_block(void **state) {
    (void)state;
    const size_t sizes[] = {1, 100, 5000, 200000, 300000, 40 * MIB};
    const size_t too_large[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 4096, PTRDIFF_MAX, (size_t)1 << 47};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        void *ptr = filled(granary_malloc(sizes[i]), sizes[i], i);
        for (size_t k = 0; k < COUNT_OF(too_large); k++) {
            errno = 0;
            must_be_refused("realloc", too_large[k], granary_realloc(ptr, opaque_size(too_large[k])));
            must(pattern_holds(ptr, sizes[i], i));
        }
        granary_free(ptr);
    }
}

/* Grows while the system refuses everything until realloc fails; the block must be as it was. */
static void semantics_012_failing_growth_leaves_the_block(void **state) {
    (void)state;
    const int errors[] = {ENOMEM, EAGAIN, EPERM, EINVAL};
    const size_t sizes[] = {1, 1000, 100000, 400000, 3 * MIB, 40 * MIB};
    for (size_t i = 0; i < COUNT_OF(sizes) * COUNT_OF(errors); i++) {
        size_t size = sizes[i % COUNT_OF(sizes)];
        size_t wanted = size;
        void *ptr = filled(granary_malloc(size), size, i);
        void *grown = ptr;
        fault_arm(FAULT_ANY, 1, true, errors[i / COUNT_OF(sizes)]);
        while (grown != NULL) {
            ptr = grown;
            must(pattern_holds(ptr, size, i));
            must(wanted < 4 * GIB); /* memory kept from earlier may serve a while */
            wanted += 8 * MIB;
            errno = 0;
            grown = granary_realloc(ptr, wanted);
        }
        must_be_refused("realloc", wanted, grown);
        must(fault_disarm() > 0);
        must(pattern_holds(ptr, size, i));
        ptr = granary_realloc(ptr, wanted); /* and with a kind system it grows after all */
        must(ptr != NULL && pattern_holds(ptr, size, i));
        granary_free(ptr);
    }
}

/* Without memory for even a smaller block realloc keeps the old one, and each way to free it takes the size asked for last. */
static void semantics_010_a_block_kept_without_memory_is_freed_by_its_last_size(void **state) {
    (void)state;
    const size_t sizes[][2] = {{100, 20},          {1000, 100},      {100000, 600},         {200000, 1000},
                               {300000, 100},      {400000, 100000}, {11 * MIB, 176 * KIB}, {80 * MIB, 3000},
                               {80 * MIB, 3 * MIB}};
    size_t kept = 0;
    for (size_t i = 0; i < COUNT_OF(sizes) * 3; i++) {
        size_t size = sizes[i / 3][0], less = sizes[i / 3][1];
        void **held = NULL, **next;
        void *ptr = filled(granary_malloc(size), less, i);
        fault_arm(FAULT_ANY, 1, true, ENOMEM);
        for (; (next = granary_malloc(less)); held = next) /* all that is left from earlier */
            *next = held;
        void *same = granary_realloc(ptr, less);
        must(fault_disarm() > 0);
        must(same && pattern_holds(same, less, i));
        kept += same == ptr && granary_malloc_usable_size(same) != granary_nallocx(less, 0);
        if (i % 3 == 0)
            granary_free_sized(same, less);
        else if (i % 3 == 1)
            granary_sdallocx(same, less, 0);
        else
            granary_free(same);
        for (; held; held = next) {
            next = *held;
            granary_free_sized(held, less);
        }
        void *first = filled(granary_malloc(less), less, i), *second = filled(granary_malloc(size), less, i);
        must(pattern_holds(first, less, i) && pattern_holds(second, less, i));
        granary_free_sized(first, less);
        granary_free_sized(second, size);
    }
    must(kept > 0);
    granary_trim(); /* each went to its own class */
}

/* Reading past the end of a huge mapping faults where nothing follows it: a guard goes there if the place is free. */
static bool guard_after(uintptr_t start, uintptr_t end, const char *perms, void *arg) {
    (void)perms;
    if (start <= (uintptr_t)arg && (uintptr_t)arg < end) {
        __real_mmap((void *)end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        return false;
    }
    return true;
}

static void semantics_013_realloc_of_aligned_blocks(void **state) {
    (void)state;
    for (size_t alignment = 64; alignment <= 64 * MIB; alignment *= 4) {
        const size_t sizes[] = {1, 100, alignment - 1, alignment, alignment + 1, 3 * alignment};
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            size_t n = sizes[i];
            const size_t next[] = {n / 2 + 1, n + 1, 2 * n, n + 100000, n / 3 + 1};
            if (n > 128 * MIB) {
                continue;
            }
            for (size_t k = 0; k < COUNT_OF(next); k++) {
                void *ptr = granary_memalign(alignment, n);
                must(ptr != NULL);
                pattern_sprinkle(ptr, n, i);
                if (n >= 32 * MIB) {
                    visit_maps(guard_after, ptr);
                }
                ptr = granary_realloc(ptr, next[k]);
                must(ptr != NULL);
                /* the stride of the larger size may be the coarser one: check what both have */
                for (size_t at = 0; at < n && at < next[k]; at += 509) {
                    must(((unsigned char *)ptr)[at] == (unsigned char)pattern_word(i, at));
                }
                touch_ends(ptr, next[k]);
                granary_free(ptr);
            }
        }
    }
}

static void semantics_014_growth_to_the_usable_size_stays(void **state) {
    (void)state;
    struct grid *grid = grid_up_to(40 * MIB);
    for (size_t i = 0; i < grid->count; i++) {
        void *ptr = granary_malloc(grid->sizes[i]);
        size_t usable = granary_malloc_usable_size(ptr);
        if (usable == 0) { /* of 0 bytes asked for, in the hardened build: realloc would free it */
            granary_free(ptr);
            continue;
        }
        pattern_sprinkle(ptr, usable, i);
        void *same = granary_realloc(ptr, usable);
        must(same != NULL && pattern_sprinkled(same, usable, i));
        granary_free(same);
    }
}

static void semantics_015_ping_pong_between_small_and_huge(void **state) {
    (void)state;
    const size_t sizes[] = {64, 300000, 100, 2 * MIB, 5000, 40 * MIB};
    void *ptr = filled(granary_malloc(64), 64, 15);
    size_t settled = 0;
    for (int i = 0; i < (STRESS_SLOW ? 10 : 100) * 1000; i++) {
        /* the dear ones seldom */
        size_t size = sizes[(size_t)i % (i % 16 ? 4 : COUNT_OF(sizes))];
        ptr = granary_realloc(ptr, size);
        must(ptr != NULL && pattern_holds(ptr, 64, 15));
        ((unsigned char *)ptr)[size - 1] = size > 64 ? 1 : ((unsigned char *)ptr)[size - 1];
        if (i == 2000) {
            settled = rss_bytes();
        }
    }
    assert_true(rss_bytes() <= settled + 16 * MIB);
    granary_free(ptr);
}

static void semantics_016_reallocarray_and_reallocarr(void **state) {
    (void)state;
    void *ptr = filled(granary_malloc(1000), 1000, 16);
    errno = 0;
    must_be_refused("reallocarray", 2, granary_reallocarray(ptr, opaque_size(SIZE_MAX / 2 + 1), 2));
    must(pattern_holds(ptr, 1000, 16));
    void *before = ptr;
    errno = ERRNO_MARK;
    assert_int_equal(granary_reallocarr(&ptr, opaque_size(SIZE_MAX / 2 + 1), 2), EOVERFLOW);
    assert_int_equal(granary_reallocarr(&ptr, opaque_size(SIZE_MAX), SIZE_MAX), EOVERFLOW);
    assert_ptr_equal(ptr, before);
    assert_int_equal(granary_reallocarr(&ptr, 1, opaque_size(SIZE_MAX)), ENOMEM);
    assert_int_equal(granary_reallocarr(&ptr, opaque_size(PTRDIFF_MAX), 1), ENOMEM);
    assert_ptr_equal(ptr, before);
    assert_int_equal(errno, ERRNO_MARK);
    must(pattern_holds(ptr, 1000, 16));
    assert_int_equal(granary_reallocarr(&ptr, 1000, 30), 0);
    must(pattern_holds(ptr, 1000, 16));
    ptr = granary_reallocarray(ptr, 250, 2);
    must(ptr != NULL && pattern_holds(ptr, 500, 16));
    assert_int_equal(granary_reallocarr(&ptr, 0, SIZE_MAX), 0);
    assert_null(ptr);
    assert_int_equal(granary_reallocarr(&ptr, 3, 5), 0);
    assert_non_null(ptr);
    granary_free(ptr);
    assert_int_equal(errno, ERRNO_MARK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_009_realloc_keeps_the_common_prefix),
        cmocka_unit_test(semantics_009_realloc_grows_step_by_step),
        cmocka_unit_test(semantics_010_realloc_to_zero_frees),
        cmocka_unit_test(semantics_010_a_block_kept_without_memory_is_freed_by_its_last_size),
        cmocka_unit_test(semantics_011_impossible_growth_leaves_the_block),
        cmocka_unit_test(semantics_012_failing_growth_leaves_the_block),
        cmocka_unit_test(semantics_013_realloc_of_aligned_blocks),
        cmocka_unit_test(semantics_014_growth_to_the_usable_size_stays),
        cmocka_unit_test(semantics_015_ping_pong_between_small_and_huge),
        cmocka_unit_test(semantics_016_reallocarray_and_reallocarr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
