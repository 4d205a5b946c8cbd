/* limits_bytes.c -- limit_hard, limit_soft and oom: no call takes the heap beyond the hard limit, and all of it can be had again
 * and again; what lies idle makes room before a limit refuses or is passed; a live heap above the soft limit is left in peace.
 */
/* test: sanitize=off timeout=120 wrap=gr_cgroup_limit */
#include "loot.h"

#include "os/cgroup.h"
#define option library_option /* <getopt.h> has one, too */
#include "os/options.h"
#include "page/limit.h"

/* The tree that the control group is looked for in: none, but where a test makes one. */
static char tree[64] = "/dev/null";
bool __real_gr_cgroup_limit(const char *root, uint64_t *bytes);
bool __wrap_gr_cgroup_limit(const char *root, uint64_t *bytes);
bool __wrap_gr_cgroup_limit(const char *root, uint64_t *bytes) {
    must(!*root);
    return __real_gr_cgroup_limit(tree, bytes);
}

enum { HARD_MIB = 64, SLACK_MIB = 6 }; /* our records, the program's own tables and stacks */

static size_t rss_before;
static struct granary_stats stats(void) {
    struct granary_stats s;
    granary_get_stats(&s);
    return s;
}

/* Nothing goes back by time alone. */
static void start(const char *options) {
    gr_options_parse("purge_ms:25000,housekeeping:0", "start: ");
    gr_options_parse(options, "start: ");
    gr_limit_start();
    granary_free(granary_malloc(100));
    rss_before = rss_bytes();
}

static void must_be_within(size_t bytes) {
    struct granary_stats s = stats();
    must(s.used_bytes + s.dirty_bytes <= bytes + 64 * KIB); /* granule 0 is nobody's */
    must(rss_bytes() <= rss_before + bytes + SLACK_MIB * MIB);
}

static void must_end_silently(int (*body)(void *), void *arg, const char *what) {
    struct ending ending = in_child(body, arg, 60);
    must_end_well(ending, what);
    assert_string_equal(ending.text, "");
}

/* ---- the hard limit ---- */

static int every_size(void *unused) {
    (void)unused;
    static const size_t sizes[] = {70 * MIB, 20 * MIB, MIB, 100000, 3000, 64, 16};
    size_t first = 0;
    start("limit_hard:64M");
    for (int round = 0; round < 5; round++) {
        struct loot *haul = NULL;
        size_t bytes = 0;
        for (size_t i = 0; i < COUNT_OF(sizes); i++)
            bytes += loot_take(&haul, sizes[i]);
        must_be_within(HARD_MIB * MIB);
        must(bytes > HARD_MIB * MIB / 10 * 7);
        must(round == 0 || bytes >= first / 20 * 19);
        first = round ? first : bytes;
        loot_give(&haul, false);
    }
    return 0;
}

static void hard_holds_for_every_call_again_and_again(void **state) {
    (void)state;
    must_end_silently(every_size, NULL, "limit_hard");
}

static pthread_barrier_t all_full;
static void *one_of_four(void *size) {
    for (int round = 0; round < 3; round++) {
        struct loot *haul = NULL;
        loot_take(&haul, (size_t)size);
        pthread_barrier_wait(&all_full);
        must_be_within(HARD_MIB * MIB);
        pthread_barrier_wait(&all_full);
        loot_give(&haul, false);
        pthread_barrier_wait(&all_full);
    }
    return NULL;
}

static int four_threads(void *unused) {
    (void)unused;
    static const size_t sizes[] = {5 * MIB, 300000, 5000, 100};
    pthread_t threads[4];
    start("limit_hard:64M");
    pthread_barrier_init(&all_full, NULL, 4);
    for (size_t i = 0; i < 4; i++)
        must(pthread_create(&threads[i], NULL, one_of_four, (void *)sizes[i]) == 0);
    for (size_t i = 0; i < 4; i++)
        must(pthread_join(threads[i], NULL) == 0);
    return 0;
}

static void hard_holds_for_threads_together(void **state) {
    (void)state;
    must_end_silently(four_threads, NULL, "limit_hard, threads");
}

/* Dirty, in magazines, in depots and in slabs: all of it serves one large block. */
static int idle_serves(void *one) {
    size_t size = *(size_t *)one;
    struct loot *haul = NULL;
    start("limit_hard:64M");
    loot_take(&haul, size);
    loot_give(&haul, false);
    void *p = granary_malloc(50 * MIB);
    must(p != NULL);
    memset(p, 1, 50 * MIB);
    must_be_within(HARD_MIB * MIB);
    p = granary_realloc(p, 58 * MIB);
    must(p != NULL && ((char *)p)[50 * MIB - 1] == 1);
    must(granary_realloc(p, 66 * MIB) == NULL && errno == ENOMEM);
    must(((char *)p)[50 * MIB - 1] == 1);
    granary_free(p);
    p = granary_malloc(10);
    must(p != NULL);
    return 0;
}

/* Below the limit by less than a slab, and half of it free, in pieces of a granule. */
static int pieces_serve(void *unused) {
    (void)unused;
    enum { BYTES = 3000, BLOCKS = HARD_MIB * (int)MIB / BYTES };
    static void *block[BLOCKS];
    size_t n = 0;
    start("limit_hard:64M");
    while (stats().used_bytes < HARD_MIB * MIB - MIB)
        for (size_t i = 0; i < 20; i++)
            must((block[n++] = granary_malloc(BYTES)) != NULL);
    for (size_t i = 0; i < n; i++)
        if ((uintptr_t)block[i] / (64 * KIB) % 2)
            granary_free(block[i]);
    must(granary_malloc(200000) != NULL);
    return 0;
}

static void hard_is_met_by_what_lies_idle(void **state) {
    (void)state;
    must_end_silently(pieces_serve, NULL, "pieces");
    size_t sizes[] = {10 * MIB, 100000, 3000, 48};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        must_end_silently(idle_serves, &sizes[i], "what lies idle");
}

static int huge_grows(void *unused) {
    (void)unused;
    start("limit_hard:200M");
    char *p = granary_malloc(90 * MIB);
    must(p != NULL);
    p[0] = 1;
    for (size_t size = 95 * MIB; size <= 190 * MIB; size += 5 * MIB) {
        p = granary_realloc(p, size);
        must(p != NULL && p[0] == 1); /* its pages move, nothing is held twice */
    }
    must(granary_realloc(p, 210 * MIB) == NULL && errno == ENOMEM && p[0] == 1);
    must(granary_malloc(70 * MIB) == NULL);
    p = granary_realloc(p, 70 * MIB);
    must(p != NULL && granary_malloc(70 * MIB) != NULL);
    return 0;
}

static void hard_counts_a_block_that_grows_once(void **state) {
    (void)state;
    if (GRANARY_HARDENED) /* where it grows by a copy */
        skip();
    must_end_silently(huge_grows, NULL, "realloc");
}

static int fork_and_take(void *unused) {
    (void)unused;
    struct loot *haul = NULL;
    start("limit_hard:64M");
    loot_take(&haul, 100000);
    pid_t child = fork();
    if (child == 0) {
        must(granary_malloc(10 * MIB) == NULL);
        loot_give(&haul, false);
        must(granary_malloc(50 * MIB) != NULL);
        must(granary_malloc(50 * MIB) == NULL);
        _exit(0);
    }
    int status;
    must(waitpid(child, &status, 0) == child && status == 0);
    must(granary_malloc(10 * MIB) == NULL);
    loot_give(&haul, false);
    return 0;
}

static void hard_holds_in_a_child_by_itself(void **state) {
    (void)state;
    must_end_silently(fork_and_take, NULL, "fork");
}

/* ---- the soft limit ---- */

/* 60 MiB freed and then 66 MiB wanted: without a limit both are resident. */
static void burst_and_another(void) {
    struct loot *haul = NULL;
    for (size_t i = 0; i < 600; i++) {
        struct loot *loot = granary_malloc(100000);
        must(loot != NULL);
        pattern_sprinkle(loot, 100000, 100000);
        *loot = (struct loot){haul, 100000};
        haul = loot;
    }
    loot_give(&haul, false);
    char *p = granary_malloc(66 * MIB);
    must(p != NULL);
    memset(p, 1, 66 * MIB);
    opaque(p); /* else nobody would read what was written */
}

static int soft(void *limits) {
    start(limits);
    burst_and_another();
    must(stats().purged_bytes >= 40 * MIB || stats().mapped_bytes < 90 * MIB);
    must_be_within(80 * MIB);
    return 0;
}

static int not_soft(void *unused) {
    (void)unused;
    start("limit_soft:never");
    burst_and_another();
    must(rss_bytes() > rss_before + 110 * MIB);
    return 0;
}

static void soft_makes_room_first(void **state) {
    (void)state;
    must_end_silently(soft, "limit_soft:80M", "limit_soft");
    must_end_silently(not_soft, NULL, "no limit");
}

static int above(void *unused) {
    (void)unused;
    void *live[300];
    start("limit_soft:32M");
    for (size_t i = 0; i < COUNT_OF(live); i++) { /* 90 MiB: it refuses nothing */
        live[i] = granary_malloc(300000);
        must(live[i] != NULL);
        memset(live[i], 1, 300000);
    }
    size_t purged = 0, mapped = 0;
    for (int i = 0; i < 100000; i++) {
        void *p = granary_malloc(100000 + (size_t)(i % 3) * 50000);
        must(p != NULL);
        granary_free(p);
        if (i == 1000) {
            purged = stats().purged_bytes;
            mapped = stats().mapped_bytes;
        }
    }
    must(stats().purged_bytes == purged && stats().mapped_bytes == mapped);
    return 0;
}

static void soft_leaves_a_larger_heap_in_peace(void **state) {
    (void)state;
    must_end_silently(above, NULL, "above limit_soft");
}

/* ---- the control group's ---- */

static void put(const char *path, const char *text) {
    char whole[200];
    snprintf(whole, sizeof whole, "%s%s", tree, path);
    FILE *f = fopen(whole, "w");
    must(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static int grouped(void *unused) {
    (void)unused;
    start("limit_soft:auto");
    must(stats().limit_soft_bytes == 0);
    burst_and_another();
    must(stats().limit_soft_bytes == 75 * MIB && stats().limit_hard_bytes == 0);
    must_be_within(80 * MIB);
    return 0;
}

static void the_groups_limit_is_a_soft_one(void **state) {
    (void)state;
    char command[200];
    strcpy(tree, "/tmp/granary-group-XXXXXX");
    assert_non_null(mkdtemp(tree));
    snprintf(command, sizeof command, "mkdir -p %s/proc/self %s/sys/fs/cgroup", tree, tree);
    assert_int_equal(system(command), 0);
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/memory.max", "83886080\n");
    must_end_silently(grouped, NULL, "memory.max");
    snprintf(command, sizeof command, "rm -r %s", tree);
    assert_int_equal(system(command), 0);
}

/* ---- out of memory ---- */

static int aborts_at_a_limit(void *unused) {
    (void)unused;
    start("limit_hard:64M,oom:abort");
    must(granary_malloc(opaque_size(PTRDIFF_MAX) + 1) == NULL); /* no memory has run out */
    granary_free(granary_malloc(60 * MIB));
    granary_free(granary_malloc(100 * MIB));
    return 0;
}

static int aborts_by_small_blocks(void *unused) {
    (void)unused;
    struct rlimit limit = {200 * MIB, 200 * MIB};
    start("limit_soft:never,oom:abort");
    must(setrlimit(RLIMIT_AS, &limit) == 0);
    for (int i = 0; i < 1000 * 1000; i++)
        memset(granary_malloc(1000), 1, 1000);
    return 0;
}

static void must_abort(int (*body)(void *), const char *begins, const char *ends) {
    struct ending ending = in_child(body, NULL, 60);
    assert_int_equal(ending.signal, SIGABRT);
    assert_int_equal(strncmp(ending.text, begins, strlen(begins)), 0);
    assert_true(ending.length > strlen(ends));
    assert_string_equal(ending.text + ending.length - strlen(ends), ends);
    assert_ptr_equal(strchr(ending.text, '\n'), ending.text + ending.length - 1); /* one line */
}

static void oom_abort_says_why(void **state) {
    (void)state;
    must_abort(aborts_at_a_limit, "granary: FATAL out of memory: 104857600 bytes wanted, ",
               " in use, limit 67108864\n");
    must_abort(aborts_by_small_blocks, "granary: FATAL out of memory: 10", " in use, no limit set\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hard_holds_for_every_call_again_and_again),
        cmocka_unit_test(hard_holds_for_threads_together),
        cmocka_unit_test(hard_is_met_by_what_lies_idle),
        cmocka_unit_test(hard_counts_a_block_that_grows_once),
        cmocka_unit_test(hard_holds_in_a_child_by_itself),
        cmocka_unit_test(soft_makes_room_first),
        cmocka_unit_test(soft_leaves_a_larger_heap_in_peace),
        cmocka_unit_test(the_groups_limit_is_a_soft_one),
        cmocka_unit_test(oom_abort_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
