/* memory_huge_pages.c -- huge pages that thp:auto asks for cost a twentieth of memory at most: in a heap of small blocks far above
 * where it begins to ask, full, and sparse in two degrees after random frees, beside the same heap under thp:never. A heap of a few MiB
 * asks for them behind pages that are in use, and behind others does not. No page is dear: the thread's clock stands still.
 */
/* test: sanitize=off timeout=120 serial=on wrap=madvise,clock_gettime */
#include "semantics_calls.h"

#include <stdatomic.h>

#include "os/options.h"

enum { BLOCKS = 500 * 1000, ASKS_FROM = 64 * MIB, STEADY_MS = 1200, WAIT_SECONDS = 30 };
enum { FULL, HALF, TWENTIETH, STATES };
static const char *const states[STATES] = {"full", "half freed", "a twentieth kept"};
static const unsigned kept_percent[STATES] = {100, 50, 5};

struct figures {
    size_t rss[STATES], asked, huge; /* bytes; asked for huge pages, and in them when full */
};

static _Atomic size_t asked;
int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice) {
    asked += advice == MADV_HUGEPAGE ? bytes : 0;
    return __real_madvise(at, bytes, advice);
}

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
    if (clock != CLOCK_THREAD_CPUTIME_ID)
        return __real_clock_gettime(clock, now);
    *now = (struct timespec){0, 0};
    return 0;
}

static size_t size_of_block(size_t i) { return 16 + mix(i) % 1000; }

static size_t bytes_in_huge_pages(void) {
    char text[4096], *at;
    read_file("/proc/self/smaps_rollup", text, sizeof text);
    at = strstr(text, "\nAnonHugePages:");
    return at ? strtoull(at + strlen("\nAnonHugePages:"), NULL, 10) * KIB : 0;
}

/* What is resident when that has been the same for some turns of the keeper. */
static size_t rss_at_rest(void) {
    size_t rss = 0;
    unsigned steady = 0;
    for (double end = seconds_now() + WAIT_SECONDS; steady < STEADY_MS / 50 && seconds_now() < end; usleep(50 * 1000)) {
        size_t now = rss_bytes();
        steady = now == rss ? steady + 1 : 0;
        rss = now;
    }
    return rss;
}

static int load(void *figures, const char *options) {
    static void *blocks[BLOCKS];
    struct figures *f = figures;
    gr_options_parse(options, "test: ");
    memset(blocks, 0, sizeof blocks);
    for (size_t i = 0; i < BLOCKS; i++) {
        must((blocks[i] = granary_malloc(size_of_block(i))) != NULL);
        memset(blocks[i], 1, size_of_block(i));
    }
    f->huge = bytes_in_huge_pages();
    for (size_t state = FULL; state < STATES; state++) {
        for (size_t i = 0; i < BLOCKS; i++)
            if (blocks[i] && mix(i * 3 + 1) % 100 >= kept_percent[state]) {
                granary_free(blocks[i]);
                blocks[i] = NULL;
            }
        f->rss[state] = state == FULL ? rss_bytes() : rss_at_rest();
    }
    f->asked = asked;
    return 0;
}

static struct side {
    const char *options;
    struct figures *figures; /* the child's, too */
    struct ending ending;
} sides[2] = {{.options = "purge_ms:100,thp:auto"}, {.options = "purge_ms:100,thp:never"}};

static int load_side(void *side) { return load(((struct side *)side)->figures, ((struct side *)side)->options); }
static void *run_side(void *side) {
    ((struct side *)side)->ending = in_child(load_side, side, 100);
    return NULL;
}

static void auto_costs_a_twentieth_at_most(void **state) {
    (void)state;
    pthread_t thread;
    struct figures *f = mmap(NULL, 2 * sizeof *f, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(f, MAP_FAILED);
    sides[0].figures = &f[0];
    sides[1].figures = &f[1];
    assert_int_equal(pthread_create(&thread, NULL, run_side, &sides[0]), 0);
    run_side(&sides[1]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (size_t i = 0; i < 2; i++)
        must_end_well(sides[i].ending, sides[i].options);
    printf("asked for huge pages under %zu MiB, got %zu\n", f[0].asked / MIB, f[0].huge / MIB);
    for (size_t s = FULL; s < STATES; s++)
        printf("%s: %zu KiB, without huge pages %zu\n", states[s], f[0].rss[s] / KIB, f[1].rss[s] / KIB);
    assert_int_equal(f[1].asked, 0);
    assert_true(f[1].rss[FULL] > 3 * ASKS_FROM && f[0].asked > f[1].rss[FULL] - ASKS_FROM - ASKS_FROM / 2);
    assert_true(f[1].rss[TWENTIETH] < f[1].rss[FULL] / 2);
    for (size_t s = FULL; s < STATES; s++)
        assert_true(f[0].rss[s] <= f[1].rss[s] + f[1].rss[s] / 20);
    munmap(f, 2 * sizeof *f);
}

/* Hardened: blocks of 1152 bytes, in slabs whose sixteenth page is a guard. */
enum {
    FEW_BLOCKS = 24 * MIB / KIB,
    FEW_FROM = 8 * MIB,
    FEW_HEAP = FEW_BLOCKS * (GRANARY_HARDENED ? 1152 / 15 * 16 : KIB)
};

/* Blocks of a KiB, of which one in `touched` is written, or none for 0. */
static int few(void *to, const char *options, size_t touched) {
    gr_options_parse(options, "test: ");
    for (size_t i = 0; i < FEW_BLOCKS; i++) {
        char *p = granary_malloc(KIB);
        must(p != NULL);
        if (touched && i % touched == 0)
            *p = 1;
    }
    *(size_t *)to = asked;
    return 0;
}

static int few_filled(void *to) { return few(to, "thp:auto", 1); }
static int few_half_filled(void *to) { return few(to, "thp:auto", 8); }
static int few_untouched(void *to) { return few(to, "thp:auto", 0); }

static void a_heap_of_a_few_mib_asks_behind_filled_pages(void **state) {
    (void)state;
    size_t *to = mmap(NULL, sizeof *to, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(to, MAP_FAILED);
    must_end_well(in_child(few_filled, to, 100), "filled");
    printf("filled: asked for huge pages under %zu MiB\n", *to / MIB);
    assert_in_range(*to, FEW_HEAP - FEW_FROM - 4 * MIB, FEW_HEAP - FEW_FROM + 2 * MIB);
    if (!GRANARY_HARDENED) { /* which writes a seal in each block */
        must_end_well(in_child(few_half_filled, to, 100), "half filled");
        assert_int_equal(*to, 0);
        must_end_well(in_child(few_untouched, to, 100), "untouched");
        assert_int_equal(*to, 0);
    }
    munmap(to, sizeof *to);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(auto_costs_a_twentieth_at_most),
                                       cmocka_unit_test(a_heap_of_a_few_mib_asks_behind_filled_pages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
