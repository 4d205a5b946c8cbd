/* unit_depot.c -- central/depot.h: last in first out, bounded in magazines and in bytes, one depot a class. */
#include "test.h"

#include "central/depot.h"

static struct magazine *loaded_with(unsigned class, uintptr_t name) {
    unsigned rounds = gr_classes[class].rounds;
    struct magazine *m = gr_magazine_new(rounds);
    must(m != NULL);
    for (unsigned r = 1; r <= rounds; r++)
        m->slot[r] = (void *)(name << 16 | r);
    m->count = (uint16_t)rounds;
    return m;
}

static void must_be(const struct magazine *m, unsigned class, uintptr_t name) {
    must(m && m->count == gr_classes[class].rounds);
    for (unsigned r = 1; r <= m->count; r++)
        must(m->slot[r] == (void *)(name << 16 | r));
}

static void empty_all(void) {
    struct magazine *m;
    for (unsigned class = 1; class <= CLASSES; class ++)
        while ((m = gr_depot_pop(class)) != NULL)
            gr_magazine_free(m);
}

static void depot_empty_has_none(void **state) {
    (void)state;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        assert_null(gr_depot_pop(class));
        assert_int_equal(gr_depot_depth(class), 0);
    }
}

static void depot_last_in_first_out(void **state) {
    (void)state;
    for (uintptr_t i = 1; i <= 4; i++) {
        assert_true(gr_depot_push(1, loaded_with(1, i)));
        assert_int_equal(gr_depot_depth(1), i);
    }
    for (uintptr_t i = 4; i >= 1; i--) {
        assert_int_equal(gr_depot_depth(1), i);
        struct magazine *m = gr_depot_pop(1);
        must_be(m, 1, i);
        gr_magazine_free(m);
    }
    assert_null(gr_depot_pop(1));
}

/* Refused at some depth, which holds at most a few MiB of blocks; the magazine stays with its holder. */
static void depot_bounded_in_magazines_and_bytes(void **state) {
    (void)state;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        uintptr_t depth = 0;
        struct magazine *m;
        while (gr_depot_push(class, m = loaded_with(class, depth + 1)))
            must(++depth <= 1000);
        must_be(m, class, depth + 1);
        assert_int_equal(gr_depot_depth(class), depth);
        assert_true(depth >= 1);
        size_t bytes = depth * gr_classes[class].rounds * class_bytes(class);
        if (depth > 4)
            assert_true(bytes <= 4 * MIB);
        /* One out, one in: the bound is of what is there, not of what was pushed. */
        struct magazine *top = gr_depot_pop(class);
        must_be(top, class, depth);
        assert_true(gr_depot_push(class, m));
        assert_false(gr_depot_push(class, top));
        gr_magazine_free(top);
    }
    empty_all();
}

static void depot_one_a_class(void **state) {
    (void)state;
    for (unsigned class = 1; class <= CLASSES; class ++)
        assert_true(gr_depot_push(class, loaded_with(class, class)));
    for (unsigned class = CLASSES; class >= 1; class --) {
        struct magazine *m = gr_depot_pop(class);
        must_be(m, class, class);
        assert_null(gr_depot_pop(class));
        gr_magazine_free(m);
    }
}

static void depot_keeps_what_is_not_full(void **state) {
    (void)state;
    struct magazine *m = loaded_with(2, 1);
    m->count = 3;
    assert_true(gr_depot_push(2, m));
    assert_ptr_equal(gr_depot_pop(2), m);
    assert_int_equal(m->count, 3);
    gr_magazine_free(m);
}

/* ---- threads: magazines move, none is in two hands ---- */

enum { THREADS = 3, TURNS = 20000 };

static void *exchange(void *name) {
    uintptr_t me = (uintptr_t)name;
    struct magazine *mine = loaded_with(1, me);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        for (unsigned r = 1; r <= mine->count; r++)
            mine->slot[r] = (void *)(me << 16 | r);
        must_be(mine, 1, me);
        if (gr_depot_push(1, mine) && !(mine = gr_depot_pop(1)))
            mine = loaded_with(1, me);
        uintptr_t other = (uintptr_t)mine->slot[1] >> 16;
        must_be(mine, 1, other);
    }
    gr_magazine_free(mine);
    return NULL;
}

static void depot_exchange_between_threads(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, exchange, (void *)(i + 1)) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    empty_all();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(depot_empty_has_none),
        cmocka_unit_test(depot_last_in_first_out),
        cmocka_unit_test(depot_bounded_in_magazines_and_bytes),
        cmocka_unit_test(depot_one_a_class),
        cmocka_unit_test(depot_keeps_what_is_not_full),
        cmocka_unit_test(depot_exchange_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
