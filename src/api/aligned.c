/* api/aligned.c -- blocks at multiples of a power of two. A class whose size is a multiple of the alignment is aligned to it,
 * so there are no pointers into the middle of blocks and free needs to know nothing. */
#include <errno.h>

#include "api/alloc.h"
#include "granary.h"
#include "os/os.h"

/* A block that lies ready in the thread's cache, or NULL; errno stays. align is a power of two. */
GR_INLINE void *aligned_hit(size_t align, size_t n) {
    return !HARDENED && aligned_fits(n, align) ? api_pop(aligned_bytes(n, align)) : NULL;
}

GR_NOINLINE static void *aligned_missed(size_t align, size_t n) {
    if (align <= MIN_ALIGN)
        return api_malloc(n);
    if (HARDENED)
        return gr_hardened_aligned(n, align);
    unsigned class = gr_class_of_aligned(n, align);
    return class ? alloc_class_missed(cache_class_here(gr_self, class), n, align)
                 : gr_alloc_large(n ? n : 1, align, false);
}

/* The hit once more for all but the two calls that programs make most: code that any program runs is kept small. */
GR_NOINLINE static void *alloc_aligned(size_t align, size_t n) {
    void *p = aligned_hit(align, n);
    return GR_LIKELY(p != NULL) ? p : aligned_missed(align, n);
}

GR_NOINLINE static int posix_missed(void **out, size_t alignment, size_t size) {
    int saved = errno;
    GR_KEEP_FRAME();
    void *p = aligned_missed(alignment, size);
    errno = saved;
    if (!p)
        return ENOMEM;
    *out = p;
    return 0;
}

void *granary_aligned_alloc(size_t alignment, size_t size) {
    if (!is_power_of_two(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    void *p = aligned_hit(alignment, size);
    return GR_LIKELY(p != NULL) ? p : aligned_missed(alignment, size);
}

int granary_posix_memalign(void **out, size_t alignment, size_t size) {
    if (!is_power_of_two(alignment) || alignment % sizeof(void *))
        return EINVAL;
    void *p = aligned_hit(alignment, size);
    if (GR_UNLIKELY(p == NULL))
        return posix_missed(out, alignment, size);
    *out = p;
    return 0;
}

void *granary_memalign(size_t alignment, size_t size) {
    if (alignment > SIZE_MAX / 4 + 1) {
        errno = EINVAL;
        return NULL;
    }
    if (!is_power_of_two(alignment))
        alignment = alignment < 2 ? 1 : (size_t)2 << bits_highest(alignment);
    return alloc_aligned(alignment, size);
}

void *granary_valloc(size_t size) { return alloc_aligned(os_page_bytes(), size); }

void *granary_pvalloc(size_t size) {
    size_t page = os_page_bytes();
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    return alloc_aligned(page, size ? round_up(size, page) : page);
}
