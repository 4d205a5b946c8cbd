/* unit_page_map.c -- page/region.h and page/page_map.h: which addresses are ours.
 * covers: S121 C12
 */
#include "test.h"

#include "page/page_map.h"

static void page_map_before_boot_nothing_is_ours(void **state) {
    (void)state;
    int local;
    assert_int_equal(region_base(), 0);
    assert_int_equal(page_class_of(&local), 0);
    assert_int_equal(page_class_of((void *)(uintptr_t)read), 0);
    assert_int_equal(page_class_of(NULL), 0);
    assert_int_equal(page_class_of((void *)UINTPTR_MAX), 0);
}

static void region_boot_chooses_once(void **state) {
    (void)state;
    assert_true(gr_region_boot());
    uintptr_t base = region_base();
    assert_true(base != 0);
    assert_int_equal(base % ARENA_BYTES, 0);
    assert_true(gr_region_boot());
    assert_int_equal(region_base(), base);
    assert_true(all_bytes_are(region_address(0), CHUNK_BYTES, 0)); /* the first chunk is mapped */
}

static void region_granule_and_address_are_inverse(void **state) {
    (void)state;
    struct rng rng = rng_for(1);
    for (unsigned i = 0; i < 100000; i++) {
        size_t granule = i < 2 ? i * (REGION_GRANULES - 1) : rng_below(&rng, REGION_GRANULES);
        char *p = region_address(granule);
        assert_int_equal(region_granule(p), granule);
        assert_int_equal(region_granule(p + rng_below(&rng, GRANULE_BYTES)), granule);
        assert_int_equal(region_granule(p + GRANULE_BYTES - 1), granule);
    }
}

/* Lowest and highest user addresses, with 4 and 5 levels of page tables, holes, and what no pointer can be. */
static void page_map_121_foreign_addresses_have_no_class(void **state) {
    (void)state;
    static const uintptr_t edges[] = {
        0,           1,
        4096,        0x10000,
        1ull << 32,  (1ull << 47) - 1,
        1ull << 47,  (1ull << 56) - 4096,
        1ull << 56,  1ull << 63,
        ~0ull << 47, UINTPTR_MAX - 4095,
        UINTPTR_MAX,
    };
    uintptr_t base = region_base(), end = base + ((uintptr_t)REGION_GRANULES << GRANULE_SHIFT);
    gr_page_map_set(0, 1, 9);
    gr_page_map_set(REGION_GRANULES - 1, 1, 9);
    for (size_t i = 0; i < COUNT_OF(edges); i++)
        if (edges[i] < base || edges[i] >= end)
            assert_int_equal(page_class_of((void *)edges[i]), 0);
    assert_int_equal(page_class_of((void *)(base - 1)), 0);
    assert_int_equal(page_class_of((void *)end), 0);
    assert_int_equal(page_class_of((void *)base), 9);
    assert_int_equal(page_class_of((void *)(end - 1)), 9);
    assert_true(region_granule((void *)(base - 1)) >= REGION_GRANULES);
    assert_true(region_granule((void *)end) >= REGION_GRANULES);
    gr_page_map_set(0, 1, 0);
    gr_page_map_set(REGION_GRANULES - 1, 1, 0);
}

static void page_map_121_a_hole_between_two_runs(void **state) {
    (void)state;
    gr_page_map_set(100, 3, 7);
    gr_page_map_set(104, 3, CLASS_LARGE);
    for (size_t granule = 99; granule < 108; granule++) {
        size_t want = granule >= 100 && granule < 103 ? 7 : granule >= 104 && granule < 107 ? CLASS_LARGE : 0;
        assert_int_equal(page_class(granule), want);
        assert_int_equal(page_class_of((char *)region_address(granule) + GRANULE_BYTES - 1), want);
    }
    gr_page_map_set(100, 7, 0);
    for (size_t granule = 99; granule < 108; granule++)
        assert_int_equal(page_class(granule), 0);
}

static void region_chunk_is_mapped_zero_and_once(void **state) {
    (void)state;
    assert_int_equal(gr_region_map(3, 2), OS_OK);
    char *at = region_address(3 * CHUNK_GRANULES);
    assert_true(all_bytes_are(at, 2 * CHUNK_BYTES, 0));
    memset(at, 1, 2 * CHUNK_BYTES);
    assert_int_equal(gr_region_map(4, 1), OS_TAKEN); /* replaces nothing, not even our own */
    assert_int_equal(gr_region_map(4, 2), OS_TAKEN);
    assert_true(all_bytes_are(at, 2 * CHUNK_BYTES, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_map_before_boot_nothing_is_ours),
        cmocka_unit_test(region_boot_chooses_once),
        cmocka_unit_test(region_granule_and_address_are_inverse),
        cmocka_unit_test(page_map_121_foreign_addresses_have_no_class),
        cmocka_unit_test(page_map_121_a_hole_between_two_runs),
        cmocka_unit_test(region_chunk_is_mapped_zero_and_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
