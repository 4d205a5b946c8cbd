/* api/resize.c -- realloc: in the same class, in place where the neighbours allow, by moving pages, by copying last. */
#include <errno.h>
#include <string.h>

#include "api/alloc.h"
#include "granary.h"
#include "page/huge.h"
#include "page/large.h"

static bool is_huge(size_t n) { return n > (size_t)LARGE_MAX_GRANULES * GRANULE_BYTES; }

/* p stays: its block serves n bytes as well as a new one would, or can be made to. */
static bool resized_in_place(void *p, size_t have, size_t n) {
    unsigned class = (unsigned)page_class_of(p);
    if (class && class <= CLASSES)
        return n <= have && (n > SMALL_MAX_BYTES || gr_class_of(n) == class || n > have / 2);
    if (class == CLASS_LARGE && n > SMALL_MAX_BYTES / 2)
        return gr_large_resize(p, n);
    return false;
}

void *gr_realloc(void *p, size_t n, const char *call) {
    if (!p)
        return api_malloc(n);
    size_t have = gr_usable(p, call);
    if (!n) {
        gr_free_checked(p, call);
        return NULL;
    }
    if (n > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    if (resized_in_place(p, have, n))
        return p;
    if (!page_class_of(p) && is_huge(n)) {
        void *moved = gr_huge_resize(p, n);
        if (moved)
            return moved;
        if (n <= have)
            return p;
    }
    void *q = api_malloc(n);
    if (!q) {
        if (n > have)
            return NULL;
        return p; /* a smaller block is not to be had: the old one will do */
    }
    memcpy(q, p, n < have ? n : have);
    api_free(p);
    return q;
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
        gr_free_checked(p, "reallocarr");
        p = NULL;
    } else if (!(p = gr_realloc(p, n, "reallocarr"))) {
        errno = saved;
        return ENOMEM;
    }
    memcpy(ptr_to_ptr, &p, sizeof p);
    errno = saved;
    return 0;
}
