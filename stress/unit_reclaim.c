/* unit_reclaim.c -- cache/reclaim.h: each row of its tables. Another thread, the owner, does what it is told while the taker, the
 * main thread, is between two of its steps: at the two heavy fences, where the wrapped system call lets it go on.
 */
/* Not in the hardened build, whose magazines are not taken from: malloc there takes any round. */
/* test: hardened=off wrap=syscall */
#include "test.h"

#include <semaphore.h>
#include <sys/syscall.h>

#include "cache/reclaim.h"
#include "cache/thread.h"
#include "central/depot.h"
#include "granary.h"

enum { CLASS = 20, FILL = 4 };

/* ---- the owner ---- */

static struct {
    pthread_t thread;
    sem_t go, done;
    void (*deed)(void); /* NULL: end */
    struct cache *cache;
    void *block[FILL];
} owner;

static void *own(void *unused) {
    for (;;) {
        sem_wait(&owner.go);
        if (!owner.deed)
            return unused;
        owner.deed();
        sem_post(&owner.done);
    }
}

static void let(void (*deed)(void)) {
    owner.deed = deed;
    sem_post(&owner.go);
    sem_wait(&owner.done);
}

static size_t size(void) { return class_bytes(CLASS); }

static void take_all(void) {
    for (unsigned i = 0; i < FILL; i++) {
        owner.block[i] = granary_malloc(size());
        must(owner.block[i] && page_class_of(owner.block[i]) == CLASS);
        pattern_fill(owner.block[i], size(), i);
    }
    owner.cache = gr_self;
    must(cache_serves(owner.cache));
}
static void give_all(void) {
    for (unsigned i = 0; i < FILL; i++) {
        must(pattern_holds(owner.block[i], size(), i));
        granary_free(owner.block[i]);
    }
}
static void use(void) {
    take_all();
    give_all();
}
static void end(void) {
    owner.deed = NULL;
    sem_post(&owner.go);
    must(pthread_join(owner.thread, NULL) == 0);
    owner.cache = NULL;
}

/* The owner has taken and freed FILL blocks, and what was not handed out waits with them. */
static int begin(void **state) {
    (void)state;
    sem_init(&owner.go, 0, 0);
    sem_init(&owner.done, 0, 0);
    must(pthread_create(&owner.thread, NULL, own, NULL) == 0);
    let(use);
    return 0;
}

static bool is_home(unsigned class) {
    gr_depot_dissolve(class);
    for (unsigned i = 0; i < 4; i++)
        gr_bin_trim(class, UINT32_MAX, true);
    return gr_bin_granules(class) == 0;
}

static int finish(void **state) {
    (void)state;
    if (owner.cache)
        end();
    must(is_home(CLASS));
    return 0;
}

static unsigned bottom(void) { return owner.cache->own[CLASS].bottom; }
static unsigned top(void) { return (unsigned)(owner.cache->top[CLASS] - owner.cache->own[CLASS].loaded->slot); }
static bool gate_is(uint32_t state) { return half_load_relaxed(&owner.cache->gate) == state; }

/* ---- the fences ---- */

static void (*at_fence[2])(void);
static int fences, refused_from = 1000;

long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
    if (number != SYS_membarrier)
        return __real_syscall(number, a, b, c, d, e, f);
    if (fences >= refused_from) {
        errno = ENOSYS;
        return -1;
    }
    long result = __real_syscall(number, a, b, c, d, e, f);
    if (result == 0 && a == 1 << 3) { /* expedited; to register is no fence */
        void (*deed)(void) = fences < 2 ? at_fence[fences] : NULL;
        fences++;
        if (deed)
            deed();
    }
    return result;
}

static uint64_t reclaim(void (*first)(void), void (*second)(void)) {
    at_fence[0] = first;
    at_fence[1] = second;
    fences = 0;
    uint64_t bytes = gr_caches_reclaim(false);
    at_fence[0] = at_fence[1] = NULL;
    return bytes;
}

/* ---- cut, as far as the top ---- */

static void reclaim_takes_all_of_an_idle_cache(void **state) {
    (void)state;
    unsigned blocks = top();
    assert_true(blocks >= FILL);
    assert_true(reclaim(NULL, NULL) >= blocks * size());
    assert_int_equal(bottom(), top());
    assert_true(gate_is(GATE_OPEN));
    assert_true(is_home(CLASS));
    let(use);
    assert_int_equal(bottom(), 0); /* a miss begins anew */
}

static void reclaim_leaves_what_is_used_when_only_the_idle_are_asked_for(void **state) {
    (void)state;
    gr_caches_reclaim(true);
    assert_true(gr_caches_reclaim(true) > 0);
    assert_int_equal(gr_caches_reclaim(true), 0);
    let(use);
    assert_int_equal(gr_caches_reclaim(true), 0); /* its top has moved */
    assert_true(gr_caches_reclaim(true) > 0);
}

static void push_two(void) {
    granary_free(owner.block[0]);
    granary_free(owner.block[1]);
}
static void take_two(void) {
    for (unsigned i = 0; i < 2; i++)
        owner.block[i] = granary_malloc(size());
}

static void reclaim_leaves_what_is_pushed_above_the_cut(void **state) {
    (void)state;
    let(take_two);
    unsigned was = top();
    reclaim(NULL, (void (*)(void))NULL);
    assert_int_equal(bottom(), was);
    let(push_two);
    assert_int_equal(top(), bottom() + 2);
    assert_true(reclaim(NULL, NULL) >= 2 * size());
    assert_int_equal(bottom(), was + 2);
}

static void push_over(void) { let(push_two); }
static void reclaim_takes_up_to_the_cut_while_the_owner_pushes(void **state) {
    (void)state;
    let(take_two);
    unsigned was = top();
    assert_true(reclaim(NULL, push_over) > 0);
    assert_int_equal(bottom(), was);
    assert_int_equal(top(), was + 2);
    let(use);
}

/* The owner finds the cut round, its gate claimed, and goes to the slabs. */
static unsigned top_inside;
static void pop_at_cut(void) {
    let(take_two);
    top_inside = top();
    must(gate_is(GATE_CLAIMED));
}
static void pop_at_the_cut_goes_to_the_slabs(void **state) {
    (void)state;
    unsigned was = top();
    assert_true(reclaim(NULL, pop_at_cut) > 0);
    assert_int_equal(top_inside, was);
    assert_int_equal(bottom(), was);
    assert_ptr_not_equal(owner.block[0], owner.block[1]);
    let(push_two);
}

static void cut_is_mended_without_a_fence(void **state) {
    (void)state;
    void *before[64];
    unsigned was = top();
    memcpy(before, owner.cache->own[CLASS].loaded->slot, (was + 1) * sizeof *before);
    refused_from = 1;
    reclaim(NULL, NULL);
    refused_from = 1000;
    assert_int_equal(bottom(), 0);
    assert_int_equal(top(), was);
    assert_memory_equal(before, owner.cache->own[CLASS].loaded->slot, (was + 1) * sizeof *before);
    refused_from = 0; /* no gate is claimed either */
    assert_int_equal(reclaim(NULL, NULL), 0);
    refused_from = 1000;
    assert_true(gate_is(GATE_OPEN));
}

/* Full above the bottom: the next push moves the rounds down. */
static void fill_up(void) {
    static void *all[2000];
    struct magazine *m = owner.cache->own[CLASS].loaded;
    unsigned n = 0, from = owner.cache->own[CLASS].bottom;
    must(from > 0);
    while (n < m->rounds)
        must((all[n++] = gr_direct_alloc(CLASS)) != NULL);
    for (unsigned i = 0; i < n; i++) {
        must(cache_push_owner(gr_self, CLASS, all[i]) == (from + i < m->rounds));
        if (from + i >= m->rounds) {
            granary_free(all[i]);
            must(owner.cache->own[CLASS].bottom == 0 && owner.cache->own[CLASS].loaded == m && top() == i + 1);
            from = 0;
        }
    }
}
static void full_above_the_bottom_finds_room_below(void **state) {
    (void)state;
    reclaim(NULL, NULL);
    let(fill_up);
}

/* ---- the gate ---- */

static void enter(void) {
    slow_enter();
    must(gr_thread_cache_slow() == owner.cache);
}
static void reclaim_leaves_who_is_inside(void **state) {
    (void)state;
    let(enter);
    assert_int_equal(reclaim(NULL, NULL), 0);
    assert_true(gate_is(GATE_OPEN));
    let(slow_leave);
    assert_true(reclaim(NULL, NULL) > 0);
}

static void miss_and_free(void) {
    slow_enter();
    must(gr_thread_cache_slow() == NULL);
    slow_leave();
    void *p = granary_malloc(40000), *q = granary_malloc(40000); /* nothing of their class is cached */
    must(p && q && p != q);
    granary_free(p);
    granary_free(q);
}
static void use_claimed(void) { let(miss_and_free); }
static void claimed_owner_allocates_from_the_slabs(void **state) {
    (void)state;
    assert_true(reclaim(use_claimed, use_claimed) > 0);
    let(use);
}

static uint64_t alive;
static struct cache *left;
static void end_claimed(void) {
    left = owner.cache;
    end();
    must(half_load_relaxed(&left->gate) == GATE_ABANDONED && half_load_relaxed(&left->state) == CACHE_LIVE);
    must(gr_threads_alive() == alive);
}
static void abandoned_is_inherited(void **state) {
    for (unsigned fence = 0; fence < 2; fence++) {
        if (fence)
            begin(state);
        alive = gr_threads_alive();
        reclaim(fence ? NULL : end_claimed, fence ? end_claimed : NULL);
        assert_true(half_load_relaxed(&left->gate) == GATE_OPEN && half_load_relaxed(&left->state) == CACHE_UNUSED);
        assert_int_equal(gr_threads_alive(), alive - 1);
        assert_true(is_home(CLASS));
    }
}

/* A record in the pool whose taker sleeps: births take another, and have a cache. */
static void birth_leaves_a_claimed_record(void **state) {
    left = owner.cache;
    end();
    half_store_relaxed(&left->gate, GATE_CLAIMED);
    begin(state);
    assert_ptr_not_equal(owner.cache, left);
    gr_reclaim_repair(&gr_nobody); /* as in a child */
    assert_int_equal(half_load_relaxed(&left->gate), GATE_OPEN);
}

/* ---- fork ---- */

static int all_but_the_cut_come_home(void *unused) {
    (void)unused;
    slow_enter();
    gr_orphans_home();
    slow_leave();
    uint64_t claimed = gr_bin_granules(CLASS);
    must(claimed == gr_classes[CLASS].granules && !is_home(CLASS)); /* the block that was cut is lost */
    struct holding h = {0, 0, 0, 0};
    static void *all[4096];
    bool clean;
    unsigned n = gr_bin_claim(&h, CLASS, all, gr_classes[CLASS].capacity - 1u, &clean);
    must(n == gr_classes[CLASS].capacity - 1u && gr_bin_granules(CLASS) == claimed);
    must(gr_threads_alive() == 0);
    must(granary_malloc(size()) != NULL);
    return 0;
}
static void fork_beside_the_cut(void) { must_end_well(in_child(all_but_the_cut_come_home, NULL, 120), "fork"); }
static void child_gets_what_was_cut_but_for_the_round(void **state) {
    (void)state;
    assert_true(reclaim(NULL, fork_beside_the_cut) > 0);
    assert_true(is_home(CLASS));
}

/* What vanished threads held waits where it is until the child's heap grows, also in a child of the child. */
static int orphans_wait_for_growth(void *depth) {
    if (depth) {
        must_end_well(in_child(orphans_wait_for_growth, NULL, 60), "fork");
        return 0;
    }
    must(gr_threads_alive() == 0 && gr_caches_reclaim(false) == 0 && !is_home(CLASS));
    uint64_t mapped = gr_granules_mapped();
    for (unsigned i = 0; gr_granules_mapped() == mapped; i++) {
        must(i < 1000 && !is_home(CLASS));
        must(granary_malloc(GRANULE_BYTES * 4) != NULL);
    }
    must(is_home(CLASS) && gr_threads_alive() == 1);
    return 0;
}
static void child_brings_orphans_home_when_it_grows(void **state) {
    (void)state;
    must_end_well(in_child(orphans_wait_for_growth, NULL, 60), "fork");
    must_end_well(in_child(orphans_wait_for_growth, "a child of a child", 60), "fork");
}

/* The survivor's own magazine, cut by a taker that has vanished. */
static void repair_own(void) {
    struct cache *self = gr_self;
    void **slot = self->own[CLASS].loaded->slot, *cut = slot[2];
    unsigned was = top();
    must(was > 3);
    slot[2] = NULL;
    half_store_relaxed(&self->gate, GATE_CLAIMED);
    gr_reclaim_repair(self);
    must(gate_is(GATE_OPEN) && bottom() == 2 && top() == was);
    gr_direct_free(CLASS, cut, "free");
    self->top[CLASS] = &slot[bottom() - 1]; /* in the middle of a pop that finds nothing */
    void **rest = &slot[bottom() + 1];
    gr_reclaim_repair(self);
    must(bottom() == 2 && self->top[CLASS] == &slot[1]);
    gr_bin_return(CLASS, rest, was - 2, "free");
    self->top[CLASS] = &slot[2];
}
static void repair_ends_the_cut_and_leaves_the_top(void **state) {
    (void)state;
    let(repair_own);
    let(use);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, begin, finish)

int main(void) {
    if (__real_syscall(SYS_membarrier, 1 << 4, 0, 0, 0, 0, 0) != 0)
        return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        TEST(reclaim_takes_all_of_an_idle_cache),
        TEST(reclaim_leaves_what_is_used_when_only_the_idle_are_asked_for),
        TEST(reclaim_leaves_what_is_pushed_above_the_cut),
        TEST(reclaim_takes_up_to_the_cut_while_the_owner_pushes),
        TEST(pop_at_the_cut_goes_to_the_slabs),
        TEST(cut_is_mended_without_a_fence),
        TEST(full_above_the_bottom_finds_room_below),
        TEST(reclaim_leaves_who_is_inside),
        TEST(claimed_owner_allocates_from_the_slabs),
        TEST(abandoned_is_inherited),
        TEST(birth_leaves_a_claimed_record),
        TEST(child_gets_what_was_cut_but_for_the_round),
        TEST(child_brings_orphans_home_when_it_grows),
        TEST(repair_ends_the_cut_and_leaves_the_top),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
