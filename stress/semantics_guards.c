/* semantics_guards.c -- sampled guards as a program meets them: how often a block is guarded, that every call takes one for a
 * block like any other, and that without the option there are none. The crimes are in misuse_guards.c.
 *
 * covers: S135
 */
/* test: env="GRANARY_GUARDS=1" hardened=off */
/* test: name=rare env="GRANARY_GUARDS=1000" args="1000" hardened=off */
/* test: name=none args="0" hardened=off */
/* test: name=ignored env="GRANARY_GUARDS=1" args="0" hardened=only */
#include "test.h"

#include <granary.h>

static unsigned long one_in;

/* Its usable bytes are those that were asked for; a common block of so many has at least one more. */
static bool is_guarded(const void *ptr, size_t size) {
    return !GRANARY_HARDENED && granary_malloc_usable_size(ptr) == size;
}

/* Blocks that no free block in the thread's own cache serves: a batch far larger than that. */
static size_t guarded_of(size_t blocks) {
    enum { BATCH = 20000 };
    static void *batch[BATCH];
    size_t guarded = 0;
    for (size_t done = 0; done < blocks; done += BATCH) {
        for (size_t i = 0; i < BATCH; i++) {
            batch[i] = granary_malloc(50 + 16 * (i % 4));
            guarded += is_guarded(batch[i], 50 + 16 * (i % 4));
        }
        for (size_t i = 0; i < BATCH; i++) {
            granary_free(batch[i]);
        }
    }
    return guarded;
}

static void *guarded_in_thread(void *sum) {
    *(size_t *)sum = guarded_of(200 * 1000);
    return NULL;
}

static void one_in_so_many_is_guarded(void **state) {
    (void)state;
    size_t blocks = 2000 * 1000, guarded = guarded_of(blocks);
    if (one_in == 0)
        assert_int_equal(guarded, 0);
    else if (one_in > 1) /* what comes from the cache is not counted: a 20th here. 10 standard deviations */
        assert_in_range(guarded, blocks / one_in * 8 / 10, blocks / one_in * 11 / 10);
    else
        assert_true(guarded > 1000);
    size_t there = 0;
    in_thread(guarded_in_thread, &there);
    assert_true(one_in == 0 ? there == 0 : there > 200 * 1000 / one_in / 1000);
}

static void *guarded_block(size_t size, void *(*get)(size_t)) {
    for (;;) { /* those that are not stay: they would come back */
        char *ptr = get(size);
        must(ptr != NULL);
        if (is_guarded(ptr, size))
            return ptr;
    }
}

static void *get_malloc(size_t size) { return granary_malloc(size); }
static void *get_calloc(size_t size) {
    char *ptr = granary_calloc(1, size);
    must(ptr && all_bytes_are(ptr, granary_malloc_usable_size(ptr), 0));
    memset(ptr, 1, size);
    return ptr;
}
static void *get_realloc(size_t size) { /* out of another class: the new block is a miss of its own */
    char *ptr = granary_malloc(3 * size + 100);
    must(ptr != NULL);
    pattern_fill(ptr, 3 * size + 100, size);
    ptr = granary_realloc(ptr, size);
    must(ptr && pattern_holds(ptr, size, size));
    return ptr;
}
static void *get_aligned(size_t size) {
    char *ptr = granary_aligned_alloc(256, size);
    must(ptr && is_aligned(ptr, 256));
    return ptr;
}
static void *get_memalign(size_t size) {
    void *ptr = NULL;
    must(granary_posix_memalign(&ptr, 64, size) == 0 && is_aligned(ptr, 64));
    return ptr;
}

static void *free_it(void *ptr) {
    granary_free(ptr);
    return NULL;
}

static int free_in_child(void *ptr) {
    granary_free(ptr);
    granary_free(guarded_block(1000, get_malloc));
    return 0;
}

static void every_call_takes_a_guarded_block(void **state) {
    (void)state;
    static void *(*const gets[])(size_t) = {get_malloc, get_calloc, get_realloc, get_aligned, get_memalign};
    static const size_t sizes[] = {1, 17, 49, 100, 1000, 2049, 4000};
    if (one_in != 1)
        return;
    for (size_t g = 0; g < COUNT_OF(gets); g++)
        for (size_t s = 0; s < COUNT_OF(sizes); s++) {
            size_t n = sizes[s];
            granary_free(guarded_block(n, gets[g]));
            in_thread(free_it, guarded_block(n, gets[g]));
            char *ptr = guarded_block(n, gets[g]);
            must_end_well(in_child(free_in_child, ptr, 30), "child");
            pattern_fill(ptr, n, n);
            ptr = granary_realloc(ptr, 3 * n);
            assert_true(ptr && pattern_holds(ptr, n, n));
            granary_free(ptr);
            ptr = guarded_block(n, gets[g]);
            pattern_fill(ptr, n, n);
            ptr = granary_realloc(ptr, (n + 1) / 2);
            assert_true(ptr && pattern_holds(ptr, (n + 1) / 2, n));
            granary_free(ptr);
            assert_null(granary_realloc(guarded_block(n, gets[g]), 0));
            size_t align = gets[g] == get_aligned ? 256 : gets[g] == get_memalign ? 64 : 16;
            granary_free_aligned_sized(guarded_block(n, gets[g]), align, n);
            granary_sdallocx(guarded_block(n, gets[g]), n, __builtin_ctzl(align));
            if (align == 16) {
                granary_free_sized(guarded_block(n, gets[g]), n);
                granary_sdallocx(guarded_block(n, gets[g]), granary_nallocx(n, 0), 0); /* as jemalloc has it */
            }
        }
}

static void statistics_count_guarded_pages(void **state) {
    (void)state;
    struct granary_stats before, after;
    if (one_in != 1)
        return;
    granary_free(guarded_block(1000, get_malloc));
    granary_get_stats(&before);
    void *ptr = guarded_block(1000, get_malloc);
    granary_get_stats(&after);
    assert_int_equal((after.used_bytes - before.used_bytes) % (64 * KIB), sysconf(_SC_PAGESIZE)); /* beside slabs */
    granary_free(ptr);
}

/* All slots live: the program goes on without. */
static void no_more_than_so_many_live(void **state) {
    (void)state;
    enum { MANY = 200 * 1000 };
    static void *many[MANY];
    size_t guarded = 0;
    if (one_in != 1)
        return;
    for (size_t i = 0; i < MANY; i++) {
        many[i] = granary_malloc(100);
        assert_non_null(many[i]);
        guarded += is_guarded(many[i], 100);
    }
    assert_int_equal(guarded, 256);
    for (size_t i = 0; i < MANY; i++)
        granary_free(many[i]);
}

int main(int argc, char **argv) {
    one_in = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_in_so_many_is_guarded),
        cmocka_unit_test(every_call_takes_a_guarded_block),
        cmocka_unit_test(statistics_count_guarded_pages),
        cmocka_unit_test(no_more_than_so_many_live),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
