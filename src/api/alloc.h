/* api/alloc.h -- the fast paths behind every name that malloc and free have. */
#ifndef API_ALLOC_H
#define API_ALLOC_H

#include "api/hardened.h"
#include "cache/thread.h"
#include "page/guarded.h"

/* n > SMALL_MAX_BYTES or an alignment that no class serves. NULL and ENOMEM without memory. */
void *gr_alloc_large(size_t n, size_t align, bool zero);

/* In a slow path: what caches, depots and held-back runs have goes to the arenas; with `pages`, free pages of slabs to the system.
 * self may be NULL. */
void gr_bring_home(struct cache *self, bool pages);

/* Before so many more bytes are taken, in a slow path: near a limit, what lies idle goes back. */
void gr_make_room(size_t more);

/* A block of a class; the magazine was empty. NULL and ENOMEM without memory. */
void *gr_alloc_class_slow(unsigned class);

/* The same where blocks are guarded, for a request that one fits. */
void *gr_alloc_class_guarded(unsigned class, size_t n, size_t align);

/* Whichever of the two it is. */
GR_INLINE void *alloc_class_missed(unsigned class, size_t n, size_t align) {
    return guarded_in_use() && guarded_fits(n, align) ? gr_alloc_class_guarded(class, n, align)
                                                      : gr_alloc_class_slow(class);
}

/* What the size that a sized free names says of its block. It only ever grows, before whoever frees such a block has it. */
enum {
    SIZES_EXACT,   /* its class */
    SIZES_GUARDED, /* not whether it is a guarded one, which no magazine may hold */
    SIZES_LEAST    /* not that either: realloc to less had no memory, and kept some block that is larger */
};
extern GR_HIDDEN struct word gr_sizes_say;

/* free_sized where sizes do not say the class: the page map is looked at. */
void gr_free_sized_looking(void *p, size_t n, const char *call);

/* Reads the options and does what they ask for, once: before main, by whoever's constructor is first. */
void gr_load(void);

/* calloc's, after the product; realloc's. */
void *gr_calloc(size_t n);
void *gr_realloc(void *p, size_t n, const char *call);

/* Usable bytes of a live block; ends the program, naming `call`, if p is none. */
size_t gr_usable(const void *p, const char *call);

/* The same for what is no block of a slab, by its page map class. */
size_t gr_usable_run(const void *p, unsigned class, const char *call);

/* free of a block by its size and alignment: wrong ones end the program. */
void gr_free_sized_slow(void *p, size_t n, size_t align, const char *call);

/* The one place where a fast path's free ends up. */
void gr_free_checked(void *p, const char *call);

/* The class of a request by table; 0, whose magazine is empty and full, above SIZED_MAX_BYTES. */
GR_INLINE size_t class_by_table(const struct cache *self, size_t n) {
    if (GR_LIKELY(n <= LINEAR_MAX_BYTES))
        return self->class_by_16[(n + 15) / 16];
    return GR_LIKELY(n <= SIZED_MAX_BYTES) ? gr_class_by_128[(n + 127) / 128] : 0;
}

/* NULL: the magazine is empty, or n is above SMALL_MAX_BYTES. */
GR_INLINE void *api_pop(size_t n) {
    if (HARDENED)
        return gr_hardened_malloc(n);
    struct cache *self = gr_self;
    if (GR_LIKELY(n <= LINEAR_MAX_BYTES)) /* a pop for each table: no class to keep beside the top */
        return cache_pop_owner(self, self->class_by_16[(n + 15) / 16]);
    return GR_LIKELY(n <= SMALL_MAX_BYTES) ? cache_pop_owner(self, gr_class_by_128[(n + 127) / 128]) : NULL;
}

GR_INLINE void *api_malloc(size_t n) {
    if (HARDENED)
        return gr_hardened_malloc(n);
    void *p = api_pop(n);
    return GR_LIKELY(p != NULL) ? p : gr_malloc_slow(n);
}

/* False: p is not of a slab, or the magazine is full, or p was freed last. */
GR_INLINE bool api_push(void *p) {
    size_t granule = region_granule(p);
    return GR_LIKELY(granule < REGION_GRANULES) && GR_LIKELY(cache_push_owner(gr_self, page_class(granule), p));
}

GR_INLINE void api_free(void *p) {
    if (HARDENED) {
        gr_hardened_free(p);
        return;
    }
    if (GR_UNLIKELY(!api_push(p)))
        gr_free_slow(p);
}

/* No look at the page map: a wrong size is found where the block returns to its slab. */
GR_INLINE void api_free_sized(void *p, size_t n, const char *call) {
    if (HARDENED) {
        gr_hardened_free_sized(p, n, 1, call);
        return;
    }
    struct cache *self = gr_self;
    if (n <= SHARDED_MAX_BYTES) { /* the size does not tell the shard */
        size_t granule = region_granule(p), by_16 = (n + 15) / 16;
        if (GR_LIKELY(granule < REGION_GRANULES)) {
            size_t class = page_class(granule);
            if ((GR_LIKELY(class == self->class_by_16[by_16]) || gr_classes[class].bytes == by_16 * 16) &&
                GR_LIKELY(cache_push_owner(self, class, p)))
                return;
        }
    } else if (GR_LIKELY(p != NULL) && GR_LIKELY(cache_push_owner(self, class_by_table(self, n), p))) {
        return;
    }
    gr_free_sized_slow(p, n, 1, call);
}

/* The same where p may be guarded, or realloc's. */
GR_INLINE void api_free_sized_any(void *p, size_t n) {
    if (GR_UNLIKELY(word_peek(&gr_sizes_say) != SIZES_EXACT))
        gr_free_sized_looking(p, n, "free_sized");
    else
        api_free_sized(p, n, "free_sized");
}

#endif
