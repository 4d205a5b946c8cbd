/* fork_signal.c -- fork and _Fork in a signal handler that interrupted malloc or free.
 *
 * Each thread has a timer that interrupts it at a random moment of its churn, in all likelihood inside a call. The handler
 * forks. One child in two does everything there is still inside the handler and ends there, so the call that it interrupted is
 * never finished. The other returns from the handler at once, finishes that call, then does everything. The parent's handler
 * returns and its thread goes on. (A handler that allocates *and* returns into malloc is what "not async-signal-safe"
 * forbids.) By hand: --ops 10000 --threads 16.
 *
 * covers: S75 C9
 */
/* test: args="--ops 30 --threads 3" timeout=240 */
/* test: name=guards args="--ops 10 --threads 3" env="GRANARY_GUARDS=1" timeout=240 hardened=off */
#include "storm_block.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { slots = 64 };

struct victim {
    timer_t timer;
    struct rng rng; /* of the handler only */
    volatile sig_atomic_t forks, is_child, is_bare;
};

static _Thread_local struct victim *self; /* read once by the thread before its timer runs: no lazy allocation later */

static void grandchild(long seed) { storm_short_life((void *)(uintptr_t)seed); }

static void arm(struct victim *me) {
    struct itimerspec at = {.it_value = {0, 1000 + (long)rng_below(&me->rng, 1 << (8 + rng_below(&me->rng, 12)))}};
    timer_settime(me->timer, 0, &at, NULL);
}

/* Does not return. Bare children come from _Fork: libc's own locks are as they were, so no thread is started there. */
static void child_work(struct victim *me, bool bare) {
    storm_workload(rng_next(&me->rng), bare ? 0 : 1);
    storm_empty_boxes(&me->rng);
    if (!bare)
        storm_in_child(grandchild, me->forks, "fork in the child of a handler");
    _exit(0);
}

static void on_timer(int signal_number) {
    (void)signal_number;
    int kept_errno = errno;
    struct victim *me = self;
    bool bare = storm_one_in(&me->rng, 3), inside = storm_one_in(&me->rng, 2);
    pid_t pid = bare ? _Fork() : fork();
    REQUIRE(pid >= 0, "fork: errno %d", errno);
    if (pid == 0) {
        storm_child();
        if (inside)
            child_work(me, bare);
        me->is_child = 1;
        me->is_bare = bare;
    } else {
        storm_reap(pid, bare ? "_Fork in a handler" : "fork in a handler", inside);
        me->forks++;
        arm(me);
    }
    errno = kept_errno;
}

static void *work(void *index) {
    struct victim me = {.rng = storm_rng_of(100 + (uint64_t)(intptr_t)index)};
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    struct storm_block held[slots] = {{0}};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    self = &me;
    REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &me.timer) == 0, "timer_create: errno %d", errno);
    arm(&me);
    while (!me.is_child && me.forks < storm.ops && !storm_past_end()) {
        storm_operation(&rng, held, slots, storm_one_in(&rng, 100) ? 1 << 22 : 1 << 14);
        if (storm_one_in(&rng, 500))
            granary_trim();
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* from here on this thread is not forked: who is a child knows it now */
    if (me.is_child) {                      /* back from the handler, through the interrupted call */
        storm_release_all(&rng, held, slots);
        child_work(&me, me.is_bare);
    }
    timer_delete(me.timer);
    storm_release_all(&rng, held, slots);
    return (void *)(intptr_t)me.forks;
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 4, .ops = 100}, NULL);
    if (!storm_plain)
        storm_skip("the sanitizers' own locks do not survive a fork of many threads");
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction: errno %d", errno);
    pthread_t thread[storm_max_threads];
    REQUIRE(storm.threads <= storm_max_threads, "%ld threads", storm.threads);
    for (long i = 1; i < storm.threads; i++)
        thread[i] = storm_thread(work, (void *)(intptr_t)i);
    long forks = (intptr_t)work(NULL); /* main is a victim too */
    for (long i = 1; i < storm.threads; i++)
        forks += (intptr_t)storm_join(thread[i]);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    printf("%ld forks in handlers\n", forks);
    REQUIRE(forks > 0, "no handler has run");
    return 0;
}
