/* override_semantics.c -- the libc names: all of them are ours, and they keep what libc promises.
 * covers: S2 S3 S10 S17 S20 S21 S22 S23 S24 S25 S26 S28 S30
 */
#include "test.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdalign.h>

static const char *const names[] = {
    "malloc",
    "free",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "malloc_usable_size",
    "free_sized",
    "free_aligned_sized",
    "malloc_trim",
};

/* One of them from elsewhere would hand out foreign pointers. */
static void semantics_025_all_names_come_from_one_place(void **state) {
    (void)state;
    Dl_info first, info;
    if (strcmp(STRESS_VARIANT, "archive") == 0) {
        skip(); /* an executable does not show its symbols */
    }
    assert_true(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &first) != 0);
    assert_non_null(strstr(first.dli_fname, "libgranary"));
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        void *at = dlsym(RTLD_DEFAULT, names[i]);
        if (at == NULL || dladdr(at, &info) == 0 || strcmp(info.dli_fname, first.dli_fname) != 0) {
            fail_msg("%s is not ours", names[i]);
        }
    }
}

static void semantics_002_010_zero_bytes(void **state) {
    (void)state;
    void *first = opaque(malloc(0));
    void *second = opaque(malloc(0));
    assert_non_null(first);
    assert_non_null(second);
    assert_ptr_not_equal(first, second);
    errno = 4242;
    assert_null(realloc(first, opaque_size(0)));
    free(second);
    free(NULL);
    assert_int_equal(errno, 4242);
}

static void semantics_017_impossible_sizes(void **state) {
    (void)state;
    for (size_t k = 0; k < 1000; k++) {
        size_t size = opaque_size(SIZE_MAX - k);
        errno = 0;
        must(malloc(size) == NULL && errno == ENOMEM);
        errno = 0;
        must(calloc(size, 1) == NULL && errno == ENOMEM);
        errno = 0;
        must(calloc(size, 16) == NULL && errno == ENOMEM);
        errno = 0;
        must(reallocarray(NULL, size, 2) == NULL && errno == ENOMEM);
        errno = 0;
        must(pvalloc(size) == NULL && errno == ENOMEM);
        errno = 0;
        must(memalign(64, size) == NULL && errno == ENOMEM);
    }
}

static void semantics_020_024_alignments(void **state) {
    (void)state;
    for (size_t alignment = sizeof(void *); alignment <= 4 * MIB; alignment *= 2) {
        void *out = NULL;
        void *aligned = aligned_alloc(alignment, 100);
        must(posix_memalign(&out, alignment, 100) == 0);
        must(aligned != NULL && is_aligned(opaque(aligned), alignment) && is_aligned(out, alignment));
        free(aligned);
        free(out);
    }
    errno = 0;
    assert_null(aligned_alloc(opaque_size(3), 100));
    assert_int_equal(errno, EINVAL);
    void *plain = opaque(malloc(24));
    assert_true(is_aligned(plain, alignof(max_align_t)));
    free(plain);
}

static void semantics_026_usable_size(void **state) {
    (void)state;
    assert_int_equal(malloc_usable_size(NULL), 0);
    for (size_t n = 0; n < 3000; n += 7) {
        void *ptr = malloc(n);
        size_t usable = malloc_usable_size(ptr);
        must(usable >= n);
        memset(opaque(ptr), 0x5a, usable);
        free(ptr);
    }
}

/* What libc itself allocates is ours too, and may be freed by us. */
static void semantics_025_memory_from_libc(void **state) {
    (void)state;
    for (int i = 0; i < 100; i++) {
        char *line = NULL;
        size_t room = 0;
        FILE *file = fopen("/proc/self/status", "r");
        assert_non_null(file);
        while (getline(&line, &room, file) > 0) {
        }
        fclose(file);
        free(line);
        char *printed = NULL;
        assert_true(asprintf(&printed, "%*d", 500, i) == 500);
        assert_true(malloc_usable_size(printed) >= 501);
        free(printed);
        free(strdup("a copy"));
        free(realpath("/proc/self", NULL));
    }
}

static void *inspect_in_a_thread(void *stream) {
    for (int i = 0; i < 20; i++) {
        void *ptr = malloc((size_t)i * 1000);
        mallopt(M_MMAP_THRESHOLD, 1 << 20);
        struct mallinfo2 info = mallinfo2();
        must(info.uordblks <= info.arena + info.hblkhd || info.arena == 0);
        malloc_info(0, stream);
        malloc_trim(0);
        free(ptr);
    }
    return NULL;
}

static void semantics_030_inspection_calls_return(void **state) {
    (void)state;
    pthread_t threads[4];
    FILE *stream = fopen("/dev/null", "w");
    assert_non_null(stream);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        must(pthread_create(&threads[i], NULL, inspect_in_a_thread, stream) == 0);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    fclose(stream);
}

static int print_stats(void *unused) {
    (void)unused;
    free(opaque(malloc(100)));
    malloc_stats();
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    struct mallinfo info = mallinfo();
#pragma GCC diagnostic pop
    return info.arena < 0 ? 1 : 0;
}

static void semantics_030_stats_go_to_stderr(void **state) {
    (void)state;
    struct ending ending = in_child(print_stats, NULL, 20);
    must_end_well(ending, "malloc_stats");
    assert_true(ending.length > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_025_all_names_come_from_one_place),
        cmocka_unit_test(semantics_002_010_zero_bytes),
        cmocka_unit_test(semantics_017_impossible_sizes),
        cmocka_unit_test(semantics_020_024_alignments),
        cmocka_unit_test(semantics_026_usable_size),
        cmocka_unit_test(semantics_025_memory_from_libc),
        cmocka_unit_test(semantics_030_inspection_calls_return),
        cmocka_unit_test(semantics_030_stats_go_to_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
