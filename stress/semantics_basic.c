/* semantics_basic.c -- what every block is: there, aligned, apart from all others, zero where promised, freed by
 * every call that frees.
 *
 * covers: S1 S2 S3 S5 S6 S7 S26 S27 S30 S132 C14
 */
/* test: timeout=120 */
#include "semantics_calls.h"

#include <search.h>

enum { BATCH = 64 };

/* ---- the interval oracle: a tree of live blocks in which two that overlap compare as equal ---- */

struct interval {
    uintptr_t start, end;
};

static int compare_intervals(const void *left, const void *right) {
    const struct interval *a = left;
    const struct interval *b = right;
    return a->end <= b->start ? -1 : b->end <= a->start ? 1 : 0;
}

static void oracle_insert(void **oracle, struct interval *interval, void *ptr, size_t size) {
    interval->start = (uintptr_t)ptr;
    interval->end = interval->start + (size ? size : 1);
    must(*(struct interval **)tsearch(interval, oracle, compare_intervals) == interval);
}

static void oracle_remove(void **oracle, struct interval *interval) {
    must(tdelete(interval, oracle, compare_intervals) != NULL);
}

static void semantics_001_blocks_are_aligned_writable_and_apart(void **state) {
    (void)state;
    struct grid *grid = grid_up_to(1 * GIB);
    static struct interval intervals[COUNT_OF(grid->sizes)];
    static void *blocks[COUNT_OF(grid->sizes)];
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        void *oracle = NULL;
        for (size_t i = 0; i < grid->count; i++) {
            size_t n = grid->sizes[i];
            blocks[i] = opaque(calls[c].alloc(n));
            if (n == 0 && calls[c].null_for_zero) {
                must(blocks[i] == NULL);
                continue;
            }
            must(blocks[i] != NULL);
            must(is_aligned(blocks[i], calls[c].alignment));
            touch_ends(blocks[i], n);
            oracle_insert(&oracle, &intervals[i], blocks[i], n);
        }
        for (size_t i = 0; i < grid->count; i++) {
            if (blocks[i] != NULL) {
                oracle_remove(&oracle, &intervals[i]);
                granary_free(blocks[i]);
            }
        }
        must(oracle == NULL);
    }
}

static void semantics_002_zero_bytes_give_unique_blocks(void **state) {
    (void)state;
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        if (calls[c].null_for_zero) {
            continue;
        }
        void *first = opaque(calls[c].alloc(0));
        void *second = opaque(calls[c].alloc(0));
        assert_non_null(first);
        assert_non_null(second);
        assert_ptr_not_equal(first, second);
        granary_free(first);
        granary_free(second);
    }
}

static void semantics_003_free_of_null_does_nothing(void **state) {
    (void)state;
    errno = ERRNO_MARK;
    granary_free(NULL);
    granary_free_sized(NULL, 100);
    granary_free_aligned_sized(NULL, 64, 100);
    granary_sdallocx(NULL, 100, 0);
    assert_int_equal(errno, ERRNO_MARK);
}

/* ---- S5: random calls against the oracle ---- */

struct live {
    struct interval interval;
    unsigned char *ptr;
    size_t size;
};

static uint64_t pattern_of(const struct live *live) { return mix((uint64_t)(uintptr_t)live->ptr + live->size); }

static void live_begin(void **oracle, struct live *live, void *ptr, size_t size) {
    must(ptr != NULL);
    live->ptr = ptr;
    live->size = size;
    oracle_insert(oracle, &live->interval, ptr, granary_malloc_usable_size(ptr));
    pattern_fill(ptr, size, pattern_of(live));
}

static void live_check(void **oracle, struct live *live) {
    must(pattern_holds(live->ptr, live->size, pattern_of(live)));
    oracle_remove(oracle, &live->interval);
}

static void live_resize(void **oracle, struct live *live, size_t size) {
    uint64_t seed = pattern_of(live);
    size_t kept = live->size < size ? live->size : size;
    live_check(oracle, live);
    void *moved = granary_realloc(live->ptr, size);
    live->ptr = NULL;
    if (size > 0) {
        must(pattern_holds(moved, kept, seed));
        live_begin(oracle, live, moved, size);
    } else {
        must(moved == NULL);
    }
}

static void semantics_005_contents_survive_random_calls(void **state) {
    (void)state;
    enum { SLOTS = 4096, CALLS = (STRESS_SLOW ? 200 : 2000) * 1000 };
    static struct live slots[SLOTS];
    struct rng rng = rng_for(5);
    void *oracle = NULL;
    for (int i = 0; i < CALLS; i++) {
        struct live *live = &slots[rng_below(&rng, SLOTS)];
        size_t choice = rng_below(&rng, 16 * 1024);
        /* mostly small; 1 call in 100 up to 512 KiB, 1 in 3000 up to 8 MiB, now and then above the region */
        size_t size = rng_size(&rng, choice > 160 ? 11 : choice > 5 ? 19 : choice ? 23 : 26);
        if (live->ptr != NULL && choice % 4 == 0) {
            live_resize(&oracle, live, size);
            continue;
        }
        if (live->ptr != NULL) {
            live_check(&oracle, live);
            granary_free(live->ptr);
            live->ptr = NULL;
        }
        if (choice % 3 != 0) {
            const struct call *call = &calls[choice % 32 ? choice % 2 : choice / 32 % COUNT_OF(calls)];
            if (size > 0) {
                live_begin(&oracle, live, call->alloc(size), size);
            }
        }
    }
    for (int i = 0; i < SLOTS; i++) {
        if (slots[i].ptr != NULL) {
            live_check(&oracle, &slots[i]);
            granary_free(slots[i].ptr);
            slots[i].ptr = NULL;
        }
    }
    must(oracle == NULL);
}

/* ---- S6, S7: calloc ---- */

struct dirty {
    size_t size;
    size_t count;
    unsigned char *blocks[BATCH];
};

static void dirty_alloc(struct dirty *dirty, size_t size) {
    dirty->size = size;
    dirty->count = size <= 4 * KIB ? BATCH : size <= 64 * KIB ? 12 : size <= 300 * KIB ? 4 : 2;
    for (size_t i = 0; i < dirty->count; i++) {
        dirty->blocks[i] = granary_malloc(size);
        must(dirty->blocks[i] != NULL);
        memset(dirty->blocks[i], 0xff, granary_malloc_usable_size(dirty->blocks[i]));
    }
}

static void *dirty_free(void *arg) {
    struct dirty *dirty = arg;
    for (size_t i = 0; i < dirty->count; i++) {
        granary_free(dirty->blocks[i]);
    }
    return NULL;
}

static void *dirty_alloc_and_free(void *arg) {
    struct dirty *dirty = arg;
    dirty_alloc(dirty, dirty->size);
    return dirty_free(dirty);
}

static void must_calloc_zero(struct dirty *dirty) {
    for (size_t i = 0; i < dirty->count; i++) {
        dirty->blocks[i] = granary_calloc(1, dirty->size);
        must(dirty->blocks[i] != NULL);
        must(all_bytes_are(dirty->blocks[i], granary_malloc_usable_size(dirty->blocks[i]), 0));
    }
    dirty_free(dirty);
}

/* What became of the dirty memory before calloc asks for it. In BESIDE_ONE a block stays, so that its slab outlives the
 * trim with dirty blocks in it; in OTHER_SIZE it was a larger block that is cut anew. */
enum aftermath { FREED, FREED_BY_OTHER, THREAD_GONE, TRIMMED, TRIMMED_TWICE, BESIDE_ONE, OTHER_SIZE, AFTERMATHS };

static void semantics_006_007_calloc_is_zero_to_the_usable_size(void **state) {
    (void)state;
    static struct dirty dirty;
    struct grid *grid = grid_up_to(64 * MIB);
    for (int after = FREED; after < AFTERMATHS; after++) {
        for (size_t i = 0; i < grid->count; i++) {
            size_t size = grid->sizes[i];
            /* where a call costs milliseconds, one of three neighbours will do */
            if (size == 0 || (size > 512 * KIB && i % 3 != 2) || (after > FREED && i % 3 == 1)) {
                continue;
            }
            void *stays = after == BESIDE_ONE ? granary_malloc(size) : NULL;
            dirty.size = size;
            if (after == THREAD_GONE) {
                in_thread(dirty_alloc_and_free, &dirty);
            } else {
                dirty_alloc(&dirty, after == OTHER_SIZE ? size * 4 + 300000 : size);
                after == FREED_BY_OTHER ? in_thread(dirty_free, &dirty) : (void)dirty_free(&dirty);
                dirty.size = size;
            }
            if (after == TRIMMED || after == TRIMMED_TWICE || after == BESIDE_ONE) {
                granary_trim();
            }
            if (after == TRIMMED_TWICE) { /* purged, dirtied again, purged again */
                dirty_alloc(&dirty, size / 2 + 1);
                dirty_free(&dirty);
                granary_trim();
                dirty.size = size;
            }
            must_calloc_zero(&dirty);
            granary_free(stays);
        }
    }
}

/* The part that realloc added in place was clean before, and is dirty now. */
static void semantics_006_calloc_is_zero_where_realloc_grew(void **state) {
    (void)state;
    for (size_t size = 600000; size <= 80 * MIB; size += size / 2) {
        granary_trim();
        unsigned char *ptr = granary_malloc(size / 2);
        ptr = granary_realloc(ptr, size);
        must(ptr != NULL);
        memset(ptr, 0xff, size);
        granary_free(ptr);
        ptr = granary_calloc(1, size);
        must(ptr != NULL && all_bytes_are(ptr, granary_malloc_usable_size(ptr), 0));
        granary_free(ptr);
    }
}

/* ---- S26, S27: the usable size, sized frees ---- */

static void semantics_026_usable_size_is_stable_and_harmless(void **state) {
    (void)state;
    assert_int_equal(granary_malloc_usable_size(NULL), 0);
    struct grid *grid = grid_up_to(2 * MIB);
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        for (size_t i = 0; i < grid->count; i++) {
            void *blocks[3];
            size_t usable[3];
            size_t n = grid->sizes[i];
            if ((n == 0 && calls[c].null_for_zero) || (n > 64 * KIB && i % 3 != c % 3)) {
                continue;
            }
            for (int k = 0; k < 3; k++) {
                blocks[k] = calls[c].alloc(n);
                must(blocks[k] != NULL);
                usable[k] = granary_malloc_usable_size(blocks[k]);
                must(usable[k] >= n);
                pattern_sprinkle(blocks[k], usable[k], mix(n + (size_t)k));
            }
            for (int k = 0; k < 3; k++) {
                must(pattern_sprinkled(blocks[k], usable[k], mix(n + (size_t)k)));
                must(granary_malloc_usable_size(blocks[k]) == usable[k]);
                granary_free(blocks[k]);
            }
        }
    }
}

static void semantics_026_nallocx_foretells_the_usable_size(void **state) {
    (void)state;
    struct grid *grid = grid_up_to(1 * GIB);
    for (size_t i = 0; i < grid->count; i++) {
        void *ptr = granary_malloc(grid->sizes[i]);
        must(granary_malloc_usable_size(ptr) == granary_nallocx(grid->sizes[i], 0));
        granary_free(ptr);
    }
    assert_int_equal(granary_nallocx(SIZE_MAX, 0), 0);
    assert_int_equal(granary_nallocx((size_t)PTRDIFF_MAX + 1, 0), 0);
    assert_int_equal(granary_nallocx(1, 63), 0);
}

/* realloc may leave a block where it is; the size it was asked for last is the right one all the same. */
static void free_sized_after_realloc(void *ptr, size_t n, size_t divisor) {
    size_t last = n / divisor + 1;
    granary_free_sized(granary_realloc(ptr, last), last);
}

static void semantics_027_sized_frees_accept_what_was_asked_for(void **state) {
    (void)state;
    struct grid *grid = grid_up_to(64 * MIB);
    for (size_t i = 0; i < grid->count; i++) {
        size_t n = grid->sizes[i];
        granary_free_sized(granary_malloc(n), n);
        granary_free_sized(granary_calloc(1, n), n);
        granary_free_sized(granary_realloc(granary_malloc(n / 2), n + 1), n + 1);
        free_sized_after_realloc(granary_malloc(n), n, 2);
        free_sized_after_realloc(granary_malloc(n), n + n / 9, 1);
        for (size_t tenths = 11; tenths < 20; tenths += 2) {
            size_t less = n / tenths * 10 + 1;
            granary_free_sized(granary_realloc(granary_malloc(n), less), less);
        }
        free_sized_after_realloc(granary_aligned_alloc(4096, n), n, 1);
        granary_sdallocx(granary_malloc(n), n, 0);
        granary_sdallocx(granary_malloc(n), granary_nallocx(n, 0), 0);
        for (int shift = 0; shift <= 22; shift += n > 256 * KIB ? 7 : 2) {
            size_t alignment = (size_t)1 << shift;
            granary_free_aligned_sized(granary_aligned_alloc(alignment, n), alignment, n);
            granary_sdallocx(granary_aligned_alloc(alignment, n), n, shift);
        }
    }
    granary_trim(); /* what was noted wrongly would be found here */
}

/* ---- S30 ---- */

static void *inspect_often(void *arg) {
    int fd = *(int *)arg;
    for (int i = 0; i < 200; i++) {
        struct granary_stats stats;
        void *held[16];
        for (size_t k = 0; k < COUNT_OF(held); k++) {
            held[k] = granary_malloc((size_t)i * 97 + k);
        }
        granary_get_stats(&stats);
        must(stats.used_bytes <= stats.mapped_bytes);
        must(stats.threads >= 1);
        if (i % 50 == 0) {
            granary_print_stats(fd);
            granary_trim();
            granary_malloc_trim(MIB);
        }
        for (size_t k = 0; k < COUNT_OF(held); k++) {
            granary_free(held[k]);
        }
    }
    return NULL;
}

static void semantics_030_inspection_works_in_threads(void **state) {
    (void)state;
    pthread_t threads[8];
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        must(pthread_create(&threads[i], NULL, inspect_often, &fd) == 0);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    close(fd);
    granary_print_stats(-1);
    assert_string_equal(granary_version(), "0.1.0");
}

/* ---- S132 ---- */

static struct granary_stats figures(void) {
    struct granary_stats stats;
    granary_get_stats(&stats);
    return stats;
}

static void semantics_132_figures_of_large_and_huge_blocks_are_exact(void **state) {
    (void)state;
    static const size_t sizes[] = {300000, 5 * MIB, 64 * MIB, 65 * MIB, 200 * MIB + 1};
    granary_trim();
    struct granary_stats before = figures();
    void *blocks[COUNT_OF(sizes)];
    size_t used = 0, huge = 0, guards = 0;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        blocks[i] = granary_malloc(sizes[i]);
        used += granary_malloc_usable_size(blocks[i]);
        huge += sizes[i] > 64 * MIB ? granary_malloc_usable_size(blocks[i]) : 0;
        guards += GRANARY_HARDENED ? 128 * KIB
                                   : 0; /* and what is left of the last granule: usable bytes are those asked for */
        assert_in_range(figures().used_bytes - before.used_bytes, used, used + guards);
        assert_in_range(figures().huge_bytes - before.huge_bytes, huge, huge + guards);
    }
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        granary_free(blocks[i]);
    if (GRANARY_HARDENED) /* which holds freed addresses back for a while */
        return;
    assert_int_equal(figures().used_bytes, before.used_bytes);
    assert_int_equal(figures().huge_bytes, before.huge_bytes);
}

static void semantics_132_figures_of_small_blocks_follow_what_lives(void **state) {
    (void)state;
    enum { BLOCKS = 20000, BYTES = 1000 };
    static void *blocks[BLOCKS];
    granary_trim();
    struct granary_stats before = figures();
    for (size_t i = 0; i < BLOCKS; i++)
        blocks[i] = granary_malloc(BYTES);
    size_t live = BLOCKS * granary_malloc_usable_size(blocks[0]), used = figures().used_bytes - before.used_bytes;
    assert_in_range(used, live, live + live / 8);
    for (size_t i = 0; i < BLOCKS; i++)
        granary_free(blocks[i]);
    assert_in_range(figures().cached_bytes, 1, figures().used_bytes);
    granary_trim();
    assert_int_equal(figures().cached_bytes, 0);
    assert_in_range(figures().used_bytes, 0, before.used_bytes + MIB);
}

static pthread_barrier_t all_born, all_counted;

static void *live_and_wait(void *unused) {
    (void)unused;
    granary_free(granary_malloc(100));
    pthread_barrier_wait(&all_born);
    pthread_barrier_wait(&all_counted);
    return NULL;
}

static void semantics_132_threads_are_counted(void **state) {
    (void)state;
    pthread_t threads[16];
    size_t before = figures().threads;
    pthread_barrier_init(&all_born, NULL, COUNT_OF(threads) + 1);
    pthread_barrier_init(&all_counted, NULL, COUNT_OF(threads) + 1);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        must(pthread_create(&threads[i], NULL, live_and_wait, NULL) == 0);
    pthread_barrier_wait(&all_born);
    assert_int_equal(figures().threads, before + COUNT_OF(threads));
    pthread_barrier_wait(&all_counted);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        must(pthread_join(threads[i], NULL) == 0);
    assert_int_equal(figures().threads, before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_001_blocks_are_aligned_writable_and_apart),
        cmocka_unit_test(semantics_002_zero_bytes_give_unique_blocks),
        cmocka_unit_test(semantics_003_free_of_null_does_nothing),
        cmocka_unit_test(semantics_005_contents_survive_random_calls),
        cmocka_unit_test(semantics_006_007_calloc_is_zero_to_the_usable_size),
        cmocka_unit_test(semantics_006_calloc_is_zero_where_realloc_grew),
        cmocka_unit_test(semantics_026_usable_size_is_stable_and_harmless),
        cmocka_unit_test(semantics_026_nallocx_foretells_the_usable_size),
        cmocka_unit_test(semantics_027_sized_frees_accept_what_was_asked_for),
        cmocka_unit_test(semantics_030_inspection_works_in_threads),
        cmocka_unit_test(semantics_132_figures_of_large_and_huge_blocks_are_exact),
        cmocka_unit_test(semantics_132_figures_of_small_blocks_follow_what_lives),
        cmocka_unit_test(semantics_132_threads_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
