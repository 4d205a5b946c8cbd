/* api/override.c -- the only file that defines malloc: the names of libc, each the same code as granary_'s. */
#include <errno.h>

#include "api/alloc.h"
#include "api/inspect.h"
#include "granary.h"
#include "os/os.h"

/* Every definition here is its own prototype. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define EXPORT __attribute__((visibility("default"), nothrow))

/* ---- C23, POSIX ---- */

EXPORT void *malloc(size_t size) { return api_malloc(size); }
EXPORT void free(void *ptr) { api_free(ptr); }
EXPORT void *calloc(size_t count, size_t size) { return granary_calloc(count, size); }
EXPORT void *realloc(void *ptr, size_t size) { return gr_realloc(ptr, size, "realloc"); }
EXPORT void *reallocarray(void *ptr, size_t count, size_t size) { return granary_reallocarray(ptr, count, size); }
EXPORT void *aligned_alloc(size_t alignment, size_t size) { return granary_aligned_alloc(alignment, size); }
EXPORT int posix_memalign(void **out, size_t alignment, size_t size) {
    return granary_posix_memalign(out, alignment, size);
}
EXPORT void free_sized(void *ptr, size_t size) { api_free_sized_any(ptr, size); }
EXPORT void free_aligned_sized(void *ptr, size_t alignment, size_t size) {
    granary_free_aligned_sized(ptr, alignment, size);
}

/* ---- glibc ---- */

EXPORT void *memalign(size_t alignment, size_t size) { return granary_memalign(alignment, size); }
EXPORT void *valloc(size_t size) { return granary_valloc(size); }
EXPORT void *pvalloc(size_t size) { return granary_pvalloc(size); }
EXPORT size_t malloc_usable_size(void *ptr) { return granary_malloc_usable_size(ptr); }
EXPORT void cfree(void *ptr) { api_free(ptr); }
EXPORT int malloc_trim(size_t pad) { return granary_malloc_trim(pad); }
EXPORT void malloc_stats(void) { granary_print_stats(2); }

/* Nothing of glibc's parameters exists here: accepted and without effect, as its manual allows for unknown ones. */
EXPORT int mallopt(int parameter, int value) {
    (void)parameter;
    (void)value;
    return 1;
}

/* Laid out as <malloc.h> has them: arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost. */
struct mallinfo2 {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct mallinfo {
    int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

EXPORT struct mallinfo2 mallinfo2(void) {
    struct granary_stats s;
    granary_get_stats(&s);
    size_t free_bytes = s.cached_bytes + s.dirty_bytes;
    return (struct mallinfo2){
        .arena = s.mapped_bytes - s.huge_bytes,
        .hblks = s.huge_bytes != 0,
        .hblkhd = s.huge_bytes,
        .uordblks = s.used_bytes > s.cached_bytes ? s.used_bytes - s.cached_bytes : 0,
        .fordblks = free_bytes,
        .keepcost = s.dirty_bytes,
    };
}

static int clamped(size_t n) { return n > INT32_MAX ? INT32_MAX : (int)n; }

EXPORT struct mallinfo mallinfo(void) {
    struct mallinfo2 wide = mallinfo2();
    return (struct mallinfo){
        .arena = clamped(wide.arena),
        .hblks = clamped(wide.hblks),
        .hblkhd = clamped(wide.hblkhd),
        .uordblks = clamped(wide.uordblks),
        .fordblks = clamped(wide.fordblks),
        .keepcost = clamped(wide.keepcost),
    };
}

/* The stream is libc's; nothing of ours is held while it writes. */
struct _IO_FILE;
extern size_t stdio_write(const void *data, size_t size, size_t count, struct _IO_FILE *to) GR_ASM_NAME("fwrite");
static void to_stream(void *stream, const char *text, size_t bytes) { (void)!stdio_write(text, 1, bytes, stream); }

EXPORT int malloc_info(int options, struct _IO_FILE *stream) {
    if (options) {
        errno = EINVAL;
        return -1;
    }
    gr_stats_xml(to_stream, stream);
    return 0;
}

/* ---- jemalloc ---- */

EXPORT size_t nallocx(size_t size, int flags) { return granary_nallocx(size, flags); }
EXPORT void sdallocx(void *ptr, size_t size, int flags) { granary_sdallocx(ptr, size, flags); }

#define ALIAS(of) __attribute__((alias(#of)))

/* ---- the names by which parts of glibc and old programs call ---- */

EXPORT void *__libc_malloc(size_t size) ALIAS(malloc);
EXPORT void __libc_free(void *ptr) ALIAS(free);
EXPORT void *__libc_calloc(size_t count, size_t size) ALIAS(calloc);
EXPORT void *__libc_realloc(void *ptr, size_t size) ALIAS(realloc);
EXPORT void *__libc_memalign(size_t alignment, size_t size) ALIAS(memalign);
EXPORT void *__libc_valloc(size_t size) ALIAS(valloc);
EXPORT void *__libc_pvalloc(size_t size) ALIAS(pvalloc);
EXPORT int __posix_memalign(void **out, size_t alignment, size_t size) ALIAS(posix_memalign);
