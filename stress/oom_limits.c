/* oom_limits.c -- under limits of the system: address space, data, locked memory.
 *
 * Under RLIMIT_AS eight threads take all there is by every call, hold it together, give each other's blocks back, and
 * do it again: the same capacity each time, and there is room for new threads.
 *
 * covers: S93 S94 S100 C10
 */
/* test: sanitize=off timeout=120 */
#include "semantics_calls.h"

#include <linux/capability.h>
#include <malloc.h>
#include <sys/syscall.h>

enum { THREADS = 8, ROUNDS = 10, LIMIT_KIB = 200000 };

/* A block of a thread's haul, linked through the blocks themselves. */
struct loot {
    struct loot *next;
    size_t size;
};

static struct {
    pthread_barrier_t all_here, all_full, all_counted;
    struct loot *hauls[THREADS];
    size_t bytes[THREADS];
    double slowest_refusal[THREADS]; /* CPU seconds a call, mean of the refused ones at the end */
} raid;

/* Takes blocks of one size by all calls in turn until each has been refused. */
static void take_all(size_t me, size_t size) {
    bool refused[COUNT_OF(calls)] = {false};
    size_t left = COUNT_OF(calls);
    for (size_t c = me; left > 0; c++) {
        const struct call *call = &calls[c % COUNT_OF(calls)];
        if (refused[c % COUNT_OF(calls)]) {
            continue;
        }
        errno = 0;
        struct loot *loot = call->alloc(size);
        if (loot == NULL) {
            must_be_refused(call->name, size, loot);
            refused[c % COUNT_OF(calls)] = true;
            left--;
            continue;
        }
        must(!call->zeroed || (loot->next == NULL && loot->size == 0));
        loot->next = raid.hauls[me];
        loot->size = size;
        raid.hauls[me] = loot;
        raid.bytes[me] += size;
    }
}

/* Of this thread's processor alone: what else the machine does is nothing to a refusal. */
static double cpu_seconds(void) {
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (double)spent.tv_sec + (double)spent.tv_nsec * 1e-9;
}

static double time_refusals(void) {
    enum { TRIES = 200 };
    double start = cpu_seconds();
    for (int i = 0; i < TRIES; i++) {
        errno = 0;
        must_be_refused("malloc", 50 * MIB, granary_malloc(50 * MIB));
    }
    return (cpu_seconds() - start) / TRIES;
}

static void *plunder(void *arg) {
    size_t me = (size_t)arg;
    static const size_t sizes[] = {3 * MIB, 300000, 40000, 3000, 200, 16};
    pthread_barrier_wait(&raid.all_here); /* or there would be no room for the last one's stack */
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        take_all(me, sizes[i]);
    }
    pthread_barrier_wait(&raid.all_full);
    raid.slowest_refusal[me] = time_refusals();
    pthread_barrier_wait(&raid.all_counted);
    size_t other = (me + 1) % THREADS;
    for (struct loot *loot = raid.hauls[other], *next; loot != NULL; loot = next) {
        next = loot->next;
        must(loot->size >= 16 && loot->size <= 3 * MIB);
        granary_free(loot);
    }
    return NULL;
}

static size_t plunder_once(void) {
    pthread_t threads[THREADS];
    size_t sum = 0;
    memset(raid.hauls, 0, sizeof raid.hauls);
    memset(raid.bytes, 0, sizeof raid.bytes);
    for (size_t i = 0; i < THREADS; i++) {
        must(pthread_create(&threads[i], NULL, plunder, (void *)i) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += raid.bytes[i];
        must(raid.slowest_refusal[i] < 1e-3);
    }
    return sum;
}

static void *end_at_once(void *arg) {
    granary_free(granary_malloc(100));
    return arg;
}

static int plunder_ten_times(const char *unused) {
    (void)unused;
    struct rlimit limit = {LIMIT_KIB * KIB, LIMIT_KIB * KIB};
    mallopt(M_ARENA_MAX, 1); /* libc's: a thread that finds its heap busy takes 64 MiB of addresses for one more */
    size_t vsz_before = vsz_bytes();
    granary_free(granary_malloc(100));
    /* appetite: the first malloc takes little of what is limited */
    must(vsz_bytes() - vsz_before <= 16 * MIB);
    must(setrlimit(RLIMIT_AS, &limit) == 0);
    pthread_barrier_init(&raid.all_here, NULL, THREADS);
    pthread_barrier_init(&raid.all_full, NULL, THREADS);
    pthread_barrier_init(&raid.all_counted, NULL, THREADS);
    size_t first = 0;
    for (int round = 0; round < ROUNDS; round++) {
        size_t bytes = plunder_once();
        granary_trim(); /* what is kept for reuse is in nobody's way for longer */
        if (round == 0) {
            first = bytes;
            must(first > LIMIT_KIB * KIB / 4); /* the threads' stacks have the rest */
        }
        if (bytes < first / 10 * 9) {
            fprintf(stderr, "round %d: %zu bytes, the first had %zu\n", round, bytes, first);
            return 1;
        }
    }
    in_thread(end_at_once, NULL);
    return 0;
}

static void semantics_093_100_the_same_capacity_ten_times(void **state) {
    (void)state;
    struct ending ending = in_new_process("plunder", "", 60);
    must_end_well(ending, "RLIMIT_AS");
    assert_int_equal(ending.length, 0); /* no flood of messages: none */
}

/* After the heap took all in small pieces, freed all and was trimmed, the space serves others: here a block that needs
 * a mapping of its own, or a thread with a large stack. */
static int make_room(const char *whom) {
    struct rlimit limit = {LIMIT_KIB * KIB, LIMIT_KIB * KIB};
    pthread_attr_t large_stack;
    must(setrlimit(RLIMIT_AS, &limit) == 0);
    take_all(0, MIB);
    take_all(0, 64);
    for (struct loot *loot = raid.hauls[0], *next; loot != NULL; loot = next) {
        next = loot->next;
        granary_free(loot);
    }
    granary_trim();
    if (strcmp(whom, "block") == 0) {
        must(granary_malloc(80 * MIB) != NULL);
        return 0;
    }
    must(pthread_attr_init(&large_stack) == 0);
    must(pthread_attr_setstacksize(&large_stack, 64 * MIB) == 0);
    pthread_t thread;
    must(pthread_create(&thread, &large_stack, end_at_once, NULL) == 0);
    pthread_join(thread, NULL);
    return 0;
}

static void semantics_093_freed_address_space_serves_a_huge_block(void **state) {
    (void)state;
    must_end_well(in_new_process("room", "block", 30), "room for a huge block");
}

static void semantics_093_freed_address_space_serves_a_new_thread(void **state) {
    (void)state;
    must_end_well(in_new_process("room", "thread", 30), "room for a thread");
}

/* ---- S94 ---- */

static void every_call_is_refused_for(size_t size) {
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        errno = 0;
        must_be_refused(calls[c].name, size, calls[c].alloc(size));
    }
}

static void every_call_succeeds_for(size_t size) {
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        void *ptr = calls[c].alloc(size);
        must(ptr != NULL);
        touch_ends(ptr, size);
        granary_free(ptr);
    }
}

static int no_data_at_first(void *unused) {
    (void)unused;
    struct rlimit limit;
    must(getrlimit(RLIMIT_DATA, &limit) == 0);
    limit.rlim_cur = 4096;
    must(setrlimit(RLIMIT_DATA, &limit) == 0);
    granary_free(NULL);
    every_call_is_refused_for(100);
    every_call_is_refused_for(50 * MIB);
    limit.rlim_cur = limit.rlim_max;
    must(setrlimit(RLIMIT_DATA, &limit) == 0);
    every_call_succeeds_for(100);
    every_call_succeeds_for(50 * MIB);
    return 0;
}

static void semantics_094_no_data_at_first(void **state) {
    (void)state;
    struct ending ending = in_child(no_data_at_first, NULL, 20);
    must_end_well(ending, "RLIMIT_DATA");
    assert_int_equal(ending.length, 0);
}

/* Limits bind those who may not pass them. */
static bool drop_privileges(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    return syscall(SYS_capset, &header, none) == 0;
}

static int everything_locked(void *unused) {
    (void)unused;
    struct rlimit limit = {6 * MIB, 6 * MIB}; /* a usual hard limit is 8 MiB */
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || !drop_privileges() || mlockall(MCL_FUTURE) != 0) {
        return TEST_SKIPPED;
    }
    every_call_is_refused_for(50 * MIB); /* the system says EAGAIN */
    void *blocks[2000] = {NULL};
    size_t count = 0;
    while (count < COUNT_OF(blocks) && (blocks[count] = granary_malloc(100000)) != NULL) {
        count++;
    }
    must(count < COUNT_OF(blocks));
    while (count > 0) {
        granary_free(blocks[--count]);
    }
    granary_trim();
    granary_free(granary_malloc(100000));
    return 0;
}

static void semantics_094_locked_memory_runs_out(void **state) {
    (void)state;
    struct ending ending = in_child(everything_locked, NULL, 20);
    if (ending.exit_code == TEST_SKIPPED) {
        skip();
    }
    must_end_well(ending, "MCL_FUTURE");
}

int main(int argc, char **argv) {
    if (argc == 3) {
        return argv[1][0] == 'p' ? plunder_ten_times(argv[2]) : make_room(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_093_100_the_same_capacity_ten_times),
        cmocka_unit_test(semantics_093_freed_address_space_serves_a_huge_block),
        cmocka_unit_test(semantics_093_freed_address_space_serves_a_new_thread),
        cmocka_unit_test(semantics_094_no_data_at_first),
        cmocka_unit_test(semantics_094_locked_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
