/* cache/cache.h -- what one thread owns: per class a loaded magazine, a spare, a held slab.
 *
 * PURPOSE     The fast paths. malloc pops from the loaded magazine of its class, free pushes to it; both leave by one slow
 *             door. A miss exchanges magazines: the spare, then the depot, then blocks claimed from slabs.
 *
 * INVARIANTS
 *   top-loaded    top[c] points at the last filled slot of the loaded magazine of class c, or at its bottom: slot
 *                 0, or a higher one where others have taken what was below.
 *   no-special    Classes that are no small class, and all classes of a cache that is not a thread's own, have a magazine
 *                 of no rounds: empty for malloc, full for free. So the fast paths test neither for NULL, nor for foreign
 *                 pointers, nor for a thread's first or last call.
 *   pop-commits   malloc moves the top before it takes the round there: who sees the top unmoved knows that the round was not
 *                 taken (`cache/reclaim.h`). It looks at the round before that, too: the top is never below the bottom, where a
 *                 handler that interrupts it would find it, and a cache that is no thread's own is never written.
 *   detach-first  A magazine or slab is out of the cache before it is anywhere else: a forked child that finds this thread
 *                 dead at any instruction finds nothing twice.
 *
 * The map of exits. malloc: above SMALL_MAX_BYTES, or the magazine is empty -> gr_malloc_slow. free: not in the region, or
 * the magazine is full, or the block is the one freed last -> gr_free_slow.
 *
 * Who only frees a class keeps no full spare of it: what it fills goes to the depot at once, to those who allocate.
 *
 * ELSEWHERE   Whose cache it is: `cache/thread.h`. The depot: `central/depot.h`. Blocks: `central/bin.h`.
 */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include "central/bin.h"
#include "central/magazine.h"
#include "page/page_map.h"

enum { HELD = 4 }; /* the least sizes keep their slab between claims; threads share the slabs of larger blocks */

struct own {
    struct magazine *loaded;
    struct magazine *spare; /* full or empty, never between */
    uint8_t rounds;         /* what the next magazine may hold; grows with misses */
    uint8_t claimed;        /* blocks from slabs since the class was last idle, CLAIMED_MOST at most */
    uint16_t seen;          /* low bits of top when its idleness was last asked */
    uint16_t bottom;        /* the loaded magazine's: its blocks are in the slots above */
    bool emptied : 1;       /* malloc has emptied a magazine since free last filled one */
    bool overflowed : 1;    /* free has filled one since the class was last idle */
    uint8_t swaps;          /* for the spare, by malloc, since the last miss */
};

/* Hardened: what its fast paths know of a class, beside the blocks of it that were freed last; all zero where a block cannot be
 * freed at once: a class that is none, a cache that is no thread's own. */
struct delay {
    struct block_rule rule;
    uint8_t next, last; /* slots: 0 .. last, one less than a power of two; the oldest is at `next`, once it is full */
    void *slot[DELAY_SLOTS];
};

struct cache {
    /* any thread writes, while it waits in the pool; any thread reads the state */
    struct half next;
    struct half state; /* CACHE_... */
    /* owner only */
    void **top[CLASS_SLOTS];
    uint8_t class_by_16[CLASS_BY_16_ENTRIES];
    /* any thread writes */
    struct half gate; /* GATE_... */
    /* owner only, but as said */
    struct half inside; /* any thread reads; 1: its thread uses more of it than the fast paths do */
    uint32_t index;
    uint32_t tick;         /* when its idle classes were last looked for */
    uint64_t rounds_bytes; /* sum of rounds * size over the classes */
    struct word cached;    /* bytes of blocks it holds, as of that tick: a statistic, in any order; any thread reads */
    struct half forks;     /* gr_forks, as its thread knows it; any thread reads */
    struct word idle_sum;  /* its tops when a taker last looked; 0: it took a slow path since. Any thread writes */
    struct own own[CLASSES + 1];
    struct holding held[HELD + 1]; /* by bytes / 16; [0] is for the slab of another class while it is claimed from */
    struct magazine *empty[MAGAZINE_KINDS]; /* unused magazines, each with the next in its first slot */
    uint8_t empties[MAGAZINE_KINDS];
    uint64_t random; /* hardened: where free puts a block; odd */
    struct delay delay[HARDENED ? CLASS_SLOTS : 1];
};
enum { CACHE_BYTES = HARDENED ? 24 * 1024 : 4096 };
_Static_assert(sizeof(struct cache) <= CACHE_BYTES, "an idle thread costs a page; hardened: six");

/* The thread's first call, and calls after its last: see `cache/thread.h`. */
void *gr_malloc_slow(size_t size);
void gr_free_slow(void *p);

/* ---- the fast paths ---- */

/* Hardened: free puts a block in any round of the magazine, and what was there on the top. So the magazine is shuffled at all times,
 * and malloc takes the top, whose block comes into the processor's cache beforehand. While two blocks change places one of them
 * is out of the count, so that a fork in between loses it and doubles none. */
GR_INLINE bool cache_push_drawn_owner(struct cache *self, size_t class, void *p) {
    void **top = self->top[class];
    if (GR_UNLIKELY(top[1] == MAGAZINE_FULL))
        return false;
    char *first = (char *)(self->own[class].loaded->slot + 1);
    size_t drawn = random_below(&self->random, (uint32_t)((char *)(top + 2) - first)) & ~(sizeof p - 1);
    void **at = (void **)(first + drawn);
    GR_COMMIT(&top[1], *at);
    GR_COMMIT(at, p);
    GR_COMMIT(&self->top[class], top + 1);
    return true;
}

GR_INLINE void *cache_pop_owner(struct cache *self, size_t class) {
    void **top = top_load_owner(&self->top[class]);
    if (GR_UNLIKELY(!slot_load_owner(top)))
        return NULL;
    top_move_release(&self->top[class], -1); /* [release cut] */
    GR_LIGHT_FENCE();
    void *p = slot_load_owner(top);
    GR_RESULT(p);
    if (HARDENED)
        GR_ASSUME(p != NULL); /* nobody takes rounds from its loaded magazines */
    if (GR_UNLIKELY(p == NULL)) {
        GR_OPAQUE(class);                       /* the hit keeps no address for this */
        top_move_release(&self->top[class], 1); /* [release cut] */
    } else if (HARDENED) { /* which looks at the whole block; without that no line of the next one is worth its read */
        GR_PREFETCH(slot_load_owner(top - 1));
        GR_PREFETCH((char *)slot_load_owner(top - 1) + 64);
    }
    return p;
}

GR_INLINE bool cache_push_owner(struct cache *self, size_t class, void *p) {
    if (HARDENED)
        return cache_push_drawn_owner(self, class, p);
    void **top = top_load_owner(&self->top[class]);
    if (GR_UNLIKELY(slot_load_owner(top + 1) == MAGAZINE_FULL) || GR_UNLIKELY(slot_load_owner(top) == p))
        return false;
    slot_store_owner(top + 1, p);
    top_move_release(&self->top[class], 1); /* [release cut] */
    return true;
}

/* False: it is no thread's own. */
GR_INLINE bool cache_serves(const struct cache *self) { return self->index != 0; }

/* Hardened: p waits in the slot that is next, where nothing is any more. */
GR_INLINE void cache_delay_owner(struct delay *d, void *p) {
    unsigned next = d->next;
    GR_COMMIT(&d->slot[next], p);
    d->next = (uint8_t)((next + 1) & d->last);
}

/* The class in the owner's shard, of one in shard 0. */
GR_INLINE unsigned cache_class_here(const struct cache *self, unsigned class) {
    return class <= SHARDED_CLASSES ? self->class_by_16[class] : class;
}

/* ---- slow paths; the caller is the owner, between slow_enter and slow_leave ---- */

/* The cheap half of a miss: the spare is full for a malloc, or empty for a free. NULL, false: it is not. */
void *gr_cache_pop_spare(struct cache *self, unsigned class);
bool gr_cache_push_spare(struct cache *self, unsigned class, void *p);

/* A block for an empty magazine without a full spare. *clean: it reads as zero. NULL without memory. */
void *gr_cache_refill(struct cache *self, unsigned class, bool *clean);

/* One block straight from a slab if the class's next blocks are known to read as zero, else NULL. */
void *gr_cache_clean_block(struct cache *self, unsigned class);

/* p is pushed although the magazine is full and there is no empty spare. */
void gr_cache_overflow(struct cache *self, unsigned class, void *p);

/* Gives back the class's spare, to the depot if `keep_depot` and it is worth it, and its held slab; returns the bytes of their
 * free blocks. */
uint64_t gr_cache_drop_reserve(struct cache *self, unsigned class, bool keep_depot);

/* Hardened: what is held back of the class goes to the slabs. */
void gr_cache_release_delay(struct cache *self, unsigned class);

/* The unused magazines go back to the pool. */
void gr_cache_drop_empties(struct cache *self);

/* Empties the cache: full magazines to the depot if `keep_depot`, all else to the slabs. */
void gr_cache_flush(struct cache *self, bool keep_depot);

/* A cache as at birth, for a thread; a static one that holds and accepts nothing. */
void gr_cache_init(struct cache *self);

/* Called at the end of slow paths with the time: once a second, and for each 16 slabs beyond the most that there were, gives
 * back the classes that the owner has not used since, and what nobody has used of the depots. self may be NULL. */
void gr_cache_tick(struct cache *self, uint64_t now_ms);

/* The number by which ticks are told apart. */
uint32_t gr_cache_clock(uint64_t now_ms);

/* Without a cache: before a thread's first call can be served, after its last, inside its own slow path. */
void *gr_direct_alloc(unsigned class);
void gr_direct_free(unsigned class, void *p, const char *call);

/* Bytes that one thread's loaded magazines may hold when they are full; from the options, the heap and the threads. */
uint64_t gr_cache_budget(bool swings);

#endif
