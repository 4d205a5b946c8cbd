/* limits_map_count.c -- the process has all the mappings it may have: malloc may fail, free may not.
 * covers: S95 C10
 */
/* test: sanitize=off */
#include "semantics_calls.h"

enum { HUGE_BLOCKS = 16, LARGE_BLOCKS = 64, SMALL_BLOCKS = 5000 };

/* Pages of alternating protection, each a mapping, until the system gives no more. */
struct hog {
    char *start;
    size_t bytes;
};

static struct hog take_all_mappings(size_t limit) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct hog hog = {NULL, (limit + 64) * 2 * page};
    hog.start = mmap(NULL, hog.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(hog.start != MAP_FAILED);
    for (size_t at = page; at < hog.bytes; at += 2 * page) {
        if (mprotect(hog.start + at, page, PROT_READ) != 0) {
            must(errno == ENOMEM);
            return hog;
        }
    }
    must(false && "the limit of mappings is reached");
    return hog;
}

static void *held[HUGE_BLOCKS + LARGE_BLOCKS + SMALL_BLOCKS];

static size_t size_of_block(size_t i) {
    return i < HUGE_BLOCKS ? 40 * MIB : i < HUGE_BLOCKS + LARGE_BLOCKS ? 300000 + i * 1000 : 16 + i % 3000;
}

/* Returns how many calls were refused. */
static size_t allocate_all(void) {
    size_t refused = 0;
    for (size_t i = 0; i < COUNT_OF(held); i++) {
        errno = 0;
        held[i] = granary_malloc(size_of_block(i));
        if (held[i] != NULL) {
            touch_ends(held[i], size_of_block(i));
            memcpy(held[i], &i, sizeof i);
        } else {
            must(errno == ENOMEM);
            refused++;
        }
    }
    return refused;
}

/* Every second first, so that a neighbour keeps the mapping alive on both sides. */
static void free_all(void) {
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = k; i < COUNT_OF(held); i += 2) {
            must(held[i] == NULL || memcmp(held[i], &i, sizeof i) == 0);
            errno = ERRNO_MARK;
            granary_free(held[i]);
            must(errno == ERRNO_MARK);
        }
    }
    granary_trim();
    must(errno == ERRNO_MARK);
}

static int run_out_of_mappings(void *limit) {
    must(allocate_all() == 0);
    struct hog hog = take_all_mappings(*(size_t *)limit);
    free_all();
    for (int round = 0; round < 3; round++) {
        allocate_all();
        free_all();
    }
    munmap(hog.start, hog.bytes);
    must(allocate_all() == 0);
    free_all();
    return 0;
}

static int start_without_mappings(void *limit) {
    struct hog hog = take_all_mappings(*(size_t *)limit);
    granary_free(NULL);
    allocate_all();
    free_all();
    munmap(hog.start, hog.bytes);
    must(allocate_all() == 0);
    free_all();
    return 0;
}

static size_t map_limit(void) {
    char text[64];
    read_file("/proc/sys/vm/max_map_count", text, sizeof text);
    size_t limit = strtoull(text, NULL, 10);
    if (limit == 0 || limit > 400 * 1000) {
        skip();
    }
    return limit;
}

static void semantics_095_free_never_fails(void **state) {
    (void)state;
    size_t limit = map_limit();
    struct ending ending = in_child(run_out_of_mappings, &limit, 50);
    must_end_well(ending, "no mapping left");
    assert_int_equal(ending.length, 0);
}

static void semantics_095_the_first_malloc_without_a_mapping_left(void **state) {
    (void)state;
    size_t limit = map_limit();
    struct ending ending = in_child(start_without_mappings, &limit, 50);
    must_end_well(ending, "no mapping left at first");
    assert_int_equal(ending.length, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_095_free_never_fails),
        cmocka_unit_test(semantics_095_the_first_malloc_without_a_mapping_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
