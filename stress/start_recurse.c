/* start_recurse.c -- libc's functions that call malloc themselves, as shims, profilers and sanitizers make them.
 *
 * With STRESS_SHIM this is a library that is preloaded before granary: each function below allocates and frees before it
 * does its work, so what granary calls while it starts, grows, ends a thread or gives memory back calls granary again. That
 * must neither recurse without end nor deadlock nor hand the same block out twice. Otherwise this is the program that runs
 * between the two.
 *
 * covers: S83 C7 C15
 */
/* test: link=none libs=dl timeout=120 args="$<TARGET_FILE:start_recurse_shim> $<TARGET_FILE:granary>" */
#ifdef STRESS_SHIM

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { deepest = 30 };

static __thread int depth __attribute__((tls_model("initial-exec")));
long start_recurse_calls;

/* Allocates, and looks after its blocks, in the middle of whoever called. */
static void disturb(void) {
    static const size_t sizes[] = {24, 100, 3000, 70000};
    unsigned char *blocks[4];
    __atomic_fetch_add(&start_recurse_calls, 1, __ATOMIC_RELAXED);
    if (++depth >= deepest) {
        static const char text[] = "start_recurse: malloc calls itself without end\n";
        (void)!write(2, text, sizeof text - 1);
        abort();
    }
    for (int i = 0; i < 4; i++) {
        blocks[i] = malloc(sizes[i]);
        if (!blocks[i])
            abort();
        memset(blocks[i], 0x40 + i, sizes[i]);
    }
    for (int i = 0; i < 4; i++) {
        for (size_t at = 0; at < sizes[i]; at += 23)
            if (blocks[i][at] != 0x40 + i)
                abort();
        free(blocks[i]);
    }
    depth--;
}

/* The next definition of a name. dlsym itself is among the shims, so the versioned look-up finds libc's (2.34 is the first
 * glibc that has it in libc). Neither allocates when it finds what it is asked for. */
static void *next(const char *name) {
    static void *(*real_dlsym)(void *, const char *);
    if (!real_dlsym)
        *(void **)&real_dlsym = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    return real_dlsym(RTLD_NEXT, name);
}

#define SHIM(result, name, parameters, arguments)                                                                      \
    result name parameters;                                                                                            \
    result name parameters {                                                                                           \
        static result(*real) parameters;                                                                               \
        if (!real)                                                                                                     \
            *(void **)&real = next(#name);                                                                             \
        disturb();                                                                                                     \
        return real arguments;                                                                                         \
    }

SHIM(int, pthread_key_create, (unsigned *key, void (*destructor)(void *)), (key, destructor))
SHIM(int, pthread_key_delete, (unsigned key), (key))
SHIM(int, pthread_setspecific, (unsigned key, const void *value), (key, value))
SHIM(long, sysconf, (int name), (name))
SHIM(ssize_t, read, (int fd, void *buffer, size_t size), (fd, buffer, size))
SHIM(int, __cxa_atexit, (void (*function)(void *), void *arg, void *handle), (function, arg, handle))
SHIM(int, clock_gettime, (clockid_t clock, struct timespec *out), (clock, out))
SHIM(void *, dlsym, (void *handle, const char *name), (handle, name))

SHIM(int, __register_atfork, (void (*prepare)(void), void (*parent)(void), void (*child)(void), void *handle),
     (prepare, parent, child, handle))
SHIM(ssize_t, getrandom, (void *buffer, size_t size, unsigned flags), (buffer, size, flags))

extern char **environ;

char *getenv(const char *name) {
    size_t length = strlen(name);
    disturb();
    for (char **entry = environ; entry && *entry; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

char *secure_getenv(const char *name) { return getenv(name); }

int getpagesize(void) {
    disturb();
    return 4096;
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    disturb();
    return openat(AT_FDCWD, path, flags, mode);
}

#else

#define STORM_LIBC
#include "storm_block.h"

#include <dlfcn.h>

static void fork_and_work(long seed) { storm_workload((uint64_t)seed, 1); }

static int worker(void) {
    long *calls = dlsym(RTLD_DEFAULT, "start_recurse_calls");
    REQUIRE(calls, "the shim is not in the process");
    struct rng rng = {7};
    for (int round = 0; round < 10; round++) {
        storm_workload(rng_next(&rng), 3);
        storm_in_child(fork_and_work, round, "child");
    }
    storm_empty_boxes(&rng);
    printf("%ld calls of the shim\n", *calls);
    return *calls == 0;
}

int main(int argc, char **argv) {
    static char preload[8400];
    if (argc == 1)
        return worker();
    REQUIRE(argc == 3, "usage: start_recurse SHIM LIBRARY");
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s %s", argv[1], argv[2]);
    char *const words[] = {argv[0], NULL}, *const environment[] = {preload, NULL};
    pid_t pid = fork();
    if (pid == 0) {
        storm_child();
        execve("/proc/self/exe", words, environment);
        _exit(126);
    }
    storm_reap(pid, "shimmed program", 0);
    return 0;
}

#endif
