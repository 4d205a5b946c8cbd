/* unit_cache.c -- cache/cache.h: its three invariants after every step, refill and overflow through each way, growth within the
 * budget, and nothing lost.
 */
/* Not in the hardened build, which takes blocks at random and holds them back: misuse_place.c. */
/* test: hardened=off timeout=120 */
#include "test.h"

#include "cache/cache.h"
#include "cache/thread.h"
#include "central/depot.h"
#include "os/options.h"

static struct cache *self;

/* ---- malloc and free as the API makes them of the cache's parts ---- */

static void *take(unsigned class) {
    void *p = cache_pop_owner(self, class);
    bool clean;
    if (!p)
        p = gr_cache_pop_spare(self, class);
    return p ? p : gr_cache_refill(self, class, &clean);
}

static void give(unsigned class, void *p) {
    if (!cache_push_owner(self, class, p) && !gr_cache_push_spare(self, class, p))
        gr_cache_overflow(self, class, p);
}

/* ---- the invariants ---- */

static void must_hold_and_accept_nothing(struct cache *c, size_t class) {
    must(cache_pop_owner(c, class) == NULL);
    must(!cache_push_owner(c, class, c));
}

static uint64_t invariants_hold(void) {
    uint64_t rounds_bytes = 0, held = 0;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        const struct own *o = &self->own[class];
        struct magazine *m = o->loaded;
        if (m) { /* top-loaded */
            size_t count = (size_t)(self->top[class] - (void **)m->slot);
            must(count <= m->rounds && m->slot[0] == NULL && m->slot[m->rounds + 1] == MAGAZINE_FULL);
            for (size_t i = 1; i <= count; i++)
                must(page_class_of(m->slot[i]) == class);
            held += count;
        } else {
            must_hold_and_accept_nothing(self, class);
        }
        if (o->spare) { /* full or empty, never between */
            must(o->spare != m && (o->spare->count == 0 || o->spare->count == o->spare->rounds));
            for (size_t i = 1; i <= o->spare->count; i++)
                must(page_class_of(o->spare->slot[i]) == class);
            held += o->spare->count;
        }
        rounds_bytes += (uint64_t)o->rounds * class_bytes(class);
        must(o->rounds <= gr_classes[class].rounds);
    }
    must(self->rounds_bytes == rounds_bytes);
    must_hold_and_accept_nothing(self, 0); /* no-special */
    must_hold_and_accept_nothing(self, CLASS_LARGE);
    must_hold_and_accept_nothing(self, CLASS_INSIDE);
    return held;
}

/* Everything goes home; then the classes have no slab left. */
static int all_home(void **state) {
    (void)state;
    invariants_hold();
    gr_cache_flush(self, false);
    must(invariants_hold() == 0);
    for (unsigned class = 1; class <= CLASSES; class ++) {
        gr_depot_dissolve(class);
        for (unsigned i = 0; i < 4; i++)
            gr_bin_trim(class, UINT32_MAX, false);
        if (gr_bin_granules(class)) {
            fprintf(stderr, "class %u: a block is lost\n", class);
            return 1;
        }
    }
    return 0;
}

/* ---- the fast paths ---- */

static void cache_of_no_thread_holds_and_accepts_nothing(void **state) {
    (void)state;
    static struct cache fresh;
    gr_cache_init(&fresh);
    for (size_t class = 0; class < CLASS_SLOTS; class ++) {
        must_hold_and_accept_nothing(&fresh, class);
        must_hold_and_accept_nothing(&gr_nobody, class);
        must_hold_and_accept_nothing(&gr_departed, class);
    }
}

static void cache_last_in_first_out(void **state) {
    (void)state;
    void *p[4];
    for (unsigned i = 0; i < 4; i++)
        p[i] = take(5);
    for (unsigned i = 0; i < 4; i++)
        give(5, p[i]);
    for (unsigned i = 4; i-- > 0;)
        assert_ptr_equal(take(5), p[i]);
    for (unsigned i = 0; i < 4; i++)
        give(5, p[i]);
}

static void cache_refuses_the_block_freed_last(void **state) {
    (void)state;
    void *p = take(5);
    assert_true(cache_push_owner(self, 5, p));
    assert_false(cache_push_owner(self, 5, p)); /* the slow door looks closer */
    assert_ptr_equal(take(5), p);
    give(5, p);
}

static void cache_lowest_address_first(void **state) {
    (void)state;
    char *first = take(3), *next = take(3);
    assert_ptr_equal(next, first + class_bytes(3));
    give(3, next);
    give(3, first);
}

/* ---- each way of a miss ---- */

/* The look before it may have found the gate claimed. */
static void cache_refill_takes_a_full_spare(void **state) {
    (void)state;
    enum { CLASS = 20, MOST = 2000 };
    static void *held[MOST];
    struct own *o = &self->own[CLASS];
    unsigned n = 0, kept = 0;
    bool clean;
    while (n < MOST)
        held[n++] = take(CLASS);
    while (!o->spare || !o->spare->count) {
        must(n > 0);
        give(CLASS, held[--n]);
    }
    while ((held[n] = cache_pop_owner(self, CLASS)))
        n++;
    kept = o->spare->count;
    held[n] = gr_cache_refill(self, CLASS, &clean);
    assert_true(held[n] && page_class_of(held[n]) == CLASS);
    assert_int_equal(o->spare ? o->spare->count : 0, 0);
    assert_int_equal((unsigned)(self->top[CLASS] - o->loaded->slot), kept - 1);
    for (n++; n > 0;)
        give(CLASS, held[--n]);
}

static void cache_refill_grows_by_misses(void **state) {
    (void)state;
    static void *held[100000];
    for (unsigned class = 1; class <= CLASSES; class += 7) {
        unsigned before = 0, n = 0, misses = 0;
        while (n < COUNT_OF(held) && self->own[class].rounds < gr_classes[class].rounds && misses < 60) {
            held[n++] = take(class);
            must(held[n - 1] && page_class_of(held[n - 1]) == class);
            if (self->own[class].rounds != before) {
                assert_true(before == 0 || self->own[class].rounds <= 2 * before);
                before = self->own[class].rounds;
                misses++;
            }
            if (self->rounds_bytes >= gr_cache_budget(false))
                break;
        }
        invariants_hold();
        while (n)
            give(class, held[--n]);
        invariants_hold();
        gr_cache_flush(self, false);
    }
}

/* A thread that takes five blocks of a class and frees none has claimed a few more, not a magazine; one that frees them as well
 * has whole magazines. */
static void cache_claims_little_at_first(void **state) {
    (void)state;
    enum { CLASS = 32, MANY = 2000 }; /* 1 KiB */
    static void *held[MANY];
    for (unsigned n = 1; n <= 60; n++) {
        held[n - 1] = take(CLASS);
        unsigned claimed = self->own[CLASS].claimed;
        assert_true(claimed >= n && claimed <= n + n / 2 + 1);
    }
    assert_true(self->own[CLASS].rounds < gr_classes[CLASS].rounds);
    for (unsigned n = 60; n < MANY; n++)
        held[n] = take(CLASS);
    assert_int_equal(self->own[CLASS].rounds, gr_classes[CLASS].rounds);
    for (unsigned n = 0; n < MANY; n++)
        give(CLASS, held[n]);
    assert_true(self->own[CLASS].overflowed);
    gr_cache_flush(self, false);
    assert_int_equal(self->own[CLASS].claimed, 0);
}

/* What a thread holds of the least sizes is claimed from a slab of its own when it uses many, else from those of all. */
static void cache_holds_a_slab_of_what_it_uses_much(void **state) {
    (void)state;
    enum { CLASS = 4, MANY = 300 };
    void *held[MANY];
    held[0] = take(CLASS);
    assert_int_equal(self->held[CLASS].slab, 0);
    for (unsigned n = 1; n < MANY; n++)
        held[n] = take(CLASS);
    assert_int_not_equal(self->held[CLASS].slab, 0);
    for (unsigned n = 0; n < MANY; n++)
        give(CLASS, held[n]);
}

static void cache_budget_is_larger_for_what_swings(void **state) {
    (void)state;
    gr_options_parse("thread_cache:1024G,total_cache:1024G", "test: ");
    assert_true(gr_cache_budget(true) > gr_cache_budget(false));
    gr_options_parse("thread_cache:8M,total_cache:64M", "test: ");
}

static void cache_refill_from_the_spare_then_the_depot_then_slabs(void **state) {
    (void)state;
    enum { MANY = 20000 };
    static void *held[MANY];
    const unsigned class = 4;
    for (unsigned i = 0; i < MANY; i++)
        held[i] = take(class);
    for (unsigned i = 0; i < MANY; i++)
        give(class, held[i]);
    invariants_hold();
    assert_non_null(self->own[class].spare);
    assert_true(gr_depot_depth(class) > 0); /* full magazines went there */
    size_t granules = gr_bin_granules(class);
    uint32_t depth = gr_depot_depth(class);
    unsigned n = 0;
    for (; gr_depot_depth(class); n++)
        held[n] = take(class);
    assert_true(n > 2u * gr_classes[class].rounds / 4 && depth > 0);
    assert_int_equal(gr_bin_granules(class), granules);
    for (; n < MANY; n++)
        held[n] = take(class);
    for (unsigned i = 0; i < MANY; i++)
        give(class, held[i]);
}

/* Half as many again as a magazine holds, taken and given in turn: no miss, but a swap each way, until one magazine does. */
static void cache_that_swings_within_two_magazines_gets_larger_ones(void **state) {
    (void)state;
    enum { CLASS = 20, TURNS = 400, LAST = 50 };
    const struct own *o = &self->own[CLASS];
    void *held[64];
    give(CLASS, take(CLASS));
    unsigned first = o->rounds, n = first + first / 2, swaps = 0;
    must(n <= COUNT_OF(held));
    for (unsigned turn = 0; turn < TURNS; turn++) {
        if (turn == TURNS - LAST)
            swaps = o->swaps;
        for (unsigned i = 0; i < n; i++)
            must((held[i] = take(CLASS)) != NULL);
        for (unsigned i = 0; i < n; i++)
            give(CLASS, held[i]);
    }
    invariants_hold();
    assert_true(o->rounds >= n);
    assert_int_equal(o->swaps, swaps);
}

static void cache_of_who_only_frees_keeps_no_spare(void **state) {
    (void)state;
    enum { MANY = 3000 };
    static void *held[MANY];
    const unsigned class = 4;
    for (unsigned i = 0; i < MANY; i++)
        assert_non_null(held[i] = gr_direct_alloc(class));
    for (unsigned i = 0; i < MANY; i++)
        give(class, held[i]);
    invariants_hold();
    assert_null(self->own[class].spare);
    assert_true(gr_depot_depth(class) > 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_non_null(held[i] = take(class)); /* now it allocates too */
    for (unsigned i = 0; i < MANY; i++)
        give(class, held[i]);
    assert_non_null(self->own[class].spare);
}

/* Two threads' worth of traffic by one: blocks taken here and given there, so that whole magazines travel. */
static void cache_overflow_loses_nothing(void **state) {
    (void)state;
    static void *held[30000];
    bool clean;
    for (unsigned class = 1; class <= CLASSES; class += 5) {
        unsigned n = (unsigned)min_size(COUNT_OF(held), 64 * MIB / class_bytes(class));
        struct holding h = {0, 0, 0, 0};
        unsigned got = 0;
        while (got < n)
            got += gr_bin_claim(&h, class, held + got, n - got, &clean);
        gr_bin_release(&h, class);
        for (unsigned i = 0; i < n; i++)
            give(class, held[i]);
        invariants_hold();
        gr_cache_flush(self, false);
        gr_depot_dissolve(class);
    }
}

static void cache_flush_keeps_full_magazines_for_others(void **state) {
    (void)state;
    void *held[2000];
    for (unsigned i = 0; i < COUNT_OF(held); i++)
        held[i] = take(2);
    for (unsigned i = 0; i < COUNT_OF(held); i++)
        give(2, held[i]);
    gr_depot_dissolve(2);
    gr_cache_flush(self, true);
    assert_true(invariants_hold() == 0);
    assert_true(gr_depot_depth(2) > 0);
    assert_int_equal(word_load_relaxed(&self->cached), 0);
}

static void cache_clean_block_reads_as_zero(void **state) {
    (void)state;
    void *held[5000];
    for (unsigned class = 3; class <= CLASSES; class += 9) {
        unsigned n = (unsigned)min_size(COUNT_OF(held), 16 * MIB / class_bytes(class));
        for (unsigned i = 0; i < n; i++) {
            void *p = gr_cache_clean_block(self, class);
            if (p)
                assert_true(all_bytes_are(p, class_bytes(class), 0));
            held[i] = p ? p : take(class);
            memset(held[i], 0xff, class_bytes(class));
        }
        for (unsigned i = 0; i < n; i++)
            give(class, held[i]);
        gr_cache_flush(self, false);
        gr_depot_dissolve(class);
    }
}

static void cache_direct_calls_hold_nothing_back(void **state) {
    (void)state;
    void *p = gr_direct_alloc(7), *q = gr_direct_alloc(7);
    assert_true(p && q && p != q);
    assert_int_equal(page_class_of(p), 7);
    gr_direct_free(7, p, "free");
    gr_direct_free(7, q, "free");
    assert_int_equal(invariants_hold(), 0);
}

/* ---- budgets and time ---- */

static void *idle_thread(void *barrier) {
    slow_enter();
    must(gr_thread_cache_slow() != NULL);
    slow_leave();
    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier);
    return NULL;
}

static void cache_budget_is_shared_by_the_threads(void **state) {
    (void)state;
    enum { THREADS = 20 };
    pthread_t threads[THREADS];
    pthread_barrier_t barrier;
    uint64_t alone = gr_cache_budget(false), alive = gr_threads_alive();
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (unsigned i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, idle_thread, &barrier) == 0);
    pthread_barrier_wait(&barrier);
    assert_int_equal(gr_threads_alive(), alive + THREADS);
    assert_true(gr_cache_budget(false) < alone);
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    pthread_barrier_destroy(&barrier);
    assert_int_equal(gr_threads_alive(), alive);
    assert_int_equal(gr_cache_budget(false), alone);
    gr_options_parse("thread_cache:100k", "test: ");
    assert_true(gr_cache_budget(false) <= 100 * KIB);
    gr_options_parse("thread_cache:0", "test: ");
    uint64_t least = gr_cache_budget(false);
    assert_true(least > 0);
    gr_options_parse("thread_cache:8M,total_cache:0", "test: ");
    assert_int_equal(gr_cache_budget(false), least);
    gr_options_parse("total_cache:64M", "test: ");
    assert_int_equal(gr_cache_budget(false), alone);
}

/* Beyond the budget no class grows; each may have its first magazine. */
static void cache_grows_within_the_budget(void **state) {
    (void)state;
    static void *held[CLASSES + 1][300];
    gr_options_parse("thread_cache:0", "test: ");
    uint64_t firsts = 0;
    for (unsigned i = 0; i < COUNT_OF(held[0]); i++)
        for (unsigned class = 1; class <= CLASSES; class += 3)
            held[class][i] = take(class);
    for (unsigned class = 1; class <= CLASSES; class += 3)
        firsts += max_size(8 * class_bytes(class), 8 * KIB);
    invariants_hold();
    assert_true(self->rounds_bytes <= gr_cache_budget(true) + firsts);
    for (unsigned i = 0; i < COUNT_OF(held[0]); i++)
        for (unsigned class = 1; class <= CLASSES; class += 3)
            give(class, held[class][i]);
    gr_options_parse("thread_cache:8M", "test: ");
}

static void cache_beyond_the_budget_has_one_magazine_until_it_needs_two(void **state) {
    (void)state;
    enum { MANY = 20, FULL = 300 };
    static void *held[CLASSES + 1][FULL];
    const unsigned class = 7;
    gr_options_parse("thread_cache:0", "test: ");
    for (unsigned other = 1; other <= CLASSES; other += other == class - 1 ? 2 : 1) /* these use the budget up */
        for (unsigned i = 0; i < FULL; i++)
            held[other][i] = take(other);
    for (unsigned again = 0; again < 2; again++) {
        for (unsigned i = 0; i < MANY; i++)
            held[class][i] = take(class);
        for (unsigned i = 0; i < MANY; i++)
            give(class, held[class][i]);
        assert_true(invariants_hold() > 0);
        assert_int_equal(self->own[class].spare != NULL, again);
    }
    for (unsigned other = 1; other <= CLASSES; other += other == class - 1 ? 2 : 1)
        for (unsigned i = 0; i < FULL; i++)
            give(other, held[other][i]);
    gr_options_parse("thread_cache:8M", "test: ");
}

static void cache_tick_empties_what_is_idle(void **state) {
    (void)state;
    static uint64_t now_ms = 1000000;
    void *p[40];
    for (unsigned i = 0; i < 40; i++)
        p[i] = take(6);
    for (unsigned i = 0; i < 40; i++)
        give(6, p[i]);
    void *busy = take(9);
    for (unsigned ticks = 0; ticks < 3; ticks++) {
        gr_cache_tick(self, now_ms += CACHE_TICK_MS);
        void *other = take(9); /* this class moves between ticks */
        give(9, busy);
        busy = take(9);
        give(9, other);
        give(9, busy);
        busy = take(9);
        invariants_hold();
    }
    assert_null(self->own[6].loaded);
    assert_int_equal(self->own[6].rounds, 0);
    give(9, busy);
    gr_cache_tick(NULL, now_ms += CACHE_TICK_MS); /* a thread without a cache */
}

/* ---- all of it at random ---- */

static void cache_random_calls_against_the_oracle(void **state) {
    (void)state;
    enum { MOST = 4000 };
    static struct {
        void *p;
        unsigned class;
        uint64_t name;
    } held[MOST];
    unsigned n = 0;
    struct rng rng = rng_for(1);
    for (unsigned turn = 0; turn < 300000; turn++) {
        bool grow = rng_below(&rng, 1000) < (turn / 3000 % 2 ? 700u : 300u); /* tides */
        if (grow && n < MOST) {
            unsigned class = 1 + (unsigned)rng_below(&rng, 1 + rng_below(&rng, 40));
            void *p = take(class);
            must(p && page_class_of(p) == class);
            held[n].p = p;
            held[n].class = class;
            held[n].name = rng_next(&rng);
            memcpy(p, &held[n++].name, 8);
        } else if (n) {
            unsigned i = (unsigned)rng_below(&rng, n);
            must(!memcmp(held[i].p, &held[i].name, 8)); /* nobody else was given it */
            give(held[i].class, held[i].p);
            held[i] = held[--n];
        }
        if (turn % 1000 == 0)
            invariants_hold();
        if (turn % 20000 == 0)
            gr_cache_tick(self, turn);
    }
    while (n--)
        give(held[n].class, held[n].p);
}

#define TEST(test) cmocka_unit_test_teardown(test, all_home)

int main(void) {
    gr_options_parse("purge_ms:never", "test: ");
    slow_enter();
    self = gr_thread_cache_slow();
    must(self && self == gr_self);
    const struct CMUnitTest tests[] = {
        TEST(cache_of_no_thread_holds_and_accepts_nothing),
        TEST(cache_last_in_first_out),
        TEST(cache_refuses_the_block_freed_last),
        TEST(cache_lowest_address_first),
        TEST(cache_refill_takes_a_full_spare),
        TEST(cache_refill_grows_by_misses),
        TEST(cache_refill_from_the_spare_then_the_depot_then_slabs),
        TEST(cache_that_swings_within_two_magazines_gets_larger_ones),
        TEST(cache_of_who_only_frees_keeps_no_spare),
        TEST(cache_overflow_loses_nothing),
        TEST(cache_flush_keeps_full_magazines_for_others),
        TEST(cache_clean_block_reads_as_zero),
        TEST(cache_direct_calls_hold_nothing_back),
        TEST(cache_claims_little_at_first),
        TEST(cache_holds_a_slab_of_what_it_uses_much),
        TEST(cache_budget_is_larger_for_what_swings),
        TEST(cache_budget_is_shared_by_the_threads),
        TEST(cache_grows_within_the_budget),
        TEST(cache_beyond_the_budget_has_one_magazine_until_it_needs_two),
        TEST(cache_tick_empties_what_is_idle),
        TEST(cache_random_calls_against_the_oracle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
