/* api/aligned.c -- blocks at multiples of a power of two. A class whose size is a multiple of the alignment is aligned to it,
 * so there are no pointers into the middle of blocks and free needs to know nothing. */
#include <errno.h>

#include "api/alloc.h"
#include "granary.h"
#include "os/os.h"

/* align is a power of two. */
static void *alloc_aligned(size_t align, size_t n) {
    if (align <= MIN_ALIGN)
        return api_malloc(n);
    if (HARDENED)
        return gr_hardened_aligned(n, align);
    unsigned class = gr_class_of_aligned(n, align);
    if (!class)
        return gr_alloc_large(n ? n : 1, align, false);
    struct cache *self = gr_self;
    class = cache_class_here(self, class);
    void *p = cache_pop_owner(self, class);
    return GR_LIKELY(p != NULL) ? p : alloc_class_missed(class, n, align);
}

void *granary_aligned_alloc(size_t alignment, size_t size) {
    if (!is_power_of_two(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    return alloc_aligned(alignment, size);
}

int granary_posix_memalign(void **out, size_t alignment, size_t size) {
    if (!is_power_of_two(alignment) || alignment % sizeof(void *))
        return EINVAL;
    int saved = errno;
    GR_KEEP_FRAME();
    void *p = alloc_aligned(alignment, size);
    errno = saved;
    if (!p)
        return ENOMEM;
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
