/* api/alloc.c -- start here: malloc, calloc, free and the map of what they do.
 *
 *   malloc(n)   n <= 256 KiB  pop from the class's magazine          cache/cache.h
 *               empty         spare, depot, slabs                    cache/cache.c, central/depot.c, central/bin.c
 *               <= 64 MiB     a run of granules                      page/large.c
 *               above         a mapping of its own                   page/huge.c
 *   free(p)     the page map's byte: a class -> push on its magazine; full -> spare, depot, bitmaps; large -> the run;
 *               nothing of ours -> huge, or a misuse
 */
#include "api/alloc.h"

#include <errno.h>
#include <string.h>

#include "api/oom.h"
#include "base/check.h"
#include "cache/fork.h"
#include "cache/keeper.h"
#include "central/depot.h"
#include "granary.h"
#include "os/fatal.h"
#include "os/options.h"
#include "page/arena.h"
#include "page/guard.h"
#include "page/huge.h"
#include "page/large.h"
#include "page/limit.h"
#include "page/purge.h"

enum {
    CLEAN_FROM_BYTES = 4096, /* calloc of so much looks for a block that is known to be zero */
};

struct word gr_sizes_say;

/* ---- out of memory: whatever is cached anywhere within reach goes back first ---- */

void gr_bring_home(struct cache *self, bool pages) {
    if (self)
        gr_cache_flush(self, false);
    gr_orphans_home();
    gr_caches_reclaim(false);
    for (unsigned class = 1; class <= CLASSES; class ++)
        gr_depot_drain(class, pages);
    if (HARDENED)
        gr_guard_flush();
}

static void scavenge(struct cache *self, size_t n) {
    gr_bring_home(self, false);
    gr_arenas_unmap_vacant();
    if (limit_footprint() + n > gr_limit_least())
        gr_purge_all(0);
    gr_limit_relieved();
}

void gr_make_room(size_t more) {
    if (limit_is_near(more))
        scavenge(gr_thread_cache_slow(), more);
}

/* In a slow path. */
static void *alloc_large(size_t n, size_t align, bool zero) {
    const size_t large_most = (size_t)LARGE_MAX_GRANULES * GRANULE_BYTES;
    bool scavenged = limit_is_near(n);
    if (scavenged)
        scavenge(gr_thread_cache_slow(), n);
    for (;; scavenged = true) {
        void *p = n <= large_most && align <= large_most ? gr_large_alloc(n, align, zero) : gr_huge_alloc(n, align);
        if (p || scavenged)
            return p;
        scavenge(gr_thread_cache_slow(), n);
    }
}

void *gr_alloc_large(size_t n, size_t align, bool zero) {
    void *p;
    if (n > PTRDIFF_MAX || align > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    do {
        slow_enter();
        p = alloc_large(n, align, zero);
        gr_slow_tick();
        slow_leave();
    } while (GR_UNLIKELY(!p) && gr_asks_again(n));
    keeper_poll();
    return p;
}

static void *refill_with(struct cache *self, unsigned class, bool want_clean, bool *clean) {
    if (!self)
        return gr_direct_alloc(class);
    void *p = want_clean ? gr_cache_clean_block(self, class) : NULL;
    *clean = p != NULL;
    if (!p && !(p = cache_pop_owner(self, class))) /* the search for a clean block may have left one */
        p = gr_cache_refill(self, class, clean);
    gr_slow_tick();
    return p;
}

/* One in many of the blocks that magazines are filled with is a guarded one. A miss counts for as many as it is about to bring; is it
 * one's turn? */
GR_INLINE bool guarded_is_due(uint32_t brings) {
    if (GR_UNLIKELY(!gr_until_guarded))
        gr_until_guarded = (int32_t)gr_guarded_draw();
    if (GR_LIKELY(gr_until_guarded > (int32_t)brings)) {
        gr_until_guarded -= (int32_t)brings;
        return false;
    }
    if (gr_until_guarded > 0)
        gr_until_guarded = -gr_until_guarded;
    return true;
}

/* The cheap half of a miss: the spare is full. NULL: it is not, or a guarded block is due. */
GR_INLINE void *swap(unsigned class, bool counted) {
    slow_enter();
    struct cache *self = thread_cache();
    void *p = NULL;
    if (GR_LIKELY(self != NULL)) {
        class = cache_class_here(self, class); /* the caller may not have known its shard: it was born just now */
        if (!counted || !guarded_is_due(self->own[class].rounds)) {
            p = cache_pop_owner(self, class);
            if (!p)
                p = gr_cache_pop_spare(self, class);
        }
    }
    slow_leave();
    return p;
}

GR_NOINLINE static void *swap_in(unsigned class) { return swap(class, false); }
GR_NOINLINE static void *swap_in_counted(unsigned class) { return swap(class, true); }

/* In a slow path, which it leaves: who is asked may do what he likes. */
GR_COLD static void *refill_in_need(unsigned class, bool want_clean, bool *clean) {
    void *p;
    for (;;) {
        scavenge(gr_thread_cache_slow(), gr_classes[class].granules * (size_t)GRANULE_BYTES); /* a slab */
        if ((p = refill_with(gr_thread_cache_slow(), class, want_clean, clean)))
            break;
        slow_leave();
        if (!gr_asks_again(class_bytes(class)))
            return NULL;
        slow_enter();
        /* What he has freed is at hand; below the thresholds of its slabs it would serve nobody. */
        if ((p = refill_with(gr_thread_cache_slow(), class, want_clean, clean)))
            break;
    }
    slow_leave();
    keeper_poll();
    return p;
}

GR_NOINLINE static void *refill(unsigned class, bool want_clean, bool *clean) {
    slow_enter();
    struct cache *self = thread_cache();
    if (self)
        class = cache_class_here(self, class);
    if (limit_is_near(0))
        scavenge(self, 0);
    void *p = refill_with(self, class, want_clean, clean);
    if (GR_UNLIKELY(!p))
        return refill_in_need(class, want_clean, clean);
    slow_leave();
    keeper_poll();
    return p;
}

/* A guarded block, if it is one's turn. In it the trace begins: what called it has left by a tail call. NULL: it is not,
 * or no slot is free. */
static void *guarded(unsigned class, size_t n, size_t align, const void *frame) {
    int32_t early = -gr_until_guarded;
    if (early <= 0)
        return NULL;
    slow_enter();
    void *p = gr_guarded_alloc(n, align, class_bytes(class), frame);
    /* The blocks that it was to come among come with the next miss. */
    gr_until_guarded = (int32_t)gr_guarded_draw() + early - 1;
    slow_leave();
    return p;
}

GR_NOINLINE static void *refill_guarded(unsigned class, size_t n, size_t align) {
    bool clean;
    void *p = guarded(class, n, align, __builtin_frame_address(0));
    return p ? p : refill(class, false, &clean);
}

GR_NOINLINE void *gr_alloc_class_guarded(unsigned class, size_t n, size_t align) {
    void *p = swap_in_counted(class);
    return p ? p : refill_guarded(class, n, align);
}

GR_NOINLINE static void *calloc_guarded(size_t n) {
    unsigned class = gr_class_of(n);
    bool clean = false;
    void *p = swap_in_counted(class), *q = p ? NULL : guarded(class, n, 1, __builtin_frame_address(0));
    if (q)
        return q;
    if (!p)
        p = refill(class, n >= CLEAN_FROM_BYTES, &clean);
    return p && !clean ? memset(p, 0, class_bytes(class)) : p;
}

void *gr_alloc_class_slow(unsigned class) {
    bool clean;
    void *p = swap_in(class);
    return p ? p : refill(class, false, &clean);
}

void *gr_malloc_slow(size_t n) {
    if (GR_UNLIKELY(n > SMALL_MAX_BYTES))
        return gr_alloc_large(n, 1, false);
    return alloc_class_missed(gr_class_of(n), n, 1);
}

GR_NOINLINE static void *calloc_slow(size_t n) {
    if (n > SMALL_MAX_BYTES)
        return gr_alloc_large(n, 1, true); /* huge mappings are zero, large runs were cleared where dirty */
    if (guarded_in_use() && guarded_fits(n, 1))
        return calloc_guarded(n);
    unsigned class = gr_class_of(n);
    bool clean = false;
    void *p = swap_in(class);
    if (!p)
        p = refill(class, n >= CLEAN_FROM_BYTES, &clean);
    if (p && !clean)
        memset(p, 0, class_bytes(class));
    return p;
}

void *gr_calloc(size_t n) {
    if (HARDENED) /* a small block reads as zero */
        return n > SMALL_MAX_BYTES - SEAL_BYTES ? gr_alloc_large(n, 1, true) : gr_hardened_malloc(n);
    struct cache *self = gr_self;
    size_t class = class_by_table(self, n);
    void *p = cache_pop_owner(self, class);
    return GR_LIKELY(p != NULL) ? memset(p, 0, gr_classes[class].bytes) : calloc_slow(n);
}

/* ---- free ---- */

GR_COLD GR_NORETURN static void not_a_block(const void *p, const char *call) {
    size_t freed = gr_large_freed_bytes(p);
    if (freed && !((uintptr_t)p & (GRANULE_BYTES - 1)))
        gr_fatal_block("double free", call, p, freed);
    if (region_base() && gr_granule_is_mapped(region_granule(p)))
        gr_fatal_pointer("invalid free", call, p, "points into free memory: freed before, or never allocated");
    gr_fatal_pointer("foreign pointer", call, p, "was not allocated here");
}

static bool is_large_start(const void *p) { return !((uintptr_t)p & (GRANULE_BYTES - 1)); }

GR_NOINLINE static void free_overflow(struct cache *self, void *p, unsigned class, const char *call) {
    if (!self) {
        gr_direct_free(class, p, call);
    } else {
        if (*self->top[class] == p)
            gr_fatal_block("double free", call, p, class_bytes(class));
        gr_cache_overflow(self, class, p);
        gr_slow_tick();
    }
    slow_leave();
}

/* Blocks that are not small, and what is none. */
GR_NOINLINE static void free_other(void *p, unsigned class, const char *call) {
    if (!p)
        return;
    slow_enter();
    if (class == CLASS_LARGE && is_large_start(p)) {
        if (!gr_large_free(p))
            not_a_block(p, call);
        gr_slow_tick();
    } else if (class) {
        gr_fatal_pointer("invalid free", call, p, "is not the start of a block (inside a large one)");
    } else if (!gr_guarded_free(p, call, __builtin_frame_address(0)) && !gr_huge_free(p)) {
        not_a_block(p, call);
    }
    slow_leave();
}

void gr_free_checked(void *p, const char *call) {
    unsigned class = (unsigned)page_class_of(p);
    if (GR_UNLIKELY(!class || class > CLASSES)) {
        free_other(p, class, call);
        return;
    }
    slow_enter();
    struct cache *self = thread_cache();
    if (GR_LIKELY(self && *self->top[class] != p) &&
        (cache_push_owner(self, class, p) || gr_cache_push_spare(self, class, p)))
        slow_leave();
    else
        free_overflow(self, p, class, call);
}

void gr_free_slow(void *p) { gr_free_checked(p, "free"); }

size_t gr_usable_run(const void *p, unsigned class, const char *call) {
    if (class == CLASS_LARGE && is_large_start(p))
        return gr_large_bytes(p);
    size_t room, huge = class ? 0 : gr_guarded_bytes(p, &room, call, __builtin_frame_address(0));
    if (!huge && !class)
        huge = gr_huge_bytes(p);
    if (!huge && class)
        gr_fatal_pointer("invalid free", call, p, "is not the start of a block (inside a large one)");
    if (!huge)
        not_a_block(p, call);
    return huge;
}

size_t gr_usable(const void *p, const char *call) {
    unsigned class = (unsigned)page_class_of(p);
    struct block_place at;
    if (HARDENED)
        return gr_hardened_usable((void *)(uintptr_t)p, class, call);
    if (GR_LIKELY(class && class <= CLASSES)) {
        if (!block_find(p, class, &at))
            gr_fatal_inside(call, p, class_bytes(class));
        return class_bytes(class);
    }
    return gr_usable_run(p, class, call);
}

/* Usable bytes that a request would get; what a sized free must agree with. 0 above PTRDIFF_MAX. */
static size_t usable_of_request(size_t n, size_t align) {
    if (HARDENED)
        return n > PTRDIFF_MAX || align > PTRDIFF_MAX ? 0 : n;
    unsigned class = align <= MIN_ALIGN ? (n <= SMALL_MAX_BYTES ? gr_class_of(n) : 0) : gr_class_of_aligned(n, align);
    if (class)
        return class_bytes(class);
    if (n > PTRDIFF_MAX || align > PTRDIFF_MAX)
        return 0;
    if (n <= (size_t)LARGE_MAX_GRANULES * GRANULE_BYTES && align <= (size_t)LARGE_MAX_GRANULES * GRANULE_BYTES)
        return round_up(n ? n : 1, GRANULE_BYTES);
    return round_up(n ? n : 1, os_page_bytes());
}

void gr_free_sized_slow(void *p, size_t n, size_t align, const char *call) {
    if (!p)
        return;
    if (HARDENED) {
        gr_hardened_free_sized(p, n, align, call);
        return;
    }
    size_t have, want = usable_of_request(n, align);
    if (page_class_of(p) || !gr_guarded_bytes(p, &have, call, __builtin_frame_address(0)))
        have = gr_usable(p, call);
    bool longer = have > want && want && word_peek(&gr_sizes_say) == SIZES_LEAST;
    /* realloc may have left a huge block where a new one would be large. */
    if (have != want && !longer &&
        (want <= SMALL_MAX_BYTES || have != round_up(n, os_page_bytes()) || page_class_of(p)))
        gr_fatal_size(call, p, n, have);
    gr_free_checked(p, call);
}

/* ---- the public names ---- */

void *granary_malloc(size_t size) { return api_malloc(size); }
void granary_free(void *ptr) { api_free(ptr); }

void *granary_calloc(size_t count, size_t size) {
    size_t n;
    if (GR_UNLIKELY(__builtin_mul_overflow(count, size, &n))) {
        errno = ENOMEM;
        return NULL;
    }
    return gr_calloc(n);
}

size_t granary_malloc_usable_size(const void *ptr) { return ptr ? gr_usable(ptr, "malloc_usable_size") : 0; }

GR_NOINLINE void gr_free_sized_looking(void *p, size_t n, const char *call) {
    unsigned class = (unsigned)page_class_of(p);
    if (class && class <= CLASSES && class_bytes(class) == usable_of_request(n, 1))
        api_free_sized(p, n, call);
    else
        gr_free_sized_slow(p, n, 1, call);
}

void granary_free_sized(void *ptr, size_t size) { api_free_sized_any(ptr, size); }

void granary_free_aligned_sized(void *ptr, size_t alignment, size_t size) {
    gr_free_sized_slow(ptr, size, is_power_of_two(alignment) ? alignment : MIN_ALIGN, "free_aligned_sized");
}

size_t granary_nallocx(size_t size, int flags) { return usable_of_request(size, (size_t)1 << (flags & 63)); }

void granary_sdallocx(void *ptr, size_t size, int flags) {
    gr_free_sized_slow(ptr, size, (size_t)1 << (flags & 63), "sdallocx");
}

const char *granary_version(void) { return "0.1.0"; }

/* Here, for a program that links the static library gets no object that it does not name. */
__attribute__((destructor)) static void at_exit(void) {
    if (option_get(OPTION_STATS))
        granary_print_stats(2);
    gr_keeper_reap();
}

GR_CTOR void gr_load(void) {
    static bool loaded;
    if (loaded)
        return;
    loaded = true;
    gr_options_read();
    gr_limit_start();
    gr_fork_watch();
    if (!option_get(OPTION_GUARDS))
        return;
    if (HARDENED)
        gr_warn("ignored, the hardened build has guards of its own: ", "guards", sizeof "guards" - 1);
    else
        gr_guarded_start(option_get(OPTION_GUARDS), os_secret());
    if (guarded_in_use())
        word_store_relaxed(&gr_sizes_say, SIZES_GUARDED);
}
