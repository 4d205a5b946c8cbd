/* api/resize.c -- realloc: in the same class, in place where the neighbours allow, by moving pages, by copying last. */
#include <errno.h>
#include <string.h>

#include "api/alloc.h"
#include "api/oom.h"
#include "cache/keeper.h"
#include "granary.h"
#include "page/huge.h"
#include "page/large.h"

GR_INLINE void *resized_large(void *p, size_t have, size_t n) {
    if (!page_class_of(p))
        return gr_huge_resize(p, n);
    if (gr_large_resize(p, n))
        return p;
    return n < have ? NULL : gr_large_move(p, n);
}

/* A block that is not small, itself or its pages at another address; NULL: it must be copied. */
GR_INLINE void *resized(void *p, size_t have, size_t n) {
    slow_enter();
    if (n > have)
        gr_make_room(n - have);
    void *same = resized_large(p, have, n);
    slow_leave();
    keeper_poll();
    return same;
}

static void free_any(void *p, const char *call) {
    if (HARDENED)
        gr_hardened_free_as(p, call);
    else
        gr_free_checked(p, call);
}

GR_INLINE void *copied_into(void *q, void *p, size_t have, size_t n) {
    memcpy(q, p, n < have ? n : have);
    free_any(p, "free");
    return q;
}

GR_INLINE void *block_for_copy(size_t n) { return HARDENED ? gr_hardened_malloc(n) : gr_malloc_slow(n); }

/* Where a copy is not the only answer: nobody is asked for its block alone. */
GR_NOINLINE static void *copied_quietly(void *p, size_t have, size_t n) {
    GR_KEEP_FRAME();
    struct quiet trying;
    for (;;) {
        quiet_begin(&trying);
        void *q = block_for_copy(n);
        quiet_end(&trying);
        if (GR_LIKELY(q != NULL))
            return copied_into(q, p, have, n);
        if (n <= have) { /* a smaller block is not to be had: the old one will do */
            word_store_relaxed(&gr_sizes_say, SIZES_LEAST);
            return p;
        }
        if (!gr_asks_again(n))
            return NULL;
        if (have > SMALL_MAX_BYTES && (q = resized(p, have, n))) /* there is room behind it by now */
            return q;
    }
}

/* What misses is left by tail calls: the trace of a guarded block goes on from their frames to the program's. */
GR_NOINLINE static void *copied_slow(void *p, size_t have, size_t n) {
    GR_KEEP_FRAME();
    if (n > SMALL_MAX_BYTES || n <= have)
        return copied_quietly(p, have, n);
    void *q = block_for_copy(n);
    return q ? copied_into(q, p, have, n) : NULL;
}

GR_NOINLINE static void *freed_slow(void *p, void *q) {
    GR_KEEP_FRAME();
    gr_free_slow(p);
    return q;
}

/* A block stays where a new one of n bytes would be of its class: free_sized(p, n) relies on a small block's class being that of
 * its last request. */
void *gr_realloc(void *p, size_t n, const char *call) {
    if (!p)
        return api_malloc(n);
    size_t have = gr_usable(p, call);
    if (!n) {
        free_any(p, call);
        return NULL;
    }
    if (n > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    unsigned class = HARDENED ? (unsigned)page_class_of(p) : 0;
    if (class && class <= CLASSES) {
        void *same = gr_hardened_resize(p, class, have, n);
        if (same)
            return same;
    } else if (n <= SMALL_MAX_BYTES) {
        if (class_bytes(gr_class_of(n)) == have && page_class_of(p) - 1 < CLASSES) /* a guarded block moves */
            return p;
    } else if (have > SMALL_MAX_BYTES) {
        void *same = resized(p, have, n);
        if (same)
            return same;
    }
    void *q = HARDENED ? NULL : api_pop(n);
    if (!q)
        return copied_slow(p, have, n);
    memcpy(q, p, n < have ? n : have);
    return GR_LIKELY(api_push(p)) ? q : freed_slow(p, q);
}

void *granary_realloc(void *ptr, size_t size) { return gr_realloc(ptr, size, "realloc"); }

void *granary_reallocarray(void *ptr, size_t count, size_t size) {
    size_t n;
    if (__builtin_mul_overflow(count, size, &n)) {
        errno = ENOMEM;
        return NULL;
    }
    return gr_realloc(ptr, n, "reallocarray");
}

int granary_reallocarr(void *ptr_to_ptr, size_t count, size_t size) {
    size_t n;
    void *p;
    if (__builtin_mul_overflow(count, size, &n))
        return EOVERFLOW;
    int saved = errno;
    memcpy(&p, ptr_to_ptr, sizeof p);
    if (!n) {
        free_any(p, "reallocarr");
        p = NULL;
    } else if (!(p = gr_realloc(p, n, "reallocarr"))) {
        errno = saved;
        return ENOMEM;
    }
    memcpy(ptr_to_ptr, &p, sizeof p);
    errno = saved;
    return 0;
}
