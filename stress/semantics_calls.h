/* semantics_calls.h -- every call of granary.h that allocates, as a table, and the grid of sizes.
 *
 * PURPOSE     What holds for all calls is tested on all calls: a test walks the table.
 */
#ifndef STRESS_SEMANTICS_CALLS_H
#define STRESS_SEMANTICS_CALLS_H

#include "test.h"

#include <granary.h>

/* What errno is before a call that must leave it alone. */
enum { ERRNO_MARK = 4242 };

static inline void *call_malloc(size_t n) { return granary_malloc(n); }
static inline void *call_calloc_of_one(size_t n) { return granary_calloc(1, n); }
static inline void *call_calloc_of_many(size_t n) { return granary_calloc(n, 1); }
static inline void *call_realloc(size_t n) { return granary_realloc(NULL, n); }
static inline void *call_reallocarray_of_one(size_t n) { return granary_reallocarray(NULL, 1, n); }
static inline void *call_reallocarray_of_many(size_t n) { return granary_reallocarray(NULL, n, 1); }
static inline void *call_memalign(size_t n) { return granary_memalign(64, n); }
static inline void *call_memalign_of_4k(size_t n) { return granary_memalign(4096, n); }
static inline void *call_aligned_alloc(size_t n) { return granary_aligned_alloc(64, n); }
static inline void *call_aligned_alloc_of_2m(size_t n) { return granary_aligned_alloc(2 * MIB, n); }
static inline void *call_valloc(size_t n) { return granary_valloc(n); }
static inline void *call_pvalloc(size_t n) { return granary_pvalloc(n); }

/* These two report by their result; they must leave errno and, when they fail, the pointer. */
static inline void *reported(int error, void *ptr, int errno_before) {
    must(errno == errno_before);
    if (error != 0) {
        must(error == ENOMEM);
        must(ptr == NULL);
        errno = error;
    }
    return ptr;
}

static inline void *call_posix_memalign(size_t n) {
    int before = errno;
    void *ptr = NULL;
    int error = granary_posix_memalign(&ptr, 64, n);
    return reported(error, ptr, before);
}

static inline void *call_reallocarr(size_t n) {
    int before = errno;
    void *ptr = NULL;
    int error = granary_reallocarr(&ptr, 1, n);
    return reported(error, ptr, before);
}

struct call {
    const char *name;
    void *(*alloc)(size_t size);
    size_t alignment; /* promised */
    bool zeroed;
    bool null_for_zero; /* reallocarr: a product of 0 stores NULL */
};

static const struct call calls[] __attribute__((unused)) = {
    {"malloc", call_malloc, 16, false, false},
    {"calloc(1,n)", call_calloc_of_one, 16, true, false},
    {"calloc(n,1)", call_calloc_of_many, 16, true, false},
    {"realloc", call_realloc, 16, false, false},
    {"reallocarray(1,n)", call_reallocarray_of_one, 16, false, false},
    {"reallocarray(n,1)", call_reallocarray_of_many, 16, false, false},
    {"reallocarr", call_reallocarr, 16, false, true},
    {"memalign(64)", call_memalign, 64, false, false},
    {"memalign(4096)", call_memalign_of_4k, 4096, false, false},
    {"aligned_alloc(64)", call_aligned_alloc, 64, false, false},
    {"aligned_alloc(2M)", call_aligned_alloc_of_2m, 2 * MIB, false, false},
    {"posix_memalign", call_posix_memalign, 64, false, false},
    {"valloc", call_valloc, 4096, false, false},
    {"pvalloc", call_pvalloc, 4096, false, false},
};

/* Sizes at which something changes: 0, words, each size class, pages, granules, large and huge, each -1, 0, +1. */
struct grid {
    size_t count;
    size_t sizes[2048];
};

static inline void grid_add(struct grid *grid, size_t size) {
    for (size_t near = size ? size - 1 : 0; near <= size + 1; near++) {
        must(grid->count < COUNT_OF(grid->sizes));
        grid->sizes[grid->count++] = near;
    }
}

/* The last size of the next class. The hardened build names no edges: its blocks are as long as what was asked for, and their
 * classes those of eight bytes more. */
static inline size_t edge_after(size_t edge) {
    enum { SEAL = 8 };
    size_t next = granary_nallocx(edge + 1, 0);
    must(next > edge);
    if (!GRANARY_HARDENED) {
        return next;
    }
    size_t class = edge ? edge + SEAL : 0, step = 16;
    while (step * 16 <= class) {
        step *= 2;
    }
    return class + step - SEAL;
}

static inline struct grid *grid_up_to(size_t limit) {
    static const size_t landmarks[] = {
        0,       8,        16,       31,       64,       128,       256,       512,       1 * KIB,   2 * KIB, 4 * KIB,
        8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 96 * KIB, 128 * KIB, 256 * KIB, 384 * KIB, 512 * KIB, 1 * MIB, 2 * MIB,
        3 * MIB, 4 * MIB,  8 * MIB,  16 * MIB, 32 * MIB, 33 * MIB,  64 * MIB,  128 * MIB, 1 * GIB};
    static struct grid grid;
    grid.count = 0;
    for (size_t i = 0; i < COUNT_OF(landmarks) && landmarks[i] <= limit; i++) {
        grid_add(&grid, landmarks[i]);
    }
    for (size_t edge = edge_after(0); edge <= 512 * KIB && edge <= limit; edge = edge_after(edge)) {
        grid_add(&grid, edge);
    }
    return &grid;
}

/* Writes where a fault or a neighbour would show: first and last byte. */
static inline void touch_ends(void *ptr, size_t size) {
    if (size > 0) {
        ((volatile unsigned char *)ptr)[0] = 0x5a;
        ((volatile unsigned char *)ptr)[size - 1] = 0xa5;
    }
}

/* The failure every call promises: NULL and ENOMEM. `ptr` is what the call gave with errno 0 before. */
static inline void must_be_refused(const char *call, size_t size, const void *ptr) {
    if (ptr != NULL || errno != ENOMEM) {
        fprintf(stderr, "%s: size %#zx gave %p, errno %d\n", call, size, ptr, errno);
        must(false && "refused with ENOMEM");
    }
}

#endif
