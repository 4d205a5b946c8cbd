/* unit_size_class.c -- slab/size_class.h, exhaustively.
 * covers: S119 S122
 */
#include "test.h"

#include "cache/cache.h"
#include "slab/slab.h"

/* class-minimal, by the table alone. */
static unsigned least_class(size_t n) {
    unsigned class = 1;
    while (gr_classes[class].bytes < n)
        class ++;
    return class;
}

static const size_t slab_guard = HARDENED ? GUARD_BYTES : 0;

static void size_class_table_rises_and_fits(void **state) {
    (void)state;
    assert_int_equal(class_bytes(1), MIN_ALIGN);
    assert_int_equal(class_bytes(SIZE_CLASSES), SMALL_MAX_BYTES);
    for (unsigned class = 1; class <= SIZE_CLASSES; class ++) {
        const struct size_class *k = &gr_classes[class];
        assert_true(k->bytes > gr_classes[class - 1].bytes);
        assert_int_equal(k->bytes % MIN_ALIGN, 0);
        assert_true(is_power_of_two(k->granules) && k->granules <= CHUNK_GRANULES);
        assert_int_equal(k->capacity, (k->granules * (size_t)GRANULE_BYTES - slab_guard) / k->bytes);
        assert_true(k->capacity >= SLAB_MIN_BLOCKS - HARDENED && k->capacity <= SLAB_MAX_BLOCKS);
        assert_true(k->capacity <= SLAB_COUNT_MASK);
        assert_true(k->granules == 1 || k->granules / 2 * (size_t)GRANULE_BYTES / k->bytes < SLAB_MIN_BLOCKS);
        assert_int_equal(k->words, (k->capacity + 63) / 64);
        assert_true(k->threshold >= 1 && k->threshold <= k->capacity);
        assert_true(k->rounds >= 2);
    }
}

static void size_class_119_minimal_for_every_size(void **state) {
    (void)state;
    assert_int_equal(gr_class_of(0), LEAST_CLASS);
    unsigned want = LEAST_CLASS;
    for (size_t n = 1; n <= SMALL_MAX_BYTES; n++) {
        want += n > class_bytes(want);
        if (gr_class_of(n) != want)
            fail_msg("class of %zu is %u, not %u", n, gr_class_of(n), want);
    }
    assert_int_equal(want, SIZE_CLASSES);
}

/* What the fast paths read instead: two tables, the first one in each cache, with the classes of its shard. */
static void size_class_119_tables_agree(void **state) {
    (void)state;
    static struct cache cache;
    for (cache.index = 1; cache.index <= 3 * SHARDS; cache.index++) {
        gr_cache_init(&cache);
        for (size_t n = 0; n <= LINEAR_MAX_BYTES; n++)
            assert_int_equal(cache.class_by_16[(n + 15) / 16],
                             class_in_shard(gr_class_of(n), (cache.index - 1) % SHARDS));
    }
    for (size_t n = LINEAR_MAX_BYTES + 1; n <= SMALL_MAX_BYTES; n++)
        assert_int_equal(gr_class_by_128[(n + 127) / 128], gr_class_of(n));
}

/* Each class below a cache line exists once for each shard, alike but for its number; the others exist once. */
static void size_class_shards_are_alike(void **state) {
    (void)state;
    static bool taken[CLASS_SLOTS];
    assert_true(SHARDED_MAX_BYTES < 64 && class_bytes(SHARDED_CLASSES + 1) >= 64);
    for (unsigned shard = 0; shard < SHARDS; shard++)
        for (unsigned class = 1; class <= SIZE_CLASSES; class ++) {
            unsigned its = class_in_shard(class, shard);
            if (class > SHARDED_CLASSES || shard == 0) {
                assert_int_equal(its, class);
                taken[its] = true;
                continue;
            }
            assert_true(its > SIZE_CLASSES && its <= CLASSES);
            assert_false(taken[its]);
            taken[its] = true;
            assert_memory_equal(&gr_classes[its], &gr_classes[class], sizeof gr_classes[its]);
        }
    for (unsigned class = 1; class <= CLASSES; class ++)
        assert_true(taken[class]);
    for (unsigned none = CLASSES + 1; none < CLASS_SLOTS; none++)
        assert_int_equal(class_bytes(none), 0);
}

/* A block wastes at most an eighth of itself above 1 KiB, a quarter above 128 bytes, less than 16 bytes below. */
static void size_class_119_waste_is_bounded(void **state) {
    (void)state;
    for (unsigned class = 2; class <= SIZE_CLASSES; class ++) {
        size_t most = class_bytes(class), waste = most - class_bytes(class - 1) - 1;
        if (most <= 128)
            assert_true(waste < 16);
        else
            assert_true(waste < most / (most <= 1024 ? 4 : 8));
        size_t run = gr_classes[class].granules * (size_t)GRANULE_BYTES;
        /* a slab's tail; where a guard costs the last block, what is left of it is never touched */
        assert_true((run - gr_classes[class].capacity * most) * 8 < run + HARDENED * 8 * most);
    }
}

static void size_class_119_aligned_classes_are_aligned_and_minimal(void **state) {
    (void)state;
    for (size_t align = 1; align <= 2 * GRANULE_BYTES; align *= 2)
        for (size_t n = 0; n <= SMALL_MAX_BYTES + 1; n += n < 4 * KIB ? 1 : 61) {
            unsigned class = gr_class_of_aligned(n, align), want = 0;
            for (unsigned c = align <= GRANULE_BYTES && n <= SMALL_MAX_BYTES
                                  ? least_class(max_size(max_size(n, align), class_bytes(LEAST_CLASS)))
                                  : SIZE_CLASSES + 1;
                 c <= SIZE_CLASSES && !want; c++)
                if (class_bytes(c) % align == 0)
                    want = c;
            if (class != want)
                fail_msg("class of %zu aligned to %zu is %u, not %u", n, align, class, want);
        }
    assert_int_equal(gr_class_of_aligned(SIZE_MAX, 16), 0);
    assert_int_equal(gr_class_of_aligned(16, (size_t)1 << 63), 0);
}

/* A slab starts at a multiple of its own size in the region, and the region at a multiple of ARENA_BYTES. */
static void size_class_class_aligned(void **state) {
    (void)state;
    for (unsigned class = 1; class <= SIZE_CLASSES; class ++)
        for (size_t align = MIN_ALIGN; align <= GRANULE_BYTES; align *= 2)
            for (size_t block = 0; class_bytes(class) % align == 0 && block < gr_classes[class].capacity; block++)
                assert_int_equal(block * class_bytes(class) % align, 0);
}

static void size_class_122_index_exact_for_every_offset(void **state) {
    (void)state;
    for (unsigned class = 1; class <= SIZE_CLASSES; class ++) {
        const struct size_class *k = &gr_classes[class];
        size_t end = k->granules * (size_t)GRANULE_BYTES;
        uint32_t index = 0;
        for (size_t offset = 0, inside = 0; offset < end; offset++, inside++) {
            if (inside == k->bytes) {
                inside = 0;
                index++;
            }
            if (block_index(k, offset) != index)
                fail_msg("class %u, offset %zu: index %u, not %u", class, offset, block_index(k, offset), index);
        }
    }
}

/* block_find knows a block's start from every other address of every slab, its tail included. */
static void size_class_122_block_find_for_every_offset(void **state) {
    (void)state;
    assert_true(gr_region_boot());
    const uint32_t first = 64; /* no memory is touched */
    for (unsigned class = 1; class <= SIZE_CLASSES; class ++) {
        const struct size_class *k = &gr_classes[class];
        size_t end = k->granules * (size_t)GRANULE_BYTES;
        const char *base = region_address(first);
        for (size_t offset = 0; offset < end; offset++) {
            struct block_place at;
            bool starts = offset % k->bytes == 0 && offset / k->bytes < k->capacity;
            if (block_find(base + offset, class, &at) != starts)
                fail_msg("class %u, offset %zu: block_find says %d", class, offset, !starts);
            must(at.slab == first);
            must(!starts || (at.index == offset / k->bytes && block_address(first, class, at.index) == base + offset));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_class_table_rises_and_fits),
        cmocka_unit_test(size_class_119_minimal_for_every_size),
        cmocka_unit_test(size_class_119_tables_agree),
        cmocka_unit_test(size_class_shards_are_alike),
        cmocka_unit_test(size_class_119_waste_is_bounded),
        cmocka_unit_test(size_class_119_aligned_classes_are_aligned_and_minimal),
        cmocka_unit_test(size_class_class_aligned),
        cmocka_unit_test(size_class_122_index_exact_for_every_offset),
        cmocka_unit_test(size_class_122_block_find_for_every_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
