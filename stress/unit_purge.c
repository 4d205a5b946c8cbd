/* unit_purge.c -- page/purge.h: what is purged when, under a clock that the test sets. */
/* test: wrap=madvise,os_clock_us */
#include "test.h"

#include "os/options.h"
#include "page/arena.h"
#include "page/purge.h"
#include "page/region.h"

static uint64_t clock_ms = 1000000;

/* The fine clock, which stands still but while the system purges. */
static uint64_t clock_us = 1, us_a_purge;
static unsigned clock_reads;
uint64_t __wrap_os_clock_us(void);
uint64_t __wrap_os_clock_us(void) {
    clock_reads++;
    return clock_us;
}

static void (*during_purge)(void);
static unsigned madvised;
static struct {
    char *at;
    size_t bytes;
} purges[256]; /* the last ones, by their number */
int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice) {
    if (advice == MADV_DONTNEED) {
        purges[madvised % COUNT_OF(purges)].at = at;
        purges[madvised++ % COUNT_OF(purges)].bytes = bytes;
        clock_us += us_a_purge;
        if (during_purge)
            during_purge();
    }
    return __real_madvise(at, bytes, advice);
}

enum { DELAY_MS = 1000 };

static size_t dirty_run(size_t granules) {
    size_t first = gr_run_claim(granules, 1);
    must(first);
    gr_run_mark_dirty(first, granules);
    for (size_t g = first; g < first + granules; g++)
        memset(region_address(g), 1, 64);
    return first;
}

static void pass(uint64_t ms) { clock_ms += ms; }

/* Somebody looks in each tick for so long: ages are counted in ticks that were seen. */
static void live(uint64_t ms) {
    for (uint64_t end = clock_ms + ms; clock_ms < end;) {
        pass(PURGE_TICK_MS);
        gr_purge_poll(clock_ms);
    }
}

/* Nothing dirty. */
static int start_clean(void **state) {
    (void)state;
    during_purge = NULL;
    us_a_purge = 0;
    gr_purge_all(0);
    live(2 * PURGE_TICK_MS);
    return gr_vacant_dirty() != 0;
}

static void purge_is_due_modulo_256(void **state) {
    (void)state;
    for (unsigned stamp = 0; stamp < 256; stamp++)
        for (unsigned age = 0; age < 256; age++)
            for (uint64_t ticks = 1; ticks <= 250; ticks += 3) {
                uint64_t now = 7 * 256 + stamp + age;
                assert_int_equal(gr_purge_is_due((uint8_t)stamp, now, ticks), age >= ticks);
            }
}

static void purge_not_before_the_delay(void **state) {
    (void)state;
    size_t first = dirty_run(3);
    gr_run_free(first, 3);
    live(DELAY_MS - PURGE_TICK_MS);
    assert_int_equal(gr_vacant_dirty(), 3);
    assert_int_equal(*(char *)region_address(first), 1);
}

static void purge_soon_after_the_delay(void **state) {
    (void)state;
    uint64_t purged = gr_purged();
    size_t first = dirty_run(3);
    gr_run_free(first, 3);
    live(DELAY_MS + 2 * PURGE_TICK_MS);
    assert_int_equal(gr_vacant_dirty(), 0);
    assert_int_equal(gr_purged(), purged + 3);
    assert_int_equal(*(char *)region_address(first), 0);
}

/* Nobody looked for an hour: what was freed just now is not old. */
static void purge_not_what_was_freed_after_a_long_silence(void **state) {
    (void)state;
    for (uint64_t silence = DELAY_MS; silence < 60 * DELAY_MS; silence += 7 * PURGE_TICK_MS) {
        pass(silence);
        size_t first = dirty_run(1);
        gr_run_free(first, 1);
        gr_purge_poll(clock_ms);
        assert_int_equal(gr_vacant_dirty(), 1);
        gr_purge_all(0);
    }
}

static void purge_each_granule_by_its_own_stamp(void **state) {
    (void)state;
    size_t first = dirty_run(4);
    gr_run_free(first, 1);
    live(DELAY_MS / 2);
    gr_run_free(first + 1, 3);
    live(DELAY_MS / 2 + 2 * PURGE_TICK_MS);
    assert_int_equal(gr_vacant_dirty(), 3);
    live(DELAY_MS / 2);
    assert_int_equal(gr_vacant_dirty(), 0);
}

static void purge_looks_once_a_tick(void **state) {
    (void)state;
    size_t first = dirty_run(2);
    pass(PURGE_TICK_MS);
    gr_purge_poll(clock_ms);
    gr_run_free(first, 2);
    unsigned before = madvised;
    for (unsigned i = 0; i < 1000; i++)
        gr_purge_poll(clock_ms);
    assert_int_equal(madvised, before);
    assert_int_equal(gr_vacant_dirty(), 2);
}

static void purge_used_again_is_not_purged(void **state) {
    (void)state;
    size_t first = dirty_run(2);
    gr_run_free(first, 2);
    live(DELAY_MS / 2);
    assert_int_equal(gr_run_claim(2, 1), first); /* dirty ones first */
    gr_run_mark_dirty(first, 2);
    live(3 * DELAY_MS);
    assert_int_equal(*(char *)region_address(first), 1);
    gr_run_free(first, 2);
    live(DELAY_MS / 2);
    assert_int_equal(gr_vacant_dirty(), 2);
}

static void purge_bounded_in_one_turn_and_goes_on(void **state) {
    (void)state;
    enum { COUNT = 5 * PURGE_TURN_GRANULES + 7 };
    size_t first = dirty_run(COUNT);
    gr_run_free(first, COUNT);
    live(DELAY_MS - PURGE_TICK_MS);
    pass(PURGE_TICK_MS);
    unsigned polls = 0;
    for (uint64_t left = COUNT; left; left = gr_vacant_dirty()) {
        gr_purge_poll(clock_ms); /* in the same tick: there is more to do; the rest of a word may wait for the next */
        assert_true(gr_vacant_dirty() + PURGE_TURN_GRANULES >= left);
        if (gr_vacant_dirty() == left)
            pass(PURGE_TICK_MS);
        assert_true(++polls <= COUNT / PURGE_TURN_GRANULES + 3);
    }
    assert_int_equal(gr_purged_most_once(), PURGE_TURN_GRANULES);
}

enum { SPREAD = 20, SPREAD_PART = 2 };

/* A little in each of many chunks, the rest of which is in use: a step each. */
static size_t spread_run(void) {
    size_t first = gr_run_claim(SPREAD * CHUNK_GRANULES, CHUNK_GRANULES);
    must(first);
    gr_run_mark_dirty(first, SPREAD * CHUNK_GRANULES);
    for (size_t i = 0; i < SPREAD; i++)
        gr_run_free(first + i * CHUNK_GRANULES, SPREAD_PART);
    return first;
}

static void free_spread_rest(size_t first) {
    for (size_t i = 0; i < SPREAD; i++)
        gr_run_free(first + i * CHUNK_GRANULES + SPREAD_PART, CHUNK_GRANULES - SPREAD_PART);
}

/* A system that takes long over a step ends the turn, whose next one goes on there. */
static void purge_bounded_in_time_and_goes_on(void **state) {
    (void)state;
    static const struct {
        unsigned us, steps;
    } slow[] = {{PURGE_TURN_US / 3 + 1, 3},
                {PURGE_TURN_US / 2, 2},
                {PURGE_TURN_US - 1, 2},
                {PURGE_TURN_US, 1},
                {UINT32_MAX, 1}};
    for (size_t i = 0; i < COUNT_OF(slow); i++) {
        size_t first = spread_run();
        live(DELAY_MS);
        assert_int_equal(gr_vacant_dirty(), SPREAD * SPREAD_PART);
        us_a_purge = slow[i].us;
        pass(PURGE_TICK_MS);
        for (uint64_t left = SPREAD; left;) {
            uint64_t step = left < slow[i].steps ? left : slow[i].steps;
            unsigned before = madvised, reads = clock_reads;
            assert_int_equal(gr_purge_poll(clock_ms), left > step);
            assert_int_equal(madvised - before, step);
            assert_true(clock_reads - reads <= step + 1); /* none for what makes no system call */
            left -= step;
            assert_int_equal(gr_vacant_dirty(), left * SPREAD_PART);
        }
        us_a_purge = 0;
        free_spread_rest(first);
        gr_purge_all(0);
    }
}

/* Who asks for all gets all, however long it takes. */
static void purge_all_has_no_bound(void **state) {
    (void)state;
    size_t first = spread_run();
    us_a_purge = UINT32_MAX;
    assert_int_equal(gr_purge_all(0), SPREAD * SPREAD_PART);
    us_a_purge = 0;
    free_spread_rest(first);
}

static int by_address(const void *left, const void *right) {
    const size_t a = *(const size_t *)left, b = *(const size_t *)right;
    return a < b ? -1 : a > b;
}

/* Freed in any order, within a tick and the bound of a turn: one call for each gap, neighbours together, from the lowest to the highest. */
static void purge_in_address_order_and_coalesced(void **state) {
    (void)state;
    enum { CHUNKS = 3, ALL = CHUNKS * CHUNK_GRANULES };
    for (uint64_t seed = 1; seed < 20; seed++) {
        size_t first = gr_run_claim(ALL, CHUNK_GRANULES), order[ALL], n = 0, gaps = 0;
        bool freed[ALL] = {false};
        must(first);
        gr_run_mark_dirty(first, ALL);
        for (size_t g = 0; g < ALL && n < PURGE_TURN_GRANULES; g++) /* rows of a few, between granules that stay */
            if (mix(seed * ALL + g / 3) % 4 == 0)
                order[n++] = g;
        for (size_t i = n; i > 1; i--) {
            size_t k = mix(seed + i) % i, at = order[k];
            order[k] = order[i - 1];
            order[i - 1] = at;
        }
        for (size_t i = 0; i < n; i++) {
            gr_run_free(first + order[i], 1);
            freed[order[i]] = true;
        }
        unsigned before = madvised;
        live(3 * DELAY_MS);
        assert_int_equal(gr_vacant_dirty(), 0);
        qsort(order, n, sizeof *order, by_address);
        for (size_t i = 0, to; i < n; i = to, gaps++) {
            for (to = i + 1; to < n && order[to] == order[to - 1] + 1 && order[to] % CHUNK_GRANULES; to++)
                ;
            assert_true(before + gaps < madvised);
            assert_ptr_equal(purges[(before + gaps) % COUNT_OF(purges)].at, region_address(first + order[i]));
            assert_int_equal(purges[(before + gaps) % COUNT_OF(purges)].bytes, (to - i) * GRANULE_BYTES);
        }
        assert_int_equal(madvised, before + gaps);
        for (size_t g = 0; g < ALL; g++)
            if (!freed[g])
                gr_run_free(first + g, 1);
        gr_purge_all(0);
    }
}

static void purge_all_keeps_what_it_is_told(void **state) {
    (void)state;
    for (uint64_t keep = 0; keep < 200; keep += 13) {
        size_t first = dirty_run(150);
        gr_run_free(first, 150);
        uint64_t have = gr_vacant_dirty(), done = gr_purge_all(keep);
        assert_int_equal(done, have > keep ? have - keep : 0);
        assert_int_equal(gr_vacant_dirty(), have - done);
    }
}

static void purge_never(void **state) {
    (void)state;
    gr_options_parse("purge_ms:never", "test: ");
    size_t first = dirty_run(3);
    gr_run_free(first, 3);
    live(60 * DELAY_MS);
    assert_int_equal(gr_vacant_dirty(), 3);
    gr_options_parse("purge_ms:1000", "test: ");
}

static void purge_at_once(void **state) {
    (void)state;
    gr_options_parse("purge_ms:0", "test: ");
    size_t first = dirty_run(3);
    gr_run_free(first, 3);
    live(PURGE_TICK_MS);
    assert_int_equal(gr_vacant_dirty(), 0);
    gr_options_parse("purge_ms:1000", "test: ");
}

/* ---- one-purger ---- */

static bool was_busy;

static void purge_again_inside(void) {
    during_purge = NULL;
    was_busy = gr_purge_all(0) == 0;
    gr_purge_poll(clock_ms);
}

static void purge_busy_to_others(void **state) {
    (void)state;
    size_t first = dirty_run(1);
    size_t second = dirty_run(1);
    gr_run_free(first, 1);
    gr_run_free(second, 1);
    during_purge = purge_again_inside;
    was_busy = false;
    assert_int_equal(gr_purge_all(0), 2);
    assert_true(was_busy);
}

static int fork_result;

static void fork_inside(void) {
    during_purge = NULL;
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) { /* the purger's own thread is this one, but let us say that it vanished */
        bool busy = gr_purge_all(0) == 0;
        gr_purge_repair();
        size_t first = dirty_run(5);
        gr_run_free(first, 5);
        _exit(busy && gr_purge_all(0) >= 5 ? 0 : 1);
    }
    waitpid(child, &fork_result, 0);
}

static void purge_repaired_after_fork(void **state) {
    (void)state;
    size_t first = dirty_run(1);
    gr_run_free(first, 1);
    during_purge = fork_inside;
    fork_result = -1;
    gr_purge_all(0);
    assert_int_equal(fork_result, 0);
}

/* One page of each granule is in memory, which is sparse; a run that is wholly there stays. */
static void purge_sparse_in_turns(void **state) {
    (void)state;
    enum { RUN = LARGE_MAX_GRANULES, FULL = 8 };
    size_t full = dirty_run(FULL), sparse = dirty_run(RUN);
    memset(region_address(full), 1, FULL * (size_t)GRANULE_BYTES);
    gr_purge_poll_sparse();
    gr_run_free(full, FULL);
    gr_run_free(sparse, RUN);
    uint64_t before = gr_purged();
    gr_purge_poll_sparse();
    assert_int_equal(gr_purged(), before); /* nothing large was freed */
    gr_purge_freed(SPARSE_SWEEP_GRANULES);
    unsigned turns = 0;
    for (uint64_t purged = before; gr_purged() < before + RUN; purged = gr_purged()) {
        gr_purge_poll_sparse();
        assert_in_range(gr_purged() - purged, 1, SPARSE_TURN_GRANULES);
        turns++;
    }
    assert_in_range(turns, RUN / SPARSE_TURN_GRANULES, RUN / SPARSE_TURN_GRANULES + 2);
    assert_int_equal(gr_vacant_dirty(), FULL);
    for (unsigned i = 0; i < 3; i++)
        gr_purge_poll_sparse();
    assert_int_equal(gr_vacant_dirty(), FULL);
}

static void purge_sparse_bounded_in_time(void **state) {
    (void)state;
    enum { RUN = LARGE_MAX_GRANULES, CHUNKS = RUN / CHUNK_GRANULES };
    size_t sparse = gr_run_claim(RUN, CHUNK_GRANULES);
    gr_run_mark_dirty(sparse, RUN);
    for (size_t g = sparse; g < sparse + RUN; g++)
        memset(region_address(g), 1, 64);
    gr_run_free(sparse, RUN);
    gr_purge_freed(SPARSE_SWEEP_GRANULES);
    us_a_purge = PURGE_TURN_US / 2;
    for (unsigned left = CHUNKS; left; left -= 2) {
        assert_int_equal(gr_vacant_dirty(), left * CHUNK_GRANULES);
        gr_purge_poll_sparse();
    }
    assert_int_equal(gr_vacant_dirty(), 0);
    us_a_purge = 0;
    gr_purge_poll_sparse();
}

#define TEST(test) cmocka_unit_test_setup(test, start_clean)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(purge_is_due_modulo_256),
        TEST(purge_not_before_the_delay),
        TEST(purge_soon_after_the_delay),
        TEST(purge_not_what_was_freed_after_a_long_silence),
        TEST(purge_each_granule_by_its_own_stamp),
        TEST(purge_looks_once_a_tick),
        TEST(purge_used_again_is_not_purged),
        TEST(purge_bounded_in_one_turn_and_goes_on),
        TEST(purge_bounded_in_time_and_goes_on),
        TEST(purge_all_has_no_bound),
        TEST(purge_in_address_order_and_coalesced),
        TEST(purge_all_keeps_what_it_is_told),
        TEST(purge_never),
        TEST(purge_at_once),
        TEST(purge_busy_to_others),
        TEST(purge_repaired_after_fork),
        TEST(purge_sparse_in_turns),
        TEST(purge_sparse_bounded_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
