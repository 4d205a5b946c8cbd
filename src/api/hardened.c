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

/* Nobody was ever given this memory, and the system has not brought its pages: it need not be looked at. */
static bool take_fresh(void *p, unsigned class) {
    struct block_place at;
    if (!block_find(p, class, &at))
        return false;
    struct word *fresh = slab_fresh(at.slab);
    uint64_t bit = 1ull << at.index;
    return (word_load_relaxed(fresh) & bit) && (word_and_relaxed(fresh, ~bit) & bit);
}

GR_INLINE void *sealed(void *p, unsigned class, size_t n) {
    size_t bytes = class_bytes(class);
    bool fresh = bytes > SHORT_BYTES && take_fresh(p, class);
    if (GR_UNLIKELY(!fresh && !block_is_clear(p, bytes)))
        written_free(p, bytes);
    seal_put(p, bytes, n);
    return p;
}

GR_NOINLINE static void *malloc_slow(unsigned class, size_t n) {
    void *p = gr_alloc_class_slow(class);
    return p ? sealed(p, class, n) : NULL;
}

GR_INLINE void *malloc_of(struct cache *self, unsigned class, size_t n) {
    void *p = cache_pop_owner(self, class);
    return GR_LIKELY(p != NULL) ? sealed(p, class, n) : malloc_slow(class, n);
}

GR_NOINLINE static void *malloc_stepped(struct cache *self, size_t n) {
    if (n > SMALL_MAX_BYTES - SEAL_BYTES)
        return gr_alloc_large(n, 1, false);
    return malloc_of(self, gr_class_of(n + SEAL_BYTES), n);
}

GR_INLINE void *malloc_here(size_t n) {
    struct cache *self = gr_self;
    if (GR_UNLIKELY(n > SHORT_BYTES - SEAL_BYTES))
        return malloc_stepped(self, n);
    size_t class = self->class_by_16[(n + SEAL_BYTES + 15) / 16];
    void *p = cache_pop_owner(self, class);
    if (GR_UNLIKELY(p == NULL))
        return malloc_slow((unsigned)class, n);
    size_t bytes = self->delay[HARDENED ? class : 0].rule.bytes;
    if (GR_UNLIKELY(!is_zero(p, bytes)))
        written_free(p, bytes);
    seal_put(p, bytes, n);
    return p;
}

/* Twice: with vectors as the processor has them. */
GR_WIDE_VECTORS static void *malloc_wide(size_t n) { return malloc_here(n); }

void *gr_hardened_malloc(size_t n) { return GR_LIKELY(is_wide()) ? malloc_wide(n) : malloc_here(n); }

void *gr_hardened_aligned(size_t n, size_t align) {
    unsigned class = n <= SMALL_MAX_BYTES - SEAL_BYTES ? gr_class_of_aligned(n + SEAL_BYTES, align) : 0;
    if (!class)
        return gr_alloc_large(n ? n : 1, align, false);
    struct cache *self = gr_self;
    return malloc_of(self, cache_class_here(self, class), n);
}

/* ---- free ---- */

#define SIZE_UNKNOWN SIZE_MAX /* a free that names none */

/* The bytes asked for; ends the program if p is no live block's start, or was written past. */
GR_INLINE size_t looked_at(void *p, size_t bytes, bool take, const char *call) {
    size_t room = bytes - SEAL_WORD;
    uint64_t seal = take ? seal_take(p, bytes) : seal_look(p, bytes), slack = seal_slack(p, seal);
    if (GR_UNLIKELY(slack > room))
        broken(p, bytes, seal, call);
    if (GR_UNLIKELY(take ? !taken_slack_is_whole(p, room, slack)
                         : !slack_is_whole((char *)p + room, slack, SLACK_LOOK)))
        overflown(p, room - slack, call);
    return room - slack;
}

static void check_start(void *p, unsigned class, const char *call) {
    struct block_place at;
    if (GR_UNLIKELY(!block_find(p, class, &at)))
        gr_fatal_inside(call, p, class_bytes(class));
}

GR_INLINE void check_said(void *p, size_t said, size_t n, const char *call) {
    if (GR_UNLIKELY(said != n) && said != SIZE_UNKNOWN)
        gr_fatal_size(call, p, said, n);
}

static size_t looked_at_other(void *p, unsigned class, const char *call) {
    size_t n = gr_usable_run(p, class, call);
    if (!(class ? gr_large_is_whole(p) : gr_huge_is_whole(p)))
        overflown(p, n, call);
    return n;
}

/* Free or realloc without a rule of the class: the block's kin is large, or the thread has no cache. */
GR_NOINLINE static void free_other(void *p, size_t said, const char *call) {
    unsigned class = (unsigned)page_class_of(p);
    if (!p)
        return;
    if (!cache_serves(gr_self)) /* somebody else allocated it */
        half_store_relaxed(&gr_seal.shared, 1);
    if (class && class <= CLASSES) {
        check_start(p, class, call);
        check_said(p, said, looked_at(p, class_bytes(class), true, call), call);
        block_clear(p, class_bytes(class));
    } else {
        size_t n = looked_at_other(p, class, call);
        check_said(p, !said && n == 1 ? n : said, n, call); /* no block of a run is of 0 bytes */
    }
    gr_free_checked(p, call);
}

/* Makes room for a block of the class that is about to be freed: what was held back longest goes to the magazine. False: which is
 * full. */
GR_INLINE bool let_go(struct cache *self, size_t class, struct delay *d) {
    void **slot = &d->slot[d->next], *out = *slot;
    if (!out)
        return true;
    GR_COMMIT(slot, NULL);
    if (GR_LIKELY(cache_push_owner(self, class, out)))
        return true;
    GR_COMMIT(slot, out);
    return false;
}

/* The exchange that takes the seal makes what comes after it wait. So room was made for p before. */
GR_NOINLINE static void free_long(struct delay *d, void *p, size_t said, const char *call) {
    size_t bytes = d->rule.bytes;
    check_said(p, said, looked_at(p, bytes, true, call), call);
    block_clear(p, bytes);
    cache_delay_owner(d, p);
}

/* What has to leave finds its magazine full. It looks like what nobody holds; so it does not matter who frees it. */
GR_NOINLINE static void free_crowded(struct delay *d, void *p, size_t said, const char *call) {
    void **slot = &d->slot[d->next], *out = *slot;
    GR_COMMIT(slot, NULL);
    gr_free_checked(out, call);
    free_long(d, p, said, call);
}

GR_INLINE void free_of(void *p, size_t said, const char *call) {
    size_t offset = (uintptr_t)p - region_base(), granule = offset >> GRANULE_SHIFT;
    if (GR_UNLIKELY(granule >= REGION_GRANULES)) {
        free_other(p, said, call);
        return;
    }
    struct cache *self = gr_self;
    size_t class = page_class(granule);
    struct delay *d = &self->delay[HARDENED ? class : 0];
    GR_OPAQUE(d); /* one register, and no address computed twice */
    if (GR_UNLIKELY(!block_rule_holds(&d->rule, offset))) {
        free_other(p, said, call);
        return;
    }
    if (GR_UNLIKELY(!let_go(self, class, d))) {
        free_crowded(d, p, said, call);
        return;
    }
    size_t bytes = d->rule.bytes;
    if (GR_UNLIKELY(bytes > SHORT_BYTES)) {
        free_long(d, p, said, call);
        return;
    }
    check_said(p, said, looked_at(p, bytes, true, call), call);
    short_clear(p, bytes);
    cache_delay_owner(d, p);
}

GR_WIDE_VECTORS static void free_wide(void *p, size_t said, const char *call) { free_of(p, said, call); }
GR_WIDE_VECTORS static void free_wide_plainly(void *p) { free_of(p, SIZE_UNKNOWN, "free"); }

GR_INLINE void free_as(void *p, size_t said, const char *call) {
    if (GR_LIKELY(is_wide()))
        free_wide(p, said, call);
    else
        free_of(p, said, call);
}

void gr_hardened_free(void *p) {
    if (GR_LIKELY(is_wide()))
        free_wide_plainly(p);
    else
        free_of(p, SIZE_UNKNOWN, "free");
}

void gr_hardened_free_as(void *p, const char *call) { free_as(p, SIZE_UNKNOWN, call); }

void gr_hardened_free_sized(void *p, size_t n, size_t align, const char *call) {
    unsigned class = (unsigned)page_class_of(p), want = 0;
    if (p && word_peek(&gr_sizes_say) == SIZES_LEAST && n < gr_hardened_usable(p, class, call)) {
        free_as(p, SIZE_UNKNOWN, call);
        return;
    }
    if (class && class <= CLASSES && n <= SMALL_MAX_BYTES - SEAL_BYTES) {
        want = align <= MIN_ALIGN ? gr_class_of(n + SEAL_BYTES) : gr_class_of_aligned(n + SEAL_BYTES, align);
        if (class_bytes(want) != class_bytes(class))
            gr_fatal_size(call, p, n, gr_hardened_usable(p, class, call));
    }
    free_as(p, min_size(n, SIZE_UNKNOWN - 1), call);
}

size_t gr_hardened_usable(void *p, unsigned class, const char *call) {
    if (!class || class > CLASSES)
        return looked_at_other(p, class, call);
    check_start(p, class, call);
    return looked_at(p, class_bytes(class), false, call);
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
