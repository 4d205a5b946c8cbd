/* unit_depot.c -- central/depot.h: last in first out at each home, homes that help each other, one depot a class, a bound that
 * grows when it is regretted and falls when nobody needs it.
 */
#include "test.h"

#include "central/bin.h"
#include "central/depot.h"
#include "os/options.h"

enum { HOME = 3 };

static struct magazine *loaded_with(unsigned class, uintptr_t name) {
    unsigned rounds = gr_classes[class].rounds;
    struct magazine *m = gr_magazine_new(HOME, rounds);
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
        while ((m = gr_depot_pop(HOME, class)) != NULL)
            gr_magazine_free(HOME, m);
}

static void depot_empty_has_none(void **state) {
    (void)state;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        assert_null(gr_depot_pop(HOME, class));
        assert_int_equal(gr_depot_depth(class), 0);
    }
}

static void depot_last_in_first_out(void **state) {
    (void)state;
    uintptr_t depth = 0;
    struct magazine *m;
    while (gr_depot_push(HOME, 1, m = loaded_with(1, depth + 1)))
        assert_int_equal(gr_depot_depth(1), ++depth);
    assert_true(depth >= 2);
    gr_magazine_free(HOME, m);
    for (; depth; depth--) {
        assert_int_equal(gr_depot_depth(1), depth);
        must_be(m = gr_depot_pop(HOME, 1), 1, depth);
        gr_magazine_free(HOME, m);
    }
    assert_null(gr_depot_pop(HOME, 1));
}

/* Magazines need not be full: the blocks are counted, not the rounds. */
static void depot_counts_blocks(void **state) {
    (void)state;
    enum { CLASS = 5 };
    struct magazine *few = loaded_with(CLASS, 1), *all = loaded_with(CLASS, 2);
    unsigned rounds = gr_classes[CLASS].rounds;
    few->count = 3;
    assert_int_equal(gr_depot_blocks(CLASS), 0);
    assert_true(gr_depot_push(HOME, CLASS, few));
    assert_int_equal(gr_depot_blocks(CLASS), 3);
    assert_true(gr_depot_push(HOME, CLASS, all));
    assert_int_equal(gr_depot_blocks(CLASS), 3 + rounds);
    assert_int_equal(gr_depot_depth(CLASS), 2);
    gr_magazine_free(HOME, gr_depot_pop(HOME, CLASS));
    assert_int_equal(gr_depot_blocks(CLASS), 3);
    gr_magazine_free(HOME, gr_depot_pop(HOME, CLASS));
    assert_int_equal(gr_depot_blocks(CLASS), 0);
}

/* Refused at some depth; the magazine stays with its holder. One out, one in: the bound is of what is there. */
static void depot_bounded(void **state) {
    (void)state;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        uintptr_t depth = 0;
        struct magazine *m;
        while (gr_depot_push(HOME, class, m = loaded_with(class, depth + 1)))
            must(++depth <= 1000);
        must_be(m, class, depth + 1);
        assert_int_equal(gr_depot_depth(class), depth);
        assert_true(depth >= 1);
        struct magazine *top = gr_depot_pop(HOME, class);
        must_be(top, class, depth);
        assert_true(gr_depot_push(HOME, class, m));
        assert_false(gr_depot_push(HOME, class, top));
        gr_magazine_free(HOME, top);
    }
    empty_all();
}

static void depot_one_a_class(void **state) {
    (void)state;
    for (unsigned class = 1; class <= CLASSES; class ++)
        assert_true(gr_depot_push(HOME, class, loaded_with(class, class)));
    for (unsigned class = CLASSES; class >= 1; class --) {
        struct magazine *m = gr_depot_pop(HOME, class);
        must_be(m, class, class);
        assert_null(gr_depot_pop(HOME, class));
        gr_magazine_free(HOME, m);
    }
}

/* A pop prefers its home's, and leaves none behind while another home has any; each home holds as many. */
static void depot_homes_help_each_other(void **state) {
    (void)state;
    enum { EACH = 2 };
    for (uintptr_t n = 0; n < EACH * HEADS; n++)
        assert_true(gr_depot_push((unsigned)n % HEADS, 1, loaded_with(1, n + 1)));
    assert_int_equal(gr_depot_depth(1), EACH * HEADS);
    struct magazine *m, *more = loaded_with(1, 99);
    for (unsigned home = 0; home < HEADS; home++)
        assert_false(gr_depot_push(home, 1, more));
    gr_magazine_free(HOME, more);
    for (uintptr_t n = EACH; n--;) {
        must_be(m = gr_depot_pop(HOME, 1), 1, HOME + n * HEADS + 1);
        gr_magazine_free(HOME, m);
    }
    bool seen[EACH * HEADS + 1] = {false};
    for (unsigned n = EACH * (HEADS - 1); n; n--) {
        uint64_t before = gr_depot_activity(1);
        m = gr_depot_pop(HOME, 1);
        must(m && !seen[(uintptr_t)m->slot[1] >> 16]);
        seen[(uintptr_t)m->slot[1] >> 16] = true;
        assert_true(gr_depot_activity(1) > before);
        assert_int_equal(gr_depot_depth(1), n - 1);
        gr_magazine_free(HOME, m);
    }
    assert_null(gr_depot_pop(HOME, 1));
}

static void depot_keeps_what_is_not_full(void **state) {
    (void)state;
    struct magazine *m = loaded_with(2, 1);
    m->count = 3;
    assert_true(gr_depot_push(HOME, 2, m));
    assert_ptr_equal(gr_depot_pop(HOME, 2), m);
    assert_int_equal(m->count, 3);
    gr_magazine_free(HOME, m);
}

/* ---- the bound, with blocks of real slabs ---- */

enum { CLASS = 8, ROUND = 8 };

static struct magazine *loaded_with_blocks(struct holding *h) {
    struct magazine *m = gr_magazine_new(HOME, ROUND);
    bool clean;
    must(m != NULL);
    m->count = (uint16_t)gr_bin_claim(h, CLASS, m->slot + 1, ROUND, &clean);
    must(m->count);
    return m;
}

static void dissolve(struct magazine *m) {
    gr_bin_return(CLASS, m->slot + 1, m->count, "free");
    gr_magazine_free(HOME, m);
}

/* Pushes until one is refused; how many went in. */
static unsigned fill(struct holding *h) {
    unsigned n = 0;
    struct magazine *m;
    while (gr_depot_push(HOME, CLASS, m = loaded_with_blocks(h)))
        n++;
    dissolve(m);
    return n;
}

static unsigned drain(void) {
    unsigned n = 0;
    struct magazine *m;
    while ((m = gr_depot_pop(HOME, CLASS)) != NULL) {
        dissolve(m);
        n++;
    }
    return n;
}

static void depot_bound_grows_where_a_refusal_was_regretted(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0};
    static void *heap[20000];
    bool clean;
    unsigned used = 0; /* the bound is at most what the class's slabs hold */
    for (unsigned n = 1; n && used < COUNT_OF(heap); used += n)
        n = gr_bin_claim(&h, CLASS, heap + used, (unsigned)COUNT_OF(heap) - used, &clean);
    unsigned before = fill(&h), depth = before;
    for (unsigned turn = 0; turn < 20; turn++) {
        assert_int_equal(drain(), depth); /* its last pop misses */
        depth = fill(&h);
        assert_true(depth >= before);
    }
    assert_true(depth > before);
    assert_int_equal(drain(), depth);
    gr_bin_release(&h, CLASS);
    gr_bin_return(CLASS, heap, used, "free");
}

static void depot_tick_dissolves_what_nobody_needed(void **state) {
    (void)state;
    static uint32_t now = 1;
    struct holding h = {0, 0, 0, 0};
    unsigned depth = fill(&h);
    gr_bin_release(&h, CLASS);
    gr_depots_tick(now++); /* from here on it is watched */
    for (unsigned ticks = 0; gr_depot_depth(CLASS); ticks++) {
        gr_depots_tick(now++);
        uint32_t left = gr_depot_depth(CLASS);
        assert_true(left <= depth && ticks < 40);
        gr_depots_tick(now - 1); /* the same tick: nothing */
        assert_int_equal(gr_depot_depth(CLASS), left);
        depth = left;
    }
}

static void depot_dissolve_empties_one_class(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0};
    fill(&h);
    gr_bin_release(&h, CLASS);
    must(gr_depot_push(HOME, CLASS + 1, loaded_with(CLASS + 1, 5)));
    gr_depot_dissolve(CLASS);
    assert_int_equal(gr_depot_depth(CLASS), 0);
    assert_int_equal(gr_depot_depth(CLASS + 1), 1);
    empty_all();
    for (unsigned i = 0; i < 4; i++)
        gr_bin_trim(CLASS, UINT32_MAX, false);
    assert_int_equal(gr_bin_granules(CLASS), 0); /* every block came home */
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
        if (gr_depot_push((unsigned)me, 1, mine) && !(mine = gr_depot_pop((unsigned)me, 1)))
            mine = loaded_with(1, me);
        uintptr_t other = (uintptr_t)mine->slot[1] >> 16;
        must_be(mine, 1, other);
    }
    gr_magazine_free(HOME, mine);
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
    gr_options_parse("purge_ms:never", "test: ");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(depot_empty_has_none),
        cmocka_unit_test(depot_last_in_first_out),
        cmocka_unit_test(depot_counts_blocks),
        cmocka_unit_test(depot_bounded),
        cmocka_unit_test(depot_one_a_class),
        cmocka_unit_test(depot_homes_help_each_other),
        cmocka_unit_test(depot_keeps_what_is_not_full),
        cmocka_unit_test(depot_bound_grows_where_a_refusal_was_regretted),
        cmocka_unit_test(depot_tick_dissolves_what_nobody_needed),
        cmocka_unit_test(depot_dissolve_empties_one_class),
        cmocka_unit_test(depot_exchange_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
