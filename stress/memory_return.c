/* memory_return.c -- memory that was freed goes back, and what is kept stays bounded.
 * covers: S30 S101 S103 S104 S105 C6 C14
 */
/* test: sanitize=off timeout=120 serial=on */
#include "semantics_calls.h"

enum { BLOCKS = 200 * 1000, IDLE_SECONDS = 10 };

static void *blocks[BLOCKS];

/* About 150 MiB in sizes that servers use. */
static size_t size_of_block(size_t i) { return i % 1000 == 0 ? 200000 : i % 100 == 0 ? 20000 : 16 + mix(i) % 700; }

static void *allocate_all(void *unused) {
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = granary_malloc(size_of_block(i));
        must(blocks[i] != NULL);
        memset(blocks[i], 0x5a, size_of_block(i));
    }
    return unused;
}

static void *free_all(void *unused) {
    for (size_t i = 0; i < BLOCKS; i++) {
        granary_free(blocks[i]);
    }
    return unused;
}

enum coda { TRIM, TRICKLE }; /* after the load: a trim, a few calls a second */

/* What the load leaves behind when it is over. */
static bool comes_to_rest(size_t limit, enum coda coda) {
    double deadline = seconds_now() + IDLE_SECONDS;
    while (rss_bytes() > limit && seconds_now() < deadline) {
        usleep(100 * 1000);
        if (coda == TRICKLE) {
            granary_free(granary_malloc(300000));
        }
    }
    return rss_bytes() <= limit;
}

static int rest_after(void *(*make)(void *), bool make_in_thread, void *(*unmake)(void *), bool unmake_in_thread,
                      enum coda coda) {
    memset(blocks, 0, sizeof blocks); /* our own pages are not the heap's */
    granary_free(granary_malloc(1));
    size_t before = rss_bytes();
    make_in_thread ? in_thread(make, NULL) : (void)make(NULL);
    must(unmake == NULL || rss_bytes() > before + 60 * MIB);
    if (unmake) {
        unmake_in_thread ? in_thread(unmake, NULL) : (void)unmake(NULL);
    }
    if (coda == TRIM) {
        granary_trim();
        must(rss_bytes() <= before + 8 * MIB);
    }
    if (!comes_to_rest(before + 8 * MIB, coda)) {
        fprintf(stderr, "%zu MiB before, %zu MiB at rest\n", before / MIB, rss_bytes() / MIB);
        return 1;
    }
    return 0;
}

static int own_thread_trimmed(void *unused) {
    (void)unused;
    return rest_after(allocate_all, false, free_all, false, TRIM);
}

static int other_thread_trimmed(void *unused) {
    (void)unused;
    return rest_after(allocate_all, false, free_all, true, TRIM);
}

static int own_thread_trickle(void *unused) {
    (void)unused;
    return rest_after(allocate_all, false, free_all, false, TRICKLE);
}

static void semantics_101_trim_returns_what_the_thread_freed(void **state) {
    (void)state;
    must_end_well(in_child(own_thread_trimmed, NULL, 60), "own thread, trimmed");
}

static void semantics_101_trim_returns_what_others_freed(void **state) {
    (void)state;
    must_end_well(in_child(other_thread_trimmed, NULL, 60), "other thread, trimmed");
}

static void semantics_101_a_few_calls_return_the_rest(void **state) {
    (void)state;
    must_end_well(in_child(own_thread_trickle, NULL, 60), "own thread, a few calls");
}

static int keep_a_pad(void *unused) {
    enum { LARGE = 64 };
    (void)unused;
    size_t before = rss_bytes();
    for (size_t i = 0; i < LARGE; i++) {
        blocks[i] = granary_malloc(MIB);
        memset(blocks[i], 0x5a, MIB);
    }
    for (size_t i = 0; i < LARGE; i++) {
        granary_free(blocks[i]);
    }
    if (GRANARY_HARDENED) { /* a freed large block keeps no page */
        must(rss_bytes() <= before + 4 * MIB);
        return 0;
    }
    must(granary_malloc_trim(16 * MIB) == 1);
    must(rss_bytes() >= before + 12 * MIB && rss_bytes() <= before + 20 * MIB);
    must(granary_trim() == 1);
    must(rss_bytes() <= before + 4 * MIB);
    must(granary_trim() == 0);
    return 0;
}

static void semantics_030_trim_keeps_about_the_pad(void **state) {
    (void)state;
    must_end_well(in_child(keep_a_pad, NULL, 60), "malloc_trim(16 MiB)");
}

/* ---- 103 ---- */

static void *churn(void *arg) {
    enum { SLOTS = 2000, CALLS = 100 * 1000 };
    struct rng rng = rng_for((uint64_t)(uintptr_t)arg);
    void **slots = granary_calloc(SLOTS, sizeof *slots);
    must(slots != NULL);
    for (int i = 0; i < CALLS; i++) {
        size_t k = rng_below(&rng, SLOTS);
        granary_free(slots[k]);
        slots[k] = granary_malloc(rng_size(&rng, i % 500 == 0 ? 22 : i % 20 == 0 ? 16 : 10));
        must(slots[k] != NULL);
    }
    for (size_t k = 0; k < SLOTS; k++) {
        granary_free(slots[k]);
    }
    granary_free(slots);
    return NULL;
}

static int steady_state(void *unused) {
    (void)unused;
    pthread_t threads[4];
    size_t settled_maps = 0;
    size_t settled_vsz = 0;
    for (size_t round = 0; round < 6; round++) {
        for (size_t i = 0; i < COUNT_OF(threads); i++) {
            must(pthread_create(&threads[i], NULL, churn, (void *)(round * 10 + i)) == 0);
        }
        for (size_t i = 0; i < COUNT_OF(threads); i++) {
            pthread_join(threads[i], NULL);
        }
        if (round == 1) {
            settled_maps = map_count();
            settled_vsz = vsz_bytes();
        }
    }
    must(map_count() < 1000 && map_count() <= settled_maps + 50);
    must(vsz_bytes() <= settled_vsz + 128 * MIB);
    return 0;
}

static void semantics_103_maps_and_address_space_are_bounded(void **state) {
    (void)state;
    must_end_well(in_child(steady_state, NULL, 60), "steady state");
}

/* ---- 104 ---- */

static int zero_after_purge(void *unused) {
    (void)unused;
    const size_t sizes[] = {5000, 40000, 200000, 400000, 3 * MIB, 20 * MIB, 40 * MIB};
    for (size_t i = 0; i < COUNT_OF(sizes) * 3; i++) {
        size_t size = sizes[i / 3];
        void *held[4];
        for (size_t k = 0; k < COUNT_OF(held); k++) {
            held[k] = granary_malloc(size);
            memset(held[k], 0xff, size);
        }
        for (size_t k = 0; k < COUNT_OF(held); k++) {
            granary_free(held[k]);
        }
        granary_trim();
        if (i % 3 == 1) { /* a part is dirty again */
            void *part = granary_malloc(size / 2);
            memset(part, 0xff, size / 2);
            granary_free(part);
        }
        unsigned char *zero = granary_calloc(1, size);
        must(all_bytes_are(zero, size, 0));
        granary_free(zero);
    }
    return 0;
}

static void semantics_104_calloc_is_zero_after_purge(void **state) {
    (void)state;
    must_end_well(in_child(zero_after_purge, NULL, 60), "zero after purge");
}

/* ---- 105 ---- */

/* A million blocks, one left on each page: what is left must be intact, and what comes next finds room beside it. */
static int fragmentation(void *unused) {
    enum { SMALL = 1000 * 1000, SMALL_SIZE = 64, OTHER = 100 * 1000, OTHER_SIZE = 256 };
    (void)unused;
    static unsigned char *small[SMALL];
    static unsigned char *other[OTHER];
    for (size_t i = 0; i < SMALL; i++) {
        small[i] = granary_malloc(SMALL_SIZE);
        must(small[i] != NULL);
        pattern_fill(small[i], SMALL_SIZE, i);
    }
    for (size_t i = 0; i < SMALL; i++) {
        if (i % 64 != 0) { /* 64 blocks are a page */
            granary_free(small[i]);
        }
    }
    size_t before = rss_bytes();
    for (size_t i = 0; i < OTHER; i++) {
        other[i] = granary_malloc(OTHER_SIZE);
        must(other[i] != NULL);
        pattern_fill(other[i], OTHER_SIZE, SMALL + i);
    }
    must(rss_bytes() <= before + OTHER * OTHER_SIZE / 4 * 5 + 8 * MIB);
    for (size_t i = 0; i < SMALL; i++) { /* the same class again: in the gaps */
        if (i % 64 != 0) {
            small[i] = granary_malloc(SMALL_SIZE);
            pattern_fill(small[i], SMALL_SIZE, i);
        }
    }
    must(rss_bytes() <= before + OTHER * OTHER_SIZE / 4 * 5 + 12 * MIB);
    for (size_t i = 0; i < SMALL; i++) {
        must(pattern_holds(small[i], SMALL_SIZE, i));
        granary_free(small[i]);
    }
    for (size_t i = 0; i < OTHER; i++) {
        must(pattern_holds(other[i], OTHER_SIZE, SMALL + i));
        granary_free(other[i]);
    }
    granary_trim();
    must(rss_bytes() <= before / 2);
    return 0;
}

static void semantics_105_fragmentation(void **state) {
    (void)state;
    must_end_well(in_child(fragmentation, NULL, 60), "fragmentation");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_101_trim_returns_what_the_thread_freed),
        cmocka_unit_test(semantics_101_trim_returns_what_others_freed),
        cmocka_unit_test(semantics_101_a_few_calls_return_the_rest),
        cmocka_unit_test(semantics_030_trim_keeps_about_the_pad),
        cmocka_unit_test(semantics_103_maps_and_address_space_are_bounded),
        cmocka_unit_test(semantics_104_calloc_is_zero_after_purge),
        cmocka_unit_test(semantics_105_fragmentation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
