/* start_tls.c -- libraries with thread-local storage, loaded and touched in threads.
 *
 * With STRESS_SHIM this is a library whose TLS is larger than what the loader keeps in reserve, so that each thread that
 * touches it gets the block by malloc, and libc frees it at the thread's end, after the last destructor. Loading many copies
 * makes the loader enlarge its table of such blocks; the first table of the main thread comes from the loader's own early
 * malloc. Otherwise this is the program, which starts itself anew with granary preloaded.
 *
 * covers: S62 S63 S81 S85 C8
 */
/* test: link=none libs=dl timeout=120 args="$<TARGET_FILE:start_tls_shim> $<TARGET_FILE:granary>" */
#ifdef STRESS_SHIM

#include <stdlib.h>
#include <string.h>

static __thread unsigned char large[200000];
static __thread unsigned char *owned;

extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
extern void *__dso_handle;

/* What a C++ thread_local's destructor does. */
static void destroy(void *block) {
    unsigned char *other = malloc(3000);
    if (!other || *(unsigned char *)block != 0x5a || large[0] != large[sizeof large - 1])
        abort();
    free(other);
    free(block);
}

/* Returns 0 if this thread's storage is its own and as it was. */
int start_tls_touch(int value);
int start_tls_touch(int value) {
    if (!owned) {
        for (size_t i = 0; i < sizeof large; i += 997)
            if (large[i])
                return 1;
        owned = malloc(5000);
        if (!owned)
            return 2;
        memset(owned, 0x5a, 5000);
        __cxa_thread_atexit_impl(destroy, owned, &__dso_handle);
    } else if (large[77777] != large[0]) {
        return 3;
    }
    memset(large, value, sizeof large);
    return 0;
}

#else

#define STORM_LIBC
#include "storm_block.h"

#include <dlfcn.h>

enum { copies = 24, rounds = 6, threads = 6 };

static char directory[] = "/tmp/start_tls_XXXXXX";
static int (*touch[copies])(int);
static void *handle[copies];

static void path_of(char *path, size_t size, int copy) { snprintf(path, size, "%s/%d.so", directory, copy); }

/* The loader knows a file by its inode, so a copy is another library. */
static void copy_library(const char *from, int copy) {
    char path[64], buffer[65536];
    path_of(path, sizeof path, copy);
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    REQUIRE(in >= 0 && out >= 0, "copying %s: errno %d", from, errno);
    for (ssize_t got; (got = read(in, buffer, sizeof buffer)) > 0;)
        REQUIRE(write(out, buffer, (size_t)got) == got, "copying %s: errno %d", from, errno);
    close(in);
    close(out);
}

static void load(int copy) {
    char path[64];
    path_of(path, sizeof path, copy);
    handle[copy] = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(handle[copy], "%s", dlerror());
    touch[copy] = (int (*)(int))dlsym(handle[copy], "start_tls_touch");
    REQUIRE(touch[copy], "%s", dlerror());
}

static void *life(void *seed) {
    struct rng rng = {(uint64_t)(uintptr_t)seed};
    if (storm_one_in(&rng, 2))
        storm_churn(&rng, 50, 1 << 16);
    for (int i = 0; i < 40; i++) {
        int copy = (int)rng_below(&rng, copies), wrong = touch[copy](1 + i);
        REQUIRE(wrong == 0, "thread-local storage of copy %d: %d", copy, wrong);
    }
    return NULL;
}

static int worker(const char *shim) {
    struct rng rng = {9};
    REQUIRE(mkdtemp(directory), "mkdtemp: errno %d", errno);
    for (int copy = 0; copy < copies; copy++)
        copy_library(shim, copy);
    for (int round = 0; round < rounds; round++) {
        for (int copy = 0; copy < copies; copy++)
            if (!handle[copy]) {
                load(copy);
                REQUIRE(touch[copy](round) == 0, "thread-local storage of main");
            }
        REQUIRE(!dlopen("/no/such/library.so", RTLD_NOW) && dlerror(), "a library that is not there was loaded");
        pthread_t thread[threads];
        for (int i = 0; i < threads; i++)
            thread[i] = storm_thread(life, (void *)(uintptr_t)rng_next(&rng));
        for (int i = 0; i < threads; i++)
            storm_join(thread[i]);
        storm_churn(&rng, 200, 1 << 18);
    }
    for (int copy = 0; copy < copies; copy++) {
        char path[64];
        path_of(path, sizeof path, copy);
        unlink(path);
        dlclose(handle[copy]); /* stays as long as main's destructor of it is to come */
    }
    rmdir(directory);
    storm_workload(1, 2);
    return 0;
}

int main(int argc, char **argv) {
    static char preload[4200];
    if (argc == 2)
        return worker(argv[1]);
    REQUIRE(argc == 3, "usage: start_tls SHIM LIBRARY");
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", argv[2]);
    char *const words[] = {argv[0], argv[1], NULL}, *const environment[] = {preload, NULL};
    pid_t pid = fork();
    if (pid == 0) {
        storm_child();
        execve("/proc/self/exe", words, environment);
        _exit(126);
    }
    storm_reap(pid, "program with thread-local storage", 0);
    return 0;
}

#endif
