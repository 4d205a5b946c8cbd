/* unit_meta.c -- page/meta.h: records by number, zero at first, reused last in first out, never two holders. */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect */
#include "oom_fault.h"

#include "page/meta.h"

/* The first four bytes are the link; the rest is a record's own. */
struct record {
    struct half next;
    uint32_t own[31];
};

enum { HOME = 3 };

#define POOL(name, bytes)                                                                                              \
    static struct ref name##_chunks[META_CHUNKS];                                                                      \
    static struct stack name##_unused[HEADS];                                                                          \
    static struct meta_pool name = META_POOL(bytes, name##_chunks, name##_unused, sizeof(struct stack))

POOL(plain, sizeof(struct record));
POOL(odd, 3000); /* does not divide a chunk */
POOL(whole, META_CHUNK_BYTES);
POOL(poor, sizeof(struct record));
POOL(shared, sizeof(struct record));

static void meta_numbers_from_one_upwards_and_zero(void **state) {
    (void)state;
    assert_int_equal(gr_meta_count(&plain), 0);
    for (uint32_t want = 1; want <= 3 * plain.per_chunk; want++) {
        assert_int_equal(gr_meta_take(&plain, HOME), want);
        assert_int_equal(gr_meta_count(&plain), want);
        struct record *r = meta_at(&plain, want);
        assert_true(all_bytes_are(r, sizeof *r, 0));
        memset(r, 0xff, sizeof *r);
    }
}

static void meta_records_do_not_overlap(void **state) {
    (void)state;
    assert_int_equal(odd.per_chunk, META_CHUNK_BYTES / 3000);
    enum { COUNT = 100 };
    for (uint32_t i = 1; i <= COUNT; i++) {
        assert_int_equal(gr_meta_take(&odd, HOME), i);
        pattern_fill(meta_at(&odd, i), 3000, i);
    }
    for (uint32_t i = 1; i <= COUNT; i++)
        assert_true(pattern_holds(meta_at(&odd, i), 3000, i));
}

static void meta_given_back_come_again_last_first(void **state) {
    (void)state;
    uint32_t a = gr_meta_take(&plain, HOME), b = gr_meta_take(&plain, HOME), count = gr_meta_count(&plain);
    struct record *ra = meta_at(&plain, a);
    ra->own[5] = 12345;
    gr_meta_give(&plain, HOME, b);
    gr_meta_give(&plain, HOME, a);
    assert_int_equal(gr_meta_take(&plain, HOME), a);
    assert_int_equal(ra->own[5], 12345); /* as its last holder left it, but for the link */
    assert_int_equal(gr_meta_take(&plain, HOME), b);
    assert_int_equal(gr_meta_count(&plain), count);
    assert_int_equal(gr_meta_take(&plain, HOME), count + 1);
}

static void meta_mapped_bytes_grow_by_chunks(void **state) {
    (void)state;
    uint64_t before = gr_meta_mapped_bytes();
    uint32_t first = gr_meta_take(&whole, HOME), second = gr_meta_take(&whole, HOME);
    assert_int_equal(second, first + 1);
    assert_true(gr_meta_mapped_bytes() >= before + META_CHUNK_BYTES);
    assert_int_equal(gr_meta_mapped_bytes() % META_CHUNK_BYTES, before % META_CHUNK_BYTES);
}

static void meta_without_memory_is_zero_and_nothing_is_lost(void **state) {
    (void)state;
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    assert_int_equal(gr_meta_take(&poor, HOME), 0);
    assert_int_equal(gr_meta_count(&poor), 0);
    assert_int_equal(fault_disarm(), 1);
    for (uint32_t want = 1; want < poor.per_chunk; want++)
        assert_int_equal(gr_meta_take(&poor, HOME), want);
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    assert_int_equal(gr_meta_take(&poor, HOME), 0); /* the next chunk */
    gr_meta_give(&poor, HOME, 7);
    assert_int_equal(gr_meta_take(&poor, HOME), 7);
    assert_int_equal(gr_meta_take(&poor, HOME), 0);
    fault_disarm();
    assert_int_equal(gr_meta_take(&poor, HOME), poor.per_chunk);
}

static void meta_full_pool_says_so(void **state) {
    (void)state;
    uint32_t last = gr_meta_count(&whole), got;
    while ((got = gr_meta_take(&whole, HOME)) != 0)
        last = got;
    assert_int_equal(last, META_CHUNKS - 1);
    assert_int_equal(gr_meta_take(&whole, HOME), 0);
    gr_meta_give(&whole, HOME, 9);
    assert_int_equal(gr_meta_take(&whole, HOME), 9);
}

/* ---- many threads: each writes its name into what it holds ---- */

enum { THREADS = 4, HELD = 60, TURNS = 3000 };

static void *take_and_give(void *name) {
    uint32_t me = (uint32_t)(uintptr_t)name, held[HELD] = {0};
    struct rng rng = rng_for(me);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        uint32_t *slot = &held[rng_below(&rng, HELD)];
        if (*slot) {
            struct record *r = meta_at(&shared, *slot);
            must(r->own[0] == me && r->own[30] == *slot);
            r->own[0] = 0;
            gr_meta_give(&shared, me, *slot);
            *slot = 0;
        } else {
            *slot = gr_meta_take(&shared, me);
            struct record *r = meta_at(&shared, *slot);
            must(*slot && r->own[0] == 0);
            r->own[0] = me;
            r->own[30] = *slot;
        }
    }
    return NULL;
}

static void meta_one_holder_at_a_time(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, take_and_give, (void *)(i + 1)) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    assert_true(gr_meta_count(&shared) <= THREADS * HELD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meta_numbers_from_one_upwards_and_zero),
        cmocka_unit_test(meta_records_do_not_overlap),
        cmocka_unit_test(meta_given_back_come_again_last_first),
        cmocka_unit_test(meta_mapped_bytes_grow_by_chunks),
        cmocka_unit_test(meta_without_memory_is_zero_and_nothing_is_lost),
        cmocka_unit_test(meta_full_pool_says_so),
        cmocka_unit_test(meta_one_holder_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
