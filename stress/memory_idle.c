/* memory_idle.c -- a process that has done its work and makes no calls any more comes to rest: what it freed goes back without
 * it. And its housekeeping thread is nobody's burden: not there without need, deaf to signals, gone when the last thread ends.
 *
 * A clock ends a wait that is in vain; it does not judge.
 */
/* test: sanitize=off timeout=300 serial=on wrap=pthread_create,madvise */
#include "semantics_calls.h"

#include <stdatomic.h>

#include "os/options.h"

enum { BLOCKS = 400 * 1000, WAIT_SECONDS = 60 };

static void *blocks[BLOCKS];

/* 130 MiB in sizes that servers use, or all of one. */
static size_t one_size;
static size_t size_of_block(size_t i) {
    return one_size ? one_size : i % 1000 == 0 ? 100000 : i % 100 == 0 ? 8000 : 16 + mix(i) % 300;
}

static size_t burst(size_t from, size_t to) {
    size_t bytes = 0;
    for (size_t i = from; i < to; i++) {
        blocks[i] = granary_malloc(size_of_block(i));
        must(blocks[i] != NULL);
        memset(blocks[i], 0x5a, size_of_block(i));
        bytes += size_of_block(i);
    }
    return bytes;
}

static bool stays(size_t i, unsigned percent) { return mix(i * 7 + 1) % 100 < percent; }

static void let_go(size_t from, size_t to, unsigned keep_percent) {
    for (size_t i = from; i < to; i++)
        if (!stays(i, keep_percent)) {
            granary_free(blocks[i]);
            blocks[i] = NULL;
        }
}

static int by_address(const void *left, const void *right) {
    uintptr_t a = *(const uintptr_t *)left, b = *(const uintptr_t *)right;
    return a < b ? -1 : a > b;
}

/* Bytes of the pages in which blocks still lie, and that their contents are as they were. */
static size_t pages_kept(void) {
    static uintptr_t page[BLOCKS * 2];
    size_t n = 0, distinct = 0;
    for (size_t i = 0; i < BLOCKS; i++) {
        if (!blocks[i])
            continue;
        must(all_bytes_are(blocks[i], size_of_block(i), 0x5a));
        uintptr_t first = (uintptr_t)blocks[i] / 4096, last = ((uintptr_t)blocks[i] + size_of_block(i) - 1) / 4096;
        for (uintptr_t p = first; p <= last && n < COUNT_OF(page); p++)
            page[n++] = p;
    }
    qsort(page, n, sizeof *page, by_address);
    for (size_t i = 0; i < n; i++)
        distinct += i == 0 || page[i] != page[i - 1];
    return distinct * 4096;
}

static size_t tasks(void) {
    size_t threads = 0;
    char text[4096], *at;
    read_file("/proc/self/status", text, sizeof text);
    at = strstr(text, "\nThreads:");
    must(at != NULL);
    threads = strtoull(at + strlen("\nThreads:"), NULL, 10);
    return threads;
}

/* Makes no calls of ours until the process has shrunk to `limit`. */
static int rests_at(size_t limit) {
    double deadline = seconds_now() + WAIT_SECONDS;
    while (rss_bytes() > limit && seconds_now() < deadline)
        usleep(50 * 1000);
    if (rss_bytes() > limit)
        fprintf(stderr, "%zu KiB at rest, %zu KiB are the bar\n", rss_bytes() / KIB, limit / KIB);
    return rss_bytes() > limit;
}

static int is_at(size_t limit) { return rss_bytes() > limit; }

static size_t before; /* resident, with our own tables touched */
static void start(void) {
    memset(blocks, 0, sizeof blocks);
    granary_free(granary_malloc(1));
    before = rss_bytes();
}

/* ---- memory ---- */

static int all_freed(void *unused) {
    (void)unused;
    start();
    must(burst(0, BLOCKS) > 60 * MIB);
    let_go(0, BLOCKS, 0);
    return rests_at(before + 8 * MIB);
}

/* Of a burst that was freed at random, all goes back that no live block lies in: whatever the share. */
static int some_kept(void *percent) {
    start();
    pages_kept(); /* its table is ours as well */
    burst(0, BLOCKS);
    let_go(0, BLOCKS, (unsigned)(uintptr_t)percent);
    size_t kept = pages_kept();
    int failed = rests_at(before + kept + kept / 10 + 8 * MIB);
    must(pages_kept() == kept);
    return failed;
}

/* Nor do its blocks stay where the burst has put them, a few in each slab, when others are allocated and freed: they gather. Also
 * where so few are at a time that all would go round in the thread's magazines. */
static int gathers(void *at_a_time) {
    enum { ALL = 150 * 1000, KEPT_PERCENT = 20, LOOK = 60 * 1000, A_SECOND = 120 * 1000 };
    size_t few = (uintptr_t)at_a_time;
    one_size = 500;
    start();
    struct rng rng = rng_for(1);
    burst(0, ALL);
    let_go(0, ALL, KEPT_PERCENT);
    size_t kept = pages_kept(), now = kept;
    double deadline = seconds_now() + WAIT_SECONDS;
    for (size_t done = few; now > kept / 5 * 3 && seconds_now() < deadline; done += few) {
        for (size_t n = 0, i; n < few; n++) {
            while (blocks[i = rng_below(&rng, ALL)])
                ;
            must((blocks[i] = granary_malloc(size_of_block(i))) != NULL);
            memset(blocks[i], 0x5a, size_of_block(i));
        }
        for (size_t n = 0, i; n < few; n++) {
            while (!blocks[i = rng_below(&rng, ALL)])
                ;
            granary_free(blocks[i]);
            blocks[i] = NULL;
        }
        granary_free(granary_malloc(MIB)); /* a slow path now and then */
        usleep((useconds_t)(few * 1000 * 1000 / A_SECOND));
        if (done % LOOK < few)
            now = pages_kept();
    }
    if (now > kept / 5 * 3)
        fprintf(stderr, "%zu KiB of pages in use, and now %zu\n", kept / KIB, now / KIB);
    return now > kept / 5 * 3 || rests_at(before + now + now / 10 + 8 * MIB);
}

/* A thread whose blocks are all large, so that it never needed a cache, and one block that grew where it is. */
static void *large_alone(void *unused) {
    enum { BYTES = 2 * MIB };
    for (size_t i = 0; i < 64; i++) {
        must((blocks[i] = granary_malloc(BYTES)) != NULL);
        memset(blocks[i], 0x5a, BYTES);
    }
    for (size_t i = 0; i < 64; i++)
        granary_free(blocks[i]);
    for (;;)
        pause();
    return unused;
}
static int large_in_a_thread(void *unused) {
    pthread_t thread;
    start();
    must(pthread_create(&thread, NULL, large_alone, unused) == 0);
    double deadline = seconds_now() + WAIT_SECONDS;
    while (rss_bytes() < before + 100 * MIB && seconds_now() < deadline)
        usleep(1000);
    return rests_at(before + 8 * MIB);
}

static int grown_in_place(void *unused) {
    (void)unused;
    start();
    char *p = granary_malloc(MIB);
    for (size_t bytes = MIB; bytes <= 60 * MIB; bytes += 64 * KIB) {
        must((p = granary_realloc(p, bytes)) != NULL);
        memset(p + bytes - 64 * KIB, 0x5a, 64 * KIB);
    }
    must(rss_bytes() > before + 50 * MIB);
    granary_free(p);
    return rests_at(before + 8 * MIB);
}

static pthread_barrier_t worked;
static size_t threads;
static bool trims; /* in place of waiting */
static void *work_and_sleep(void *index) {
    size_t each = BLOCKS / threads, from = (size_t)(uintptr_t)index * each;
    for (int round = 0; round < 2; round++) { /* the second time its tops end where they were */
        burst(from, from + each);
        let_go(from, from + each, 0);
        pthread_barrier_wait(&worked);
        pthread_barrier_wait(&worked);
    }
    for (;;) {
        pause();
    }
    return NULL;
}

static int idle_threads(void *count) {
    threads = (size_t)(uintptr_t)count;
    if (GRANARY_HARDENED) /* whose magazines and held-back blocks are not taken from: docs/hardened.md */
        return 0;
    pthread_t thread;
    int failed = 0;
    start();
    pthread_barrier_init(&worked, NULL, (unsigned)threads + 1);
    for (size_t i = 0; i < threads; i++)
        must(pthread_create(&thread, NULL, work_and_sleep, (void *)i) == 0);
    for (int round = 0; round < 2; round++) {
        pthread_barrier_wait(&worked);
        must(!trims || granary_trim());
        failed |= (trims ? is_at : rests_at)(before + 8 * MIB + threads * 40 * KIB); /* stacks, records and magazines */
        pthread_barrier_wait(&worked);
    }
    return failed;
}

/* Threads that fall idle after the classes of the blocks that they have freed: each is the last one of its page, and moves no slab when
 * it comes back, since one block of each slab stays. */
enum { LATE_THREADS = 100, LATE_BLOCKS = 128 };
static void *frees_and_lingers(void *index) {
    enum { ROUNDS = 4, STEPS = 80 };
    void *warm[2 * LATE_BLOCKS], *step[STEPS];
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < COUNT_OF(warm); i++)
            must((warm[i] = granary_malloc(one_size)) != NULL);
        for (size_t i = 0; i < COUNT_OF(warm); i++)
            granary_free(warm[i]);
    }
    for (size_t i = 0; i < LATE_BLOCKS / 2; i++) /* room in the magazines */
        must((warm[i] = granary_malloc(one_size)) != NULL);
    pthread_barrier_wait(&worked);
    pthread_barrier_wait(&worked);
    for (size_t i = 0; i < LATE_BLOCKS; i++)
        if (i % 16)
            granary_free(blocks[((size_t)(uintptr_t)index * LATE_BLOCKS + i) * 8]);
    for (size_t i = 0; i < STEPS; i++) {
        step[i] = granary_malloc(16);
        usleep(50 * 1000);
    }
    for (size_t i = 0; i < STEPS; i++)
        granary_free(step[i]);
    pthread_barrier_wait(&worked);
    for (;;) {
        pause();
    }
    return NULL;
}
static int late_threads(void *unused) {
    (void)unused;
    pthread_t thread;
    if (GRANARY_HARDENED) /* see idle_threads */
        return 0;
    one_size = 512; /* eight of them fill a page */
    start();
    pthread_barrier_init(&worked, NULL, LATE_THREADS + 1);
    burst(0, LATE_THREADS * LATE_BLOCKS * 8);
    for (size_t i = 0; i < LATE_THREADS; i++)
        must(pthread_create(&thread, NULL, frees_and_lingers, (void *)i) == 0);
    pthread_barrier_wait(&worked);
    for (size_t i = 0; i < LATE_THREADS * LATE_BLOCKS * 8; i++)
        if (i % 8)
            granary_free(blocks[i]);
    sleep(3); /* the class is idle, and was looked at */
    must(rss_bytes() > before + 40 * MIB);
    pthread_barrier_wait(&worked);
    pthread_barrier_wait(&worked);
    return rests_at(before + 8 * MIB + LATE_THREADS * 40 * KIB + LATE_THREADS * LATE_BLOCKS / 16 * 4096);
}

/* All threads' caches at once, by whoever asks. */
static int trimmed_threads(void *count) {
    gr_options_parse("housekeeping:0", "test: ");
    trims = true;
    return idle_threads(count);
}

/* Turns are bounded in bytes, and while there is a keeper nobody else waits for one. */
static _Thread_local unsigned purges_here;
static _Atomic size_t longest_purge;
static void (*_Atomic while_purging)(void); /* what the system does for so long */
int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice) {
    purges_here += advice == MADV_DONTNEED;
    for (size_t most = longest_purge; advice == MADV_DONTNEED && bytes > most;)
        if (atomic_compare_exchange_weak(&longest_purge, &most, bytes))
            break;
    void (*wait)(void) = while_purging;
    if (advice == MADV_DONTNEED && wait)
        wait();
    return __real_madvise(at, bytes, advice);
}

static int purge_by_keeper(void *unused) {
    (void)unused;
    struct granary_stats stats;
    start();
    burst(0, BLOCKS);
    let_go(0, BLOCKS, 0);
    double deadline = seconds_now() + WAIT_SECONDS;
    do {
        usleep(10 * 1000);
        granary_free(granary_malloc(300000)); /* a slow path each */
        granary_get_stats(&stats);
    } while (stats.dirty_bytes > 8 * MIB && seconds_now() < deadline);
    must(stats.dirty_bytes <= 8 * MIB);
    must(stats.purge_turn_bytes > 0 && stats.purge_turn_bytes <= 4 * MIB);
    must(longest_purge <= 4 * MIB);
    must(purges_here == 0 || GRANARY_HARDENED); /* where a freed large block keeps no page */
    return 0;
}

/* While the system takes its time over a purge, others allocate and free whatever they like: nothing is held that they want.
 * Each of the keeper's purges, of runs that have aged and of pages within slabs, waits until main has done all there is. */
static _Atomic unsigned purges_begun, purges_allowed;
static pthread_t main_thread;
static void wait_for_main(void) {
    if (pthread_equal(pthread_self(), main_thread)) /* frees what it grew by itself */
        return;
    for (unsigned mine = ++purges_begun; purges_allowed < mine;)
        usleep(100);
}

static void all_there_is(void) {
    enum { EACH = 20 };
    static void *held[EACH * 150];
    size_t n = 0;
    for (size_t size = 16; size < 100 * MIB; size += size / 7 + 1)
        for (size_t i = 0; i < (size <= 2048 ? EACH : 2); i++) {
            must((held[n] = granary_malloc(size)) != NULL && n + 1 < COUNT_OF(held));
            memset(held[n], 1, size < 4096 ? size : 4096);
            held[n] = granary_realloc(held[n], size + size / 2);
            must(held[n++] != NULL);
        }
    while (n)
        granary_free(held[--n]);
}

static int others_go_on(void *keep_percent) {
    enum { PURGES = 12 };
    start();
    main_thread = pthread_self();
    burst(0, BLOCKS);
    let_go(0, BLOCKS, (unsigned)(uintptr_t)keep_percent);
    while_purging = wait_for_main;
    double deadline = seconds_now() + WAIT_SECONDS;
    for (unsigned done = 0; done < PURGES; purges_allowed = ++done) {
        while (purges_begun == done && seconds_now() < deadline)
            usleep(100);
        must(purges_begun == done + 1);
        all_there_is();
    }
    while_purging = NULL;
    purges_allowed = UINT32_MAX;
    pages_kept();
    return 0;
}

/* ---- the housekeeping thread ---- */

static int none_below_32_mib(void *unused) {
    (void)unused;
    start();
    for (int i = 0; i < 20; i++) {
        burst(0, BLOCKS / 8);
        let_go(0, BLOCKS / 8, 0);
    }
    must(tasks() == 1);
    return 0;
}

static int none_with(void *option) {
    gr_options_parse(option, "test: ");
    start();
    burst(0, BLOCKS);
    let_go(0, BLOCKS, 0);
    must(tasks() == 1);
    return 0;
}

/* Deaf to all but what cannot be blocked, and two that libc keeps to itself. */
static int all_signals_blocked(void *unused) {
    (void)unused;
    char path[64], text[4096], *at;
    bool found = false;
    start();
    burst(0, BLOCKS);
    must(tasks() == 2);
    for (pid_t id = getpid() + 1; id < getpid() + 10000 && !found; id++) {
        snprintf(path, sizeof path, "/proc/self/task/%d/status", id);
        if (!read_file(path, text, sizeof text))
            continue;
        found = true;
        must((at = strstr(text, "\nSigBlk:")) != NULL);
        uint64_t blocked = strtoull(at + strlen("\nSigBlk:"), NULL, 16);
        for (int n = 1; n <= 64; n++)
            must((blocked >> (n - 1) & 1) || n == SIGKILL || n == SIGSTOP || (n >= 32 && n < SIGRTMIN));
    }
    return !found;
}

static int main_thread_exits(void *unused) {
    start();
    burst(0, BLOCKS);
    must(tasks() == 2);
    pthread_exit(unused); /* the last one: exit status 0 */
}

static void *outlives_main(void *unused) {
    (void)unused;
    burst(0, BLOCKS);
    must(tasks() >= 2);
    usleep(100 * 1000);
    return NULL;
}
static void *works_a_little(void *unused) {
    granary_free(granary_malloc(100));
    usleep(50 * 1000);
    return unused;
}
static int others_end_last(void *unused) {
    pthread_t thread;
    start();
    for (int i = 0; i < 3; i++) {
        must(pthread_create(&thread, NULL, i ? works_a_little : outlives_main, NULL) == 0);
        pthread_detach(thread);
    }
    pthread_exit(unused);
}

/* A child has none until it needs one, and that one ends with the child's last thread. */
static int child_of_a_keeper(void *unused) {
    must(tasks() == 1);
    let_go(0, BLOCKS, 0);
    must(tasks() == 1);
    burst(0, BLOCKS);
    must(tasks() == 2);
    let_go(0, BLOCKS, 0);
    pthread_exit(unused);
}
static int forks(void *unused) {
    (void)unused;
    start();
    burst(0, BLOCKS);
    must(tasks() == 2);
    struct ending child = in_child(child_of_a_keeper, NULL, 100);
    if (child.exit_code)
        fprintf(stderr, "child: %d, signal %d\n%s", child.exit_code, child.signal, child.text);
    must(tasks() == 2);
    return child.exit_code;
}

/* Children that share our memory, or were made behind libc's back, start none. */
static int bare_forks(void *unused) {
    (void)unused;
    int status;
    start();
    must(burst(0, BLOCKS / 8) && tasks() == 1);
    pid_t child = _Fork();
    if (child == 0) {
        burst(BLOCKS / 8, BLOCKS);
        _exit(tasks() != 1);
    }
    must(waitpid(child, &status, 0) == child && status == 0);
    child = vfork();
    if (child == 0) {
        for (size_t i = BLOCKS / 8; i < BLOCKS; i++)
            blocks[i] = granary_malloc(size_of_block(i));
        _exit(0);
    }
    must(waitpid(child, &status, 0) == child && status == 0);
    must(tasks() == 1);
    let_go(0, BLOCKS, 0);
    burst(0, BLOCKS);
    must(tasks() == 2);
    return 0;
}

static bool refuse;
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg) {
    return refuse ? EAGAIN : __real_pthread_create(thread, attr, body, arg);
}
static int refused(void *unused) {
    refuse = true;
    start();
    for (int i = 0; i < 2; i++) {
        burst(0, BLOCKS);
        let_go(0, BLOCKS, 0);
    }
    must(tasks() == 1);
    granary_trim();
    must(rss_bytes() <= before + 8 * MIB);
    pthread_exit(unused);
}

/* It ends by itself when the heap is small again, and comes back. */
static int ends_and_comes_back(void *unused) {
    (void)unused;
    start();
    burst(0, BLOCKS);
    must(tasks() == 2);
    let_go(0, BLOCKS, 0);
    double deadline = seconds_now() + WAIT_SECONDS;
    while (tasks() == 2 && seconds_now() < deadline)
        usleep(50 * 1000);
    must(tasks() == 1);
    burst(0, BLOCKS);
    must(tasks() == 2);
    return 0;
}

#define IN_CHILD(name, body, arg)                                                                                      \
    static void name(void **state) {                                                                                   \
        (void)state;                                                                                                   \
        must_end_well(in_child(body, arg, 200), #name);                                                                \
    }

IN_CHILD(rests_when_all_is_freed, all_freed, NULL)
IN_CHILD(rests_at_its_pages_when_a_20th_is_kept, some_kept, (void *)5)
IN_CHILD(rests_at_its_pages_when_a_5th_is_kept, some_kept, (void *)20)
IN_CHILD(gathers_what_a_burst_has_spread, gathers, (void *)6000)
IN_CHILD(gathers_what_goes_round_in_magazines, gathers, (void *)60)
IN_CHILD(rests_when_all_blocks_were_large, large_in_a_thread, NULL)
IN_CHILD(rests_when_one_block_had_grown, grown_in_place, NULL)
IN_CHILD(rests_while_64_threads_sleep, idle_threads, (void *)64)
IN_CHILD(rests_while_1000_threads_sleep, idle_threads, (void *)1000)
IN_CHILD(rests_when_threads_fall_idle_late, late_threads, NULL)
IN_CHILD(a_trim_empties_sleeping_threads, trimmed_threads, (void *)64)
IN_CHILD(callers_do_not_purge, purge_by_keeper, NULL)
IN_CHILD(others_go_on_while_runs_are_purged, others_go_on, (void *)0)
IN_CHILD(others_go_on_while_pages_of_slabs_are, others_go_on, (void *)5)
IN_CHILD(no_thread_below_32_mib, none_below_32_mib, NULL)
IN_CHILD(no_thread_without_housekeeping, none_with, "housekeeping:0")
IN_CHILD(no_thread_without_purging, none_with, "purge_ms:never")
IN_CHILD(no_thread_where_none_is_to_be_had, refused, NULL)
IN_CHILD(no_thread_in_bare_children, bare_forks, NULL)
IN_CHILD(its_signals_are_blocked, all_signals_blocked, NULL)
IN_CHILD(it_ends_with_the_last_thread_main, main_thread_exits, NULL)
IN_CHILD(it_ends_with_the_last_thread_another, others_end_last, NULL)
IN_CHILD(it_ends_and_comes_back, ends_and_comes_back, NULL)
IN_CHILD(a_child_has_its_own, forks, NULL)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rests_when_all_is_freed),
        cmocka_unit_test(rests_at_its_pages_when_a_20th_is_kept),
        cmocka_unit_test(rests_at_its_pages_when_a_5th_is_kept),
        cmocka_unit_test(gathers_what_a_burst_has_spread),
        cmocka_unit_test(gathers_what_goes_round_in_magazines),
        cmocka_unit_test(rests_when_all_blocks_were_large),
        cmocka_unit_test(rests_when_one_block_had_grown),
        cmocka_unit_test(rests_while_64_threads_sleep),
        cmocka_unit_test(rests_while_1000_threads_sleep),
        cmocka_unit_test(rests_when_threads_fall_idle_late),
        cmocka_unit_test(a_trim_empties_sleeping_threads),
        cmocka_unit_test(callers_do_not_purge),
        cmocka_unit_test(others_go_on_while_runs_are_purged),
        cmocka_unit_test(others_go_on_while_pages_of_slabs_are),
        cmocka_unit_test(no_thread_below_32_mib),
        cmocka_unit_test(no_thread_without_housekeeping),
        cmocka_unit_test(no_thread_without_purging),
        cmocka_unit_test(no_thread_where_none_is_to_be_had),
        cmocka_unit_test(no_thread_in_bare_children),
        cmocka_unit_test(its_signals_are_blocked),
        cmocka_unit_test(it_ends_with_the_last_thread_main),
        cmocka_unit_test(it_ends_with_the_last_thread_another),
        cmocka_unit_test(it_ends_and_comes_back),
        cmocka_unit_test(a_child_has_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
