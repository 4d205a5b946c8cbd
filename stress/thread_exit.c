/* thread_exit.c -- the ends of a process beside threads that work on.
 *
 * Each run is a child whose threads churn while it ends: by exit with atexit handlers that allocate, _exit,
 * quick_exit, abort, return from main's part, by the main thread's pthread_exit, and with detached threads
 * that go on during exit. It must end with the right status; how soon is not judged beyond the bound against
 * hanging. By hand: --ops 2000.
 *
 * covers: S64 S65 S66 S67 S68 S70 C1 C8 C17
 */
/* test: args="--ops 8" timeout=240 */
#include "storm_block.h"

#include <semaphore.h>

enum { status_of_exit = 3 };

/* That threads are neither joined nor detached when the process ends is the point here. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "report_thread_leaks=0"; }

static struct storm_block from_before;
static pthread_barrier_t all_work;

static void *churn_for_ever(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    storm_churn(&rng, 20, 1 << 16);
    pthread_barrier_wait(&all_work);
    for (;;)
        storm_churn(&rng, 100, 1 << 17);
    return NULL;
}

/* Threads that are born and die for ever, detached. */
static void *breed_for_ever(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    pthread_barrier_wait(&all_work);
    for (;;) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, storm_short_life, (void *)(uintptr_t)rng_next(&rng)) == 0)
            storm_one_in(&rng, 2) ? (void)pthread_detach(thread) : (void)pthread_join(thread, NULL);
    }
    return NULL;
}

static void at_exit(void) {
    struct rng rng = storm_rng_of(77);
    storm_release(&rng, from_before);
    from_before = storm_alloc(&rng, 1000);
    storm_churn(&rng, 50, 1 << 18);
    storm_empty_boxes(&rng);
    granary_trim();
}

static void start(void) {
    struct rng rng = storm_rng_of(78);
    from_before = storm_alloc(&rng, 3000);
    pthread_barrier_init(&all_work, NULL, (unsigned)storm.threads + 2);
    for (long i = 0; i < storm.threads; i++)
        pthread_detach(storm_thread(churn_for_ever, (void *)(intptr_t)i));
    pthread_detach(storm_thread(breed_for_ever, (void *)(intptr_t)storm.threads));
    pthread_barrier_wait(&all_work);
}

static void by_exit(void) {
    start();
    atexit(at_exit);
    exit(status_of_exit);
}

static void by_underscore_exit(void) {
    start();
    atexit(abort);
    _exit(status_of_exit);
}

static void by_quick_exit(void) {
    start();
    atexit(abort);
    at_quick_exit(at_exit);
    quick_exit(status_of_exit);
}

static void on_abort(int signal_number) {
    (void)signal_number;
    at_exit(); /* a crash handler that allocates: abort was called outside the library */
}

static void by_abort(void) {
    signal(SIGABRT, on_abort);
    start();
    abort();
}

/* Another thread ends the process while main sleeps in the middle of its life. */
static void *call_exit(void *unused) {
    (void)unused;
    storm_short_life((void *)5);
    exit(status_of_exit);
    return NULL;
}

static void by_other_thread(void) {
    start();
    atexit(at_exit);
    storm_thread(call_exit, NULL);
    for (;;)
        pause();
}

/* The main thread ends first; the last thread works on, then ends the process. */
static void *outlive_main(void *main_thread) {
    storm_join(*(pthread_t *)main_thread);
    storm_short_life((void *)6);
    storm_join(storm_thread(storm_short_life, (void *)7));
    exit(status_of_exit);
    return NULL;
}

static void by_pthread_exit_of_main(void) {
    static pthread_t main_thread;
    start();
    atexit(at_exit);
    main_thread = pthread_self();
    storm_thread(outlive_main, &main_thread);
    pthread_exit(NULL);
}

/* No exit call at all: the process ends with its last thread, with status 0. */
static void *end_last(void *main_thread) {
    storm_join(*(pthread_t *)main_thread);
    storm_workload(7, 2);
    return NULL;
}

static void by_last_thread(void) {
    static pthread_t main_thread;
    storm_workload(8, 2);
    atexit(at_exit);
    main_thread = pthread_self();
    pthread_detach(storm_thread(end_last, &main_thread));
    pthread_exit(NULL);
}

/* A thread ends inside a signal handler that interrupted none of our calls. */
static void end_thread(int signal_number) {
    (void)signal_number;
    pthread_exit(NULL);
}

static void *wait_for_end(void *arg) {
    struct rng rng = storm_rng_of(9);
    storm_churn(&rng, 100, 1 << 18);
    sem_t *ready = arg;
    sem_post(ready);
    for (;;)
        pause();
    return NULL;
}

static void by_handlers(void) {
    sem_t ready;
    start();
    sem_init(&ready, 0, 0);
    signal(SIGUSR1, end_thread);
    for (int i = 0; i < 10; i++) {
        pthread_t thread = storm_thread(wait_for_end, &ready);
        while (sem_wait(&ready) != 0) {
        }
        pthread_kill(thread, SIGUSR1);
        storm_join(thread);
    }
    exit(status_of_exit);
}

struct way {
    const char *name;
    void (*end)(void);
    int status;        /* as waitpid reports it */
    bool not_for_tsan; /* joins main, or ends a thread in a handler: its runtime can do neither */
};

static const struct way ways[] = {{"exit", by_exit, status_of_exit << 8, false},
                                  {"_exit", by_underscore_exit, status_of_exit << 8, false},
                                  {"quick_exit", by_quick_exit, status_of_exit << 8, false},
                                  {"abort", by_abort, SIGABRT, false},
                                  {"exit of another thread", by_other_thread, status_of_exit << 8, false},
                                  {"pthread_exit of main", by_pthread_exit_of_main, status_of_exit << 8, true},
                                  {"end of the last thread", by_last_thread, 0, true},
                                  {"pthread_exit in a handler", by_handlers, status_of_exit << 8, true}};

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 600, .threads = 8, .ops = 200}, NULL);
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    for (long run = 0; storm_goes_on(run * storm_slowness); run++) {
        for (size_t w = 0; w < COUNT_OF(ways); w++) {
            if (STORM_TSAN && ways[w].not_for_tsan)
                continue;
            pid_t pid = fork();
            REQUIRE(pid >= 0, "fork: errno %d", errno);
            if (pid == 0) {
                storm_child();
                storm.seed += (uint64_t)run;
                ways[w].end();
            }
            int status = storm_wait(pid) & ~0x80; /* a core dump or none */
            REQUIRE(status == ways[w].status, "run %ld, %s: status %#x for %#x", run, ways[w].name, (unsigned)status,
                    (unsigned)ways[w].status);
        }
    }
    return 0;
}
