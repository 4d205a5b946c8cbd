/* test.h -- what every test needs: cmocka, honest failures anywhere, sizes, patterns, children, the process's memory.
 *
 * PURPOSE     One place for the helpers, so that a test reads as what it proves. Nothing here calls the allocator
 *             under test (that is semantics_calls.h), so tests of the interposing library include it as well.
 *
 * INVARIANTS  must() works in every thread and every child; cmocka's assert_*() only in the main thread of the
 *             parent, since it jumps.
 */
#ifndef STRESS_TEST_H
#define STRESS_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __cplusplus
extern "C" {
#endif
#include <cmocka.h>
#ifdef __cplusplus
}
#endif

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define KIB             ((size_t)1 << 10)
#define MIB             ((size_t)1 << 20)
#define GIB             ((size_t)1 << 30)
#define TEST_SKIPPED    77

/* Fails the program from any thread or child. */
#define must(condition) ((condition) ? (void)0 : must_failed(#condition, __FILE__, __LINE__))

static inline void must_failed(const char *condition, const char *file, int line) {
    char text[256];
    int length = snprintf(text, sizeof text, "%s:%d: must(%s), errno %d\n", file, line, condition, errno);
    if (write(2, text, length > 0 ? (size_t)length : 0) < 0) {
        _exit(3);
    }
    abort();
}

/* The compiler forgets what it knows of a value: no warning about an absurd size, no folding of a comparison. */
static inline size_t opaque_size(size_t value) {
    __asm__ volatile("" : "+r"(value));
    return value;
}

static inline void *opaque(void *ptr) {
    __asm__ volatile("" : "+r"(ptr) : : "memory");
    return ptr;
}

static inline double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- random numbers: splitmix64. GRANARY_TEST_SEED replays another run. ---- */

struct rng {
    uint64_t state;
};

static inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t rng_next(struct rng *rng) {
    rng->state += 0x9e3779b97f4a7c15u;
    return mix(rng->state);
}

static inline size_t rng_below(struct rng *rng, size_t bound) { return (size_t)(rng_next(rng) % bound); }

/* Sizes 0 .. 2^bits - 1, each doubling as likely as the next. */
static inline size_t rng_size(struct rng *rng, unsigned bits) {
    size_t top = (size_t)1 << rng_below(rng, bits + 1);
    return rng_below(rng, top);
}

static inline struct rng rng_for(uint64_t stream) {
    const char *seed = getenv("GRANARY_TEST_SEED");
    struct rng rng = {mix((seed ? strtoull(seed, NULL, 0) : 1) * 0x9e3779b97f4a7c15u + stream)};
    return rng;
}

/* ---- patterns: byte i depends on seed and i alone, so a prefix of a pattern is a pattern. ---- */

static inline uint64_t pattern_word(uint64_t seed, size_t i) { return (seed + i) * 0x9e3779b97f4a7c15u ^ (seed >> 7); }

static inline void pattern_fill(void *ptr, size_t size, uint64_t seed) {
    unsigned char *bytes = (unsigned char *)ptr;
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = pattern_word(seed, at / 8);
        memcpy(bytes + at, &word, size - at < 8 ? size - at : 8);
    }
}

static inline bool pattern_holds(const void *ptr, size_t size, uint64_t seed) {
    const unsigned char *bytes = (const unsigned char *)ptr;
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = pattern_word(seed, at / 8);
        if (memcmp(bytes + at, &word, size - at < 8 ? size - at : 8) != 0) {
            return false;
        }
    }
    return true;
}

/* Large blocks: every 509th byte, so that each page is met and a test stays quick. */
static inline size_t pattern_stride(size_t size) { return size > 64 * KIB ? 509 : 1; }

static inline void pattern_sprinkle(void *ptr, size_t size, uint64_t seed) {
    unsigned char *bytes = (unsigned char *)ptr;
    for (size_t at = 0; at < size; at += pattern_stride(size)) {
        bytes[at] = (unsigned char)pattern_word(seed, at);
    }
}

static inline bool pattern_sprinkled(const void *ptr, size_t size, uint64_t seed) {
    const unsigned char *bytes = (const unsigned char *)ptr;
    for (size_t at = 0; at < size; at += pattern_stride(size)) {
        if (bytes[at] != (unsigned char)pattern_word(seed, at)) {
            return false;
        }
    }
    return true;
}

static inline bool all_bytes_are(const void *ptr, size_t size, unsigned char value) {
    const unsigned char *bytes = (const unsigned char *)ptr;
    return size == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static inline bool is_aligned(const void *ptr, size_t alignment) { return ((uintptr_t)ptr & (alignment - 1)) == 0; }

/* ---- the process's memory, from /proc ---- */

static inline size_t read_file(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got = 1;
    while (fd >= 0 && length + 1 < size && (got = read(fd, text + length, size - 1 - length)) > 0) {
        length += (size_t)got;
    }
    text[length] = 0;
    if (fd >= 0) {
        close(fd);
    }
    return length;
}

static inline size_t statm_bytes(int column) {
    char text[256];
    char *at = text;
    read_file("/proc/self/statm", text, sizeof text);
    while (column-- > 0) {
        strtoull(at, &at, 10);
    }
    return (size_t)strtoull(at, &at, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

static inline size_t vsz_bytes(void) { return statm_bytes(0); }

static inline size_t rss_bytes(void) { return statm_bytes(1); }

/* Calls visit(start, end, permissions, arg) for each mapping until it returns false; returns the number of visits. */
static inline size_t visit_maps(bool (*visit)(uintptr_t start, uintptr_t end, const char *perms, void *arg),
                                void *arg) {
    static char text[4 * 1024 * 1024]; /* the list is read whole first: a visit may change it */
    size_t count = 0;
    read_file("/proc/self/maps", text, sizeof text);
    for (char *line = text, *next; (next = strchr(line, '\n')) != NULL; line = next + 1) {
        char *at;
        uintptr_t start = (uintptr_t)strtoull(line, &at, 16);
        uintptr_t end = (uintptr_t)strtoull(at + 1, &at, 16);
        count++;
        if (visit && !visit(start, end, at + 1, arg)) {
            break;
        }
    }
    return count;
}

static inline size_t map_count(void) { return visit_maps(NULL, NULL); }

/* ---- threads and children ---- */

/* Runs fn(arg) in a thread of its own and waits for its end. */
static inline void in_thread(void *(*fn)(void *), void *arg) {
    pthread_t thread;
    must(pthread_create(&thread, NULL, fn, arg) == 0);
    must(pthread_join(thread, NULL) == 0);
}

/* How a child ended and the start of what it wrote to stderr. */
struct ending {
    int exit_code;  /* -1: ended by a signal */
    int signal;     /* 0: ended by exit */
    bool timed_out; /* and was killed */
    size_t length;
    char text[4096];
};

/* Forks; the child runs fn(arg) and exits with its result, stderr caught, no core file. */
static inline struct ending in_child(int (*fn)(void *), void *arg, unsigned timeout_seconds) {
    struct ending ending;
    int pipe_ends[2];
    memset(&ending, 0, sizeof ending);
    must(pipe(pipe_ends) == 0);
    fflush(NULL);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        dup2(pipe_ends[1], 2);
        close(pipe_ends[0]);
        close(pipe_ends[1]);
        _exit(fn(arg));
    }
    close(pipe_ends[1]);
    double deadline = seconds_now() + timeout_seconds;
    for (bool open = true; open;) {
        struct pollfd ready = {pipe_ends[0], POLLIN, 0};
        char rest[512];
        size_t room = sizeof ending.text - 1 - ending.length;
        double left = deadline - seconds_now();
        if (left <= 0) {
            ending.timed_out = true;
            kill(child, SIGKILL);
            break;
        }
        if (poll(&ready, 1, (int)(left * 1000) + 1) > 0) {
            ssize_t got = read(pipe_ends[0], room ? ending.text + ending.length : rest, room ? room : sizeof rest);
            ending.length += room && got > 0 ? (size_t)got : 0;
            open = got > 0;
        }
    }
    close(pipe_ends[0]);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    ending.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    ending.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return ending;
}

/* A child that starts this program anew with two arguments: nothing was allocated before in it. */
static inline int exec_self(void *words) {
    char **pair = (char **)words;
    execl("/proc/self/exe", "self", pair[0], pair[1], (char *)NULL);
    return 126;
}

static inline struct ending in_new_process(const char *verb, const char *object, unsigned timeout_seconds) {
    const char *pair[] = {verb, object};
    return in_child(exec_self, pair, timeout_seconds);
}

/* For tests whose children must end well and silently. */
static inline void must_end_well(struct ending ending, const char *what) {
    if (ending.exit_code != 0 || ending.timed_out) {
        fprintf(stderr, "%s: exit %d, signal %d%s\n%s\n", what, ending.exit_code, ending.signal,
                ending.timed_out ? ", timed out" : "", ending.text);
    }
    assert_int_equal(ending.exit_code, 0);
}

#endif
