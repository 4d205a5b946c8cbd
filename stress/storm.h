/* storm.h -- what the tests with many threads and processes share: race_, soak_, thread_, fork_, park_,
 * start_.
 *
 * PURPOSE   Options of the command line, random numbers from one printed seed, a check that ends the process
 * with a line on stderr, bounds against hanging, and children that are waited for.
 *
 * INVARIANTS
 *   quiet-helpers   Nothing here calls malloc or stdio after storm_begin has returned, so every helper may
 * run in a forked child of many threads, in a signal handler and in the last destructor of a thread.
 *   time-is-no-judge  A clock ends a run or catches a hang. It never decides whether a test passes.
 *
 * ELSEWHERE What single-threaded tests need as well (random numbers, size of the process): stress/test.h. The
 * calls under test, blocks with a pattern and the work done with them: stress/storm_block.h.
 */
#ifndef STRESS_STORM_H
#define STRESS_STORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "test.h"

#include <getopt.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STORM_TSAN 1
#endif
#if __has_feature(address_sanitizer)
#define STORM_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define STORM_TSAN 1
#endif
#if defined(__SANITIZE_ADDRESS__)
#define STORM_ASAN 1
#endif
#ifndef STORM_TSAN
#define STORM_TSAN 0
#endif
#ifndef STORM_ASAN
#define STORM_ASAN 0
#endif

/* Figures about this process' memory say something about the library only without a sanitizer's shadow. */
enum { storm_plain = !STORM_TSAN && !STORM_ASAN };

/* How often slower everything may be before it counts as a hang. */
enum { storm_slowness = storm_plain ? 1 : 5 };

enum {
    storm_hang_seconds = 120 * storm_slowness,       /* of a whole run, beyond --seconds */
    storm_child_hang_seconds = 120 * storm_slowness, /* of one child; a loaded machine is no hang */
    storm_exit_skipped = 77                          /* what ctest takes for "not run" */
};

/* Failing */

/* One line on stderr and abort, by write alone. */
__attribute__((noreturn, cold, format(printf, 4, 5))) static inline void
storm_fail(const char *file, int line, const char *what, const char *format, ...) {
    char text[512];
    int at = snprintf(text, sizeof text, "%s:%d: [pid %d] %s: ", file, line, (int)getpid(), what);
    va_list args;
    va_start(args, format);
    if (at > 0 && (size_t)at < sizeof text - 2) {
        int more = vsnprintf(text + at, sizeof text - 2 - (size_t)at, format, args);
        at += more > 0 ? more : 0;
    }
    va_end(args);
    size_t length = at > 0 && (size_t)at < sizeof text - 2 ? (size_t)at : sizeof text - 2;
    text[length] = '\n';
    (void)!write(2, text, length + 1);
    abort();
}

/* Always checked; the rest of the arguments is a printf message. */
#define REQUIRE(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            storm_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                                                   \
    } while (0)

static inline void storm_skip(const char *why) {
    printf("skipped: %s\n", why);
    fflush(stdout);
    _exit(storm_exit_skipped);
}

/* Random numbers */

static inline bool storm_one_in(struct rng *rng, unsigned n) { return rng_below(rng, n) == 0; }

/* Options */

struct storm_options {
    double seconds; /* a run ends after so long ... */
    long ops;       /* ... or after so many operations in each thread, if not 0 */
    long threads;
    uint64_t seed;
};

/* An option of one test beyond the four; the table ends with a NULL name. */
struct storm_extra {
    const char *name;
    long *value;
    const char *help;
};

static struct storm_options storm;
static const char *storm_name;
static struct timespec storm_end;
static _Atomic bool storm_stopped;

static inline struct rng storm_rng_of(uint64_t stream) {
    return (struct rng){mix(storm.seed * 0x9e3779b97f4a7c15u + stream + 1)};
}

static inline void storm_on_alarm(int signal_number) {
    (void)signal_number;
    static const char text[] = "hang: the run is far beyond its time, see the stacks in the core file\n";
    (void)!write(2, text, sizeof text - 1);
    abort();
}

__attribute__((noreturn)) static inline void storm_usage(const struct storm_extra *extras, int status) {
    printf("usage: %s [options]\n"
           "  --seconds S   how long (fractions allowed; hours are fine), now %g\n"
           "  --ops N       stop earlier, after N operations in each thread; 0: no limit, now %ld\n"
           "  --threads N   now %ld\n"
           "  --seed N      repeat the random choices of a run (the interleaving is the machine's); or "
           "GRANARY_TEST_SEED\n",
           storm_name, storm.seconds, storm.ops, storm.threads);
    for (; extras && extras->name; extras++)
        printf("  --%-11s %s, now %ld\n", extras->name, extras->help, *extras->value);
    exit(status);
}

/* Sets the deadline `seconds` from now and the bound against hanging. A forked child that runs long calls it
 * again. */
static inline void storm_start_clock(double seconds) {
    clock_gettime(CLOCK_MONOTONIC, &storm_end);
    long whole = (long)seconds;
    storm_end.tv_sec += whole;
    storm_end.tv_nsec += (long)((seconds - (double)whole) * 1e9);
    if (storm_end.tv_nsec >= 1000000000) {
        storm_end.tv_nsec -= 1000000000;
        storm_end.tv_sec++;
    }
    signal(SIGALRM, storm_on_alarm);
    alarm((unsigned)(seconds + storm_hang_seconds));
}

/* Reads the options over `defaults`, prints the ones in force and starts the clock. */
static inline void storm_begin(int argc, char **argv, struct storm_options defaults, const struct storm_extra *extras) {
    enum { base = 4, room = 12 };
    static const char *const base_names[base] = {"seconds", "ops", "threads", "seed"};
    struct option table[room + 2] = {{0}};
    int count = 0;
    for (; count < base; count++)
        table[count] = (struct option){base_names[count], required_argument, NULL, 256 + count};
    for (const struct storm_extra *e = extras; e && e->name && count < room; e++, count++)
        table[count] = (struct option){e->name, required_argument, NULL, 256 + count};
    table[count] = (struct option){"help", no_argument, NULL, 'h'};
    storm_name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    storm = defaults;
    if (!storm.seed && getenv("GRANARY_TEST_SEED"))
        storm.seed = strtoull(getenv("GRANARY_TEST_SEED"), NULL, 0);
    if (!storm.seed) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        storm.seed = mix((uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec + (uint64_t)getpid()) >> 32;
    }
    for (int got; (got = getopt_long(argc, argv, "h", table, NULL)) != -1;) {
        switch (got) {
        case 256:
            storm.seconds = strtod(optarg, NULL);
            break;
        case 257:
            storm.ops = strtol(optarg, NULL, 0);
            break;
        case 258:
            storm.threads = strtol(optarg, NULL, 0);
            break;
        case 259:
            storm.seed = strtoull(optarg, NULL, 0);
            break;
        default:
            if (got < 256)
                storm_usage(extras, got != 'h');
            *extras[got - 256 - base].value = strtol(optarg, NULL, 0);
        }
    }
    printf("%s --seconds %g --ops %ld --threads %ld --seed %llu", storm_name, storm.seconds, storm.ops, storm.threads,
           (unsigned long long)storm.seed);
    for (const struct storm_extra *e = extras; e && e->name; e++)
        printf(" --%s %ld", e->name, *e->value);
    printf("\n");
    fflush(stdout);
    storm_start_clock(storm.seconds);
}

static inline bool storm_past_end(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > storm_end.tv_sec || (now.tv_sec == storm_end.tv_sec && now.tv_nsec >= storm_end.tv_nsec);
}

static inline void storm_stop(void) { atomic_store_explicit(&storm_stopped, true, memory_order_relaxed); }

/* What a worker's loop asks before its operation number `done`. Orders nothing. */
static inline bool storm_goes_on(long done) {
    if (atomic_load_explicit(&storm_stopped, memory_order_relaxed) || (storm.ops && done >= storm.ops))
        return false;
    if (storm_past_end())
        storm_stop();
    return true;
}

/* Threads */

static inline pthread_t storm_thread(void *(*body)(void *), void *arg) {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, body, arg);
    REQUIRE(error == 0, "pthread_create: error %d", error);
    return thread;
}

static inline void *storm_join(pthread_t thread) {
    void *result;
    int error = pthread_join(thread, &result);
    REQUIRE(error == 0, "pthread_join: error %d", error);
    return result;
}

enum { storm_max_threads = 256 };

/* Runs body(index) in `count` threads and joins them. */
static inline void storm_team(long count, void *(*body)(void *)) {
    pthread_t threads[storm_max_threads];
    REQUIRE(count <= storm_max_threads, "%ld threads", count);
    for (long i = 0; i < count; i++)
        threads[i] = storm_thread(body, (void *)(intptr_t)i);
    for (long i = 0; i < count; i++)
        storm_join(threads[i]);
}

/* Children */

/* First thing in a child: a hang becomes death by SIGALRM. */
static inline void storm_child(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* of who waits for it: a process whose last thread blocks SIGALRM */
    signal(SIGALRM, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    alarm(storm_child_hang_seconds);
}

static inline int storm_wait(pid_t pid) {
    int status;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got == -1 && errno == EINTR);
    REQUIRE(got == pid, "waitpid(%d): errno %d", (int)pid, errno);
    return status;
}

/* Waits for a child that must have ended by exit status 0. */
static inline void storm_reap(pid_t pid, const char *what, long number) {
    int status = storm_wait(pid);
    REQUIRE(!WIFSIGNALED(status), "%s %ld: child killed by signal %d%s", what, number, WTERMSIG(status),
            WTERMSIG(status) == SIGALRM ? " (it hung)" : "");
    REQUIRE(WEXITSTATUS(status) == 0, "%s %ld: child's exit status %d", what, number, WEXITSTATUS(status));
}

/* Runs body(arg) in a child of its own; it must return or exit 0 within the bound. */
static inline void storm_in_child(void (*body)(long), long arg, const char *what) {
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: errno %d", errno);
    if (pid == 0) {
        storm_child();
        body(arg);
        _exit(0);
    }
    storm_reap(pid, what, arg);
}

static inline double storm_mib(size_t bytes) { return (double)bytes / (1 << 20); }

/* Noise */

#ifdef STORM_NOISE
/* Linked with granary_points: before a step of the library a thread now and then steps aside, so that others come between
 * two steps that are a few instructions apart. Most naps are short; a few outlast a time slice. */
void gr_test_point(void);
void gr_test_point(void) {
    static _Thread_local struct rng rng;
    if (!rng.state)
        rng.state = storm.seed ^ (uint64_t)(uintptr_t)&rng;
    uint64_t draw = rng_next(&rng);
    if (draw % 256)
        return;
    int kept_errno = errno;
    if (draw >> 8 & 15)
        sched_yield();
    else
        nanosleep(&(struct timespec){0, 1000 + (long)(draw >> 16) % 200000}, NULL);
    errno = kept_errno;
}
#endif

#endif
