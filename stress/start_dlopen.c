/* start_dlopen.c -- the library loaded by dlopen beside libc's malloc and a second copy of itself.
 *
 * The program calls libc's malloc; granary_api is linked in under its own names; the shared library is loaded with
 * RTLD_LOCAL. Each of the three serves its own blocks, and a block of one that is given to another's free is named as what
 * it is. Threads outlive the library's dlclose.
 *
 * covers: S84 C17
 */
/* test: sanitize=off libs=dl args="$<TARGET_FILE:granary>" */
#include "storm_block.h"

#include <dlfcn.h>

static struct loaded {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    size_t (*usable)(void *);
} theirs;

static void *find(void *library, const char *name) {
    void *symbol = dlsym(library, name);
    REQUIRE(symbol, "%s: %s", name, dlerror());
    return symbol;
}

static pthread_barrier_t closed;

static void *use_it(void *arg) {
    unsigned char *blocks[500];
    size_t base = 1 + 97 * (size_t)(intptr_t)arg;
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < COUNT_OF(blocks); i++) {
            size_t size = base + i * i % 9000;
            blocks[i] = i % 3 ? theirs.malloc(size) : theirs.calloc(1, size);
            REQUIRE(blocks[i] && theirs.usable(blocks[i]) >= size, "%zu bytes: %p", size, (void *)blocks[i]);
            memset(blocks[i], (int)(i & 127), size);
            blocks[i] = theirs.realloc(blocks[i], size + 50);
            REQUIRE(blocks[i] && blocks[i][size - 1] == (i & 127), "realloc lost contents");
        }
        for (size_t i = 0; i < COUNT_OF(blocks); i++)
            theirs.free(blocks[i]);
        if (round == 10)
            pthread_barrier_wait(&closed); /* main closes the library */
    }
    return NULL;
}

static int free_libc_block(void *unused) {
    (void)unused;
    theirs.free(opaque(malloc(100)));
    return 0;
}

static int realloc_libc_block(void *unused) {
    (void)unused;
    return theirs.realloc(opaque(malloc(100)), 200) != NULL;
}

static int free_block_of_copy(void *unused) {
    (void)unused;
    theirs.free(opaque(granary_malloc(100)));
    return 0;
}

static int free_block_of_loaded(void *unused) {
    (void)unused;
    granary_free(opaque(theirs.malloc(100)));
    return 0;
}

static void must_be_named_foreign(int (*crime)(void *), const char *what) {
    struct ending end = in_child(crime, NULL, 60);
    REQUIRE(end.signal == SIGABRT && strstr(end.text, "FATAL foreign pointer"), "%s: exit %d, signal %d, '%s'", what,
            end.exit_code, end.signal, end.text);
}

int main(int argc, char **argv) {
    REQUIRE(argc == 2, "usage: start_dlopen LIBRARY");
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library, "%s", dlerror());
    theirs.malloc = (void *(*)(size_t))find(library, "malloc");
    theirs.calloc = (void *(*)(size_t, size_t))find(library, "calloc");
    theirs.realloc = (void *(*)(void *, size_t))find(library, "realloc");
    theirs.free = (void (*)(void *))find(library, "free");
    theirs.usable = (size_t(*)(void *))find(library, "malloc_usable_size");
    REQUIRE(theirs.malloc != malloc, "RTLD_LOCAL has replaced the program's malloc");

    storm_churn(&(struct rng){1}, 2000, 1 << 20); /* the copy that is linked in */
    pthread_barrier_init(&closed, NULL, 5);
    pthread_t threads[4];
    for (intptr_t i = 0; i < 4; i++)
        threads[i] = storm_thread(use_it, (void *)i);
    pthread_barrier_wait(&closed);
    dlclose(library);
    for (int i = 0; i < 4; i++)
        storm_join(threads[i]);
    theirs.free(theirs.malloc(100)); /* it is never unmapped */

    must_be_named_foreign(free_libc_block, "free of libc's block");
    must_be_named_foreign(realloc_libc_block, "realloc of libc's block");
    must_be_named_foreign(free_block_of_copy, "free of a block of the copy that is linked in");
    must_be_named_foreign(free_block_of_loaded, "free of a block of the copy that was loaded");
    return 0;
}
