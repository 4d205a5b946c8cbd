/* misuse_place.c -- the hardened build: where the next block lies nobody can foretell, and what was freed is not given out soon. */
/* test: hardened=only */
#include "test.h"

#include <granary.h>

static bool is_in(void *const *blocks, size_t n, const void *p) {
    for (size_t i = 0; i < n; i++)
        if (blocks[i] == p)
            return true;
    return false;
}

/* The next 16 frees of its size pass before a small block may come back. */
static void place_what_was_freed_waits(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 40, 200, 1000, 2000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (unsigned k = 0; k < 2000; k++) {
            void *freed[16], *p = opaque(granary_malloc(sizes[i]));
            granary_free(p);
            for (size_t f = 0; f < COUNT_OF(freed); f++) {
                freed[f] = opaque(granary_malloc(sizes[i]));
                must(freed[f] != p && !is_in(freed, f, freed[f]));
                granary_free(freed[f]);
            }
        }
}

static void place_wide_blocks_wait_too(void **state) {
    (void)state;
    for (size_t size = 3000; size <= 200000; size *= 2)
        for (unsigned k = 0; k < 100; k++) {
            void *p = opaque(granary_malloc(size));
            granary_free(p);
            void *q = opaque(granary_malloc(size));
            must(q != p);
            granary_free(q);
        }
}

static void place_large_blocks_wait(void **state) {
    (void)state;
    void *freed[20];
    for (size_t i = 0; i < COUNT_OF(freed); i++) {
        freed[i] = opaque(granary_malloc(300000));
        must(!is_in(freed, i, freed[i]));
        granary_free(freed[i]);
    }
}

/* Of neighbours handed out in a row, few are neighbours in memory, in either direction. */
static void place_is_not_a_row(void **state) {
    (void)state;
    enum { MANY = 4000 };
    static char *p[MANY];
    size_t follows = 0;
    for (size_t i = 0; i < MANY; i++) {
        p[i] = opaque(granary_malloc(40));
        follows += i && (p[i] == p[i - 1] + 48 || p[i] == p[i - 1] - 48);
    }
    for (size_t i = 0; i < MANY; i++)
        granary_free(p[i]);
    assert_in_range(follows, 0, MANY / 8);
}

static int print_order(void *unused) {
    (void)unused;
    char *first = opaque(granary_malloc(100));
    for (unsigned i = 0; i < 6; i++)
        fprintf(stderr, "%td ", (char *)opaque(granary_malloc(100)) - first);
    return 0;
}

static void place_differs_between_processes(void **state) {
    (void)state;
    enum { RUNS = 8 };
    char text[RUNS][200];
    for (size_t i = 0; i < RUNS; i++) {
        struct ending ending = in_new_process("order", "of_blocks", 20);
        must_end_well(ending, "order");
        snprintf(text[i], sizeof text[i], "%.190s", ending.text);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(text[i], text[k]);
    }
}

/* A child draws from where its parent stood, and must not take what the parent takes. */
static void place_differs_between_parent_and_child(void **state) {
    (void)state;
    int ends[2];
    uintptr_t mine[64], its[64];
    must(pipe(ends) == 0);
    for (unsigned i = 0; i < 100; i++)
        granary_free(opaque(granary_malloc(500)));
    pid_t child = fork();
    uintptr_t *to = child ? mine : its;
    for (size_t i = 0; i < COUNT_OF(mine); i++)
        to[i] = (uintptr_t)opaque(granary_malloc(500));
    if (child == 0)
        _exit(write(ends[1], its, sizeof its) != (ssize_t)sizeof its);
    must(read(ends[0], its, sizeof its) == (ssize_t)sizeof its);
    waitpid(child, NULL, 0);
    assert_memory_not_equal(mine, its, sizeof mine);
}

static void small_blocks_are_zero(void **state) {
    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        size_t size = i % 3000;
        char *p = opaque(granary_malloc(size));
        must(granary_malloc_usable_size(p) == size);
        must(all_bytes_are(p, size, 0));
        memset(p, 0xee, size);
        granary_free(p);
    }
}

int main(int argc, char **argv) {
    if (argc == 3)
        return print_order(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(place_what_was_freed_waits),      cmocka_unit_test(place_wide_blocks_wait_too),
        cmocka_unit_test(place_large_blocks_wait),         cmocka_unit_test(place_is_not_a_row),
        cmocka_unit_test(place_differs_between_processes), cmocka_unit_test(place_differs_between_parent_and_child),
        cmocka_unit_test(small_blocks_are_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
