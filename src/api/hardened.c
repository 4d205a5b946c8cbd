/* api/hardened.c -- see `api/hardened.h`. */
#include "api/hardened.h"

#include <string.h>

#include "api/alloc.h"
#include "os/fatal.h"
#include "page/huge.h"
#include "page/large.h"

GR_COLD GR_NORETURN static void written_free(const void *p, size_t bytes) {
    gr_fatal_written("write after free", gr_first_written(p, bytes), p, bytes);
}

GR_COLD GR_NORETURN static void broken(void *p, size_t bytes, uint64_t seal, const char *call) {
    if (!seal) /* free blocks are zero; so are those that nobody was ever given */
        gr_fatal_block("double free", call, p, bytes);
    gr_fatal_pointer("overflow", call, p, "ends with a broken seal: written past its end");
}

GR_COLD GR_NORETURN static void overflown(void *p, size_t n, const char *call) {
    gr_fatal_block("overflow", call, p, n);
}

/* ---- malloc ---- */

GR_INLINE void *sealed(void *p, size_t bytes, size_t n) {
    if (GR_UNLIKELY(!block_is_clear(p, bytes)))
        written_free(p, bytes);
    seal_put(p, bytes, n);
    return p;
}

GR_NOINLINE static void *malloc_slow(unsigned class, size_t n) {
    void *p = gr_alloc_class_slow(class);
    return p ? sealed(p, class_bytes(class), n) : NULL;
}

void *gr_hardened_malloc(size_t n) {
    struct cache *self = gr_self;
    size_t class = class_by_table(self, n + SEAL_BYTES);
    if (GR_UNLIKELY(!class || n > STEPPED_MAX_BYTES)) {
        if (n > SMALL_MAX_BYTES - SEAL_BYTES)
            return gr_alloc_large(n, 1, false);
        class = gr_class_of(n + SEAL_BYTES);
    }
    void *p = cache_pop_owner(self, class);
    return GR_LIKELY(p != NULL) ? sealed(p, gr_classes[class].bytes, n) : malloc_slow((unsigned)class, n);
}

void *gr_hardened_aligned(size_t n, size_t align) {
    unsigned class = n <= SMALL_MAX_BYTES - SEAL_BYTES ? gr_class_of_aligned(n + SEAL_BYTES, align) : 0;
    if (!class)
        return gr_alloc_large(n ? n : 1, align, false);
    struct cache *self = gr_self;
    class = cache_class_here(self, class);
    void *p = cache_pop_owner(self, class);
    return GR_LIKELY(p != NULL) ? sealed(p, class_bytes(class), n) : malloc_slow(class, n);
}

/* ---- free ---- */

/* The bytes asked for; ends the program if p is no live block's start, or was written past. */
GR_INLINE size_t looked_at(void *p, size_t class, bool take, const char *call) {
    const struct size_class *k = &gr_classes[class];
    struct block_place at;
    if (GR_UNLIKELY(!block_find(p, (unsigned)class, &at)))
        gr_fatal_inside(call, p, k->bytes);
    size_t room = k->bytes - SEAL_WORD;
    uint64_t seal = take ? seal_take(p, k->bytes) : seal_look(p, k->bytes), slack = seal_slack(p, seal);
    if (GR_UNLIKELY(slack > room))
        broken(p, k->bytes, seal, call);
    if (GR_UNLIKELY(!slack_is_whole((char *)p + room, slack)))
        overflown(p, room - slack, call);
    return room - slack;
}

static size_t looked_at_other(void *p, unsigned class, const char *call) {
    size_t n = gr_usable_run(p, class, call);
    if (!(class ? gr_large_is_whole(p) : gr_huge_is_whole(p)))
        overflown(p, n, call);
    return n;
}

size_t gr_hardened_usable(void *p, unsigned class, const char *call) {
    return class && class <= CLASSES ? looked_at(p, class, false, call) : looked_at_other(p, class, call);
}

GR_NOINLINE static void free_other(void *p, unsigned class, size_t said, const char *call) {
    if (!p)
        return;
    size_t n = looked_at_other(p, class, call);
    if (said != SIZE_UNKNOWN && said != n && said + !said != n) /* no block of a run is of 0 bytes */
        gr_fatal_size(call, p, said, n);
    gr_free_checked(p, call);
}

/* p looks like what nobody holds; so it does not matter who frees it. */
GR_NOINLINE static void free_clear(void *p, const char *call) { gr_free_checked(p, call); }

void gr_hardened_free(void *p, size_t said, const char *call) {
    size_t class = page_class_of(p);
    if (GR_UNLIKELY(class - 1 >= CLASSES)) {
        free_other(p, (unsigned)class, said, call);
        return;
    }
    size_t n = looked_at(p, class, true, call);
    if (GR_UNLIKELY(said != n) && said != SIZE_UNKNOWN)
        gr_fatal_size(call, p, said, n);
    block_clear(p, gr_classes[class].bytes);
    struct cache *self = gr_self;
    void *out = cache_delay_owner(self, class, p);
    if (out && GR_UNLIKELY(!cache_push_owner(self, class, out)))
        free_clear(out, call);
}

void gr_hardened_free_sized(void *p, size_t n, size_t align, const char *call) {
    unsigned class = (unsigned)page_class_of(p), want = 0;
    if (class && class <= CLASSES && n <= SMALL_MAX_BYTES - SEAL_BYTES) {
        want = align <= MIN_ALIGN ? gr_class_of(n + SEAL_BYTES) : gr_class_of_aligned(n + SEAL_BYTES, align);
        if (class_bytes(want) != class_bytes(class))
            gr_fatal_size(call, p, n, gr_hardened_usable(p, class, call));
    }
    gr_hardened_free(p, min_size(n, SIZE_UNKNOWN - 1), call);
}

/* ---- realloc ---- */

void *gr_hardened_resize(void *p, unsigned class, size_t have, size_t n) {
    if (n > SMALL_MAX_BYTES - SEAL_BYTES || class_bytes(gr_class_of(n + SEAL_BYTES)) != class_bytes(class))
        return NULL;
    char *at = p;
    size_t bytes = class_bytes(class);
    at[have] = 0; /* with no slack: of the seal, which is put anew */
    if (n < have)
        memset(at + n, 0, have - n);
    seal_put(p, bytes, n);
    return p;
}
