/* unit_limit.c -- page/limit.h: the footprint is what is held or dirty, whatever is done to runs and huge blocks and whatever the
 * system refuses; the hard limit is exact; the soft one is near once for each step; the control group is asked when it should be.
 */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect,gr_cgroup_limit timeout=120 */
#include "oom_fault.h"

#include "os/cgroup.h"
#define option library_option /* <getopt.h> has one, too */
#include "os/options.h"
#include "page/arena.h"
#include "page/guard.h"
#include "page/huge.h"
#include "page/large.h"
#include "page/limit.h"
#include "page/purge.h"

static uint64_t group_limit = CGROUP_NO_LIMIT;
static bool group_known = true;
static unsigned group_asked;
bool __wrap_gr_cgroup_limit(const char *root, uint64_t *bytes);
bool __wrap_gr_cgroup_limit(const char *root, uint64_t *bytes) {
    must(!*root);
    group_asked++;
    if (group_known)
        *bytes = group_limit;
    return group_known;
}

static void set(const char *options) {
    gr_options_parse(options, "unit: ");
    gr_limit_start();
}

static int start(void **state) {
    (void)state;
    set("limit_soft:auto,limit_hard:never");
    group_limit = CGROUP_NO_LIMIT;
    group_known = true;
    group_asked = 0;
    return 0;
}

/* Granule 0 is nobody's and was never given out. */
static uint64_t held_and_dirty(void) {
    struct arena_totals t = gr_arena_totals();
    return (t.mapped - t.vacant - (t.mapped != 0) + t.vacant_dirty) * GRANULE_BYTES + gr_huge_total();
}

enum { PLACES = 48 };
static struct place {
    void *block; /* large or huge */
    size_t first, granules;
} places[PLACES];

static void let_go(struct place *p) {
    if (p->first)
        gr_run_free(p->first, p->granules);
    else if (p->block && page_class_of(p->block))
        assert_true(gr_large_free(p->block));
    else if (p->block)
        assert_true(gr_huge_free(p->block));
    *p = (struct place){NULL, 0, 0};
}

static void grow(struct place *p, size_t bytes) {
    if (!p->block)
        return;
    if (!page_class_of(p->block)) {
        void *moved = gr_huge_resize(p->block, bytes);
        p->block = moved ? moved : p->block;
        return;
    }
    if (gr_large_resize(p->block, bytes) || bytes <= gr_large_bytes(p->block))
        return;
    void *moved = bytes % 3 ? gr_large_move(p->block, bytes) : gr_large_to_huge(p->block, bytes);
    p->block = moved ? moved : p->block;
}

static void act(struct rng *rng) {
    struct place *p = &places[rng_below(rng, PLACES)];
    size_t bytes = 300000 + rng_below(rng, 6 * MIB), n = 1 + rng_below(rng, 40);
    switch (rng_below(rng, 12)) {
    case 0:
    case 1:
        let_go(p);
        p->first = gr_run_claim(n, 1);
        p->granules = n;
        if (p->first && bytes % 2) /* else it is given back as clean as it came */
            gr_run_mark_dirty(p->first, n);
        break;
    case 2:
    case 3:
    case 4:
        let_go(p);
        p->block = gr_large_alloc(bytes, 1, bytes % 2);
        break;
    case 5:
        let_go(p);
        p->block = gr_huge_alloc(65 * MIB + bytes, bytes % 2 ? 1 : 8 * MIB);
        break;
    case 6:
    case 7:
        grow(p, bytes);
        break;
    case 8:
        gr_purge_all(rng_below(rng, 200));
        break;
    case 9:
        gr_arenas_unmap_vacant();
        break;
    default:
        let_go(p);
    }
}

static void act_often(uint64_t stream, unsigned faults) {
    struct rng rng = rng_for(stream);
    for (unsigned i = 0; i < 4000; i++) {
        if (faults && i % 4 == 0)
            fault_arm(faults, 1 + (long)rng_below(&rng, 3), rng_below(&rng, 2), ENOMEM);
        act(&rng);
        fault_disarm();
        assert_int_equal(limit_footprint(), held_and_dirty());
        assert_true(gr_limit_hard() == OPTION_NEVER || limit_footprint() <= gr_limit_hard());
    }
    for (size_t i = 0; i < PLACES; i++)
        let_go(&places[i]);
    gr_guard_flush();
    gr_purge_all(0);
    assert_int_equal(limit_footprint(), held_and_dirty());
    assert_int_equal(limit_footprint(), 0);
}

static void footprint_is_what_is_held_or_dirty(void **state) {
    (void)state;
    act_often(1, 0);
}

static void footprint_where_the_system_refuses(void **state) {
    (void)state;
    act_often(2, FAULT_MMAP | FAULT_MREMAP);
    act_often(3, FAULT_MADVISE | FAULT_MUNMAP);
}

static void footprint_stays_below_the_hard_limit(void **state) {
    (void)state;
    set("limit_hard:150M");
    act_often(4, 0);
    act_often(5, FAULT_MMAP | FAULT_MREMAP | FAULT_MUNMAP);
}

static void hard_is_exact(void **state) {
    (void)state;
    uint64_t used = limit_footprint();
    set("limit_hard:80M");
    uint64_t room = 80 * MIB - used;
    assert_true(gr_limit_take(room));
    assert_false(gr_limit_take(1));
    assert_false(gr_limit_take(UINT64_MAX / 2));
    assert_int_equal(limit_footprint(), 80 * MIB);
    gr_limit_give(room);
    assert_int_equal(limit_footprint(), used);
    void *p = gr_huge_alloc(70 * MIB, 1);
    assert_non_null(p);
    assert_null(gr_huge_alloc(70 * MIB, 1));
    assert_null(gr_huge_resize(p, 90 * MIB));
    assert_int_equal(gr_huge_bytes(p), 70 * MIB);
    if (!GRANARY_HARDENED) {
        p = gr_huge_resize(p, 75 * MIB); /* it moves, if it has to, and is never counted twice */
        assert_non_null(p);
    }
    assert_null(gr_large_alloc(20 * MIB, 1, false));
    assert_true(gr_huge_free(p));
    p = gr_large_alloc(20 * MIB, 1, false);
    assert_non_null(p);
    assert_true(gr_large_free(p));
    gr_guard_flush();
    gr_purge_all(0);
}

static void near_once_a_step(void **state) {
    (void)state;
    uint64_t used = limit_footprint();
    assert_false(limit_is_near(1ull << 46)); /* no limit */
    set("limit_soft:64M");
    assert_false(limit_is_near(64 * MIB - used));
    assert_true(limit_is_near(64 * MIB - used + 1));
    assert_true(gr_limit_take(100 * MIB)); /* not refused */
    assert_true(limit_is_near(0));
    gr_limit_relieved();
    assert_false(limit_is_near(CHUNK_BYTES));
    assert_true(limit_is_near(CHUNK_BYTES + 1));
    gr_limit_give(50 * MIB);
    gr_limit_ask(10 * LIMIT_ASK_MS); /* the heap is smaller: the next time it is relieved at the limit again */
    assert_false(limit_is_near(14 * MIB - used));
    assert_true(limit_is_near(14 * MIB - used + 1));
    gr_limit_give(50 * MIB);
    set("limit_soft:6400M");
    gr_limit_take(6500 * MIB);
    gr_limit_relieved();
    assert_false(limit_is_near(200 * MIB));
    assert_true(limit_is_near(200 * MIB + 1));
    gr_limit_give(6500 * MIB);
}

static void the_group_is_asked(void **state) {
    (void)state;
    uint64_t used = limit_footprint(), now = 100 * LIMIT_ASK_MS;
    group_limit = 160 * MIB;
    limit_poll(now);
    assert_int_equal(group_asked, 0); /* a small heap */
    gr_limit_take(100 * MIB);
    limit_poll(now);
    limit_poll(now + LIMIT_ASK_MS - 1);
    assert_int_equal(group_asked, 1);
    assert_int_equal(gr_limit_soft(), 150 * MIB);
    assert_false(limit_is_near(50 * MIB - used));
    assert_true(limit_is_near(50 * MIB - used + 1));
    group_limit = 80 * MIB; /* made smaller while it runs */
    limit_poll(now += LIMIT_ASK_MS);
    assert_int_equal(gr_limit_soft(), 75 * MIB);
    assert_true(limit_is_near(0));
    group_known = false; /* no descriptor is to be had: what was known holds */
    limit_poll(now += LIMIT_ASK_MS);
    assert_int_equal(gr_limit_soft(), 75 * MIB);
    group_known = true;
    group_limit = CGROUP_NO_LIMIT;
    limit_poll(now += LIMIT_ASK_MS);
    assert_int_equal(gr_limit_soft(), OPTION_NEVER);
    assert_false(limit_is_near(GIB));
    assert_int_equal(group_asked, 4);
    set("limit_soft:never");
    limit_poll(now += LIMIT_ASK_MS);
    set("limit_soft:1G");
    limit_poll(now += LIMIT_ASK_MS);
    assert_int_equal(group_asked, 4); /* who sets a limit opens no file */
    gr_limit_give(100 * MIB);
}

#define FROM_NO_LIMITS(test) cmocka_unit_test_setup(test, start)

int main(void) {
    const struct CMUnitTest tests[] = {
        FROM_NO_LIMITS(footprint_is_what_is_held_or_dirty),
        FROM_NO_LIMITS(footprint_where_the_system_refuses),
        FROM_NO_LIMITS(footprint_stays_below_the_hard_limit),
        FROM_NO_LIMITS(hard_is_exact),
        FROM_NO_LIMITS(near_once_a_step),
        FROM_NO_LIMITS(the_group_is_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
