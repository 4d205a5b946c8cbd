/* storm_block.h -- the calls under test, blocks whose contents are known, and the work that storms are made
 * of.
 *
 * PURPOSE   A block carries a pattern that follows from its address and size, so that whoever frees it, in
 * whichever thread or process, can tell whether anybody else has written there. A block fits one 64-bit word,
 * so that handing it over is one atomic exchange.
 *
 * INVARIANTS
 *   pattern-follows   storm_fill writes what storm_verify expects from address and size alone.
 *   one-holder        Who gets a word out of a box holds the block; the exchange is the only synchronisation
 * between the thread that filled a block and the one that verifies and frees it.
 *
 * Compiled with STORM_LIBC the calls are made under libc's names: what override_ tests do, and how the tests
 * themselves are tried against other allocators.
 */
#ifndef STRESS_STORM_BLOCK_H
#define STRESS_STORM_BLOCK_H

#include "storm.h"

#include <granary.h>
#include <malloc.h>

#ifdef STORM_LIBC
extern void free_sized(void *ptr, size_t size) __attribute__((weak));
extern void free_aligned_sized(void *ptr, size_t alignment, size_t size) __attribute__((weak));
extern size_t nallocx(size_t size, int flags) __attribute__((weak));
#pragma weak granary_get_stats
static inline void storm_free_sized(void *ptr, size_t size) {
    if (free_sized)
        free_sized(ptr, size);
    else
        free(ptr);
}
static inline void storm_free_aligned_sized(void *ptr, size_t alignment, size_t size) {
    if (free_aligned_sized)
        free_aligned_sized(ptr, alignment, size);
    else
        free(ptr);
}
static inline size_t storm_nallocx(size_t size, int flags) {
    return nallocx ? nallocx(size, flags) : (size + 15) & ~(size_t)15;
}
static inline void storm_get_stats(struct granary_stats *out) {
    if (granary_get_stats)
        granary_get_stats(out);
}
#define granary_malloc                  malloc
#define granary_calloc                  calloc
#define granary_realloc                 realloc
#define granary_reallocarray            reallocarray
#define granary_free                    free
#define granary_aligned_alloc           aligned_alloc
#define granary_posix_memalign          posix_memalign
#define granary_memalign                memalign
#define granary_valloc                  valloc
#define granary_pvalloc                 pvalloc
#define granary_malloc_usable_size(ptr) malloc_usable_size((void *)(uintptr_t)(ptr))
#define granary_malloc_trim             malloc_trim
#define granary_trim()                  malloc_trim(0)
#define granary_free_sized              storm_free_sized
#define granary_free_aligned_sized      storm_free_aligned_sized
#define granary_nallocx                 storm_nallocx
#define granary_get_stats               storm_get_stats
#endif

enum {
    storm_fill_all_bytes = 65536,     /* larger blocks have the pattern in one word of each page and at the end, */
    storm_fill_pages_bytes = 2 << 20, /* and blocks larger than this in one word of 16 pages: faults take the time */
    storm_small_code = 511            /* sizes from here on stand in the block's first word */
};

struct storm_block {
    unsigned char *ptr; /* NULL: no block */
    size_t size;        /* bytes that carry the pattern */
    unsigned log_align; /* 0: of malloc, realloc, calloc; else of an aligned call */
    bool exact;         /* size is what was asked for, so the sized calls may free it */
};

/* Patterns */

static inline uint64_t storm_pattern(const struct storm_block *block) {
    return mix((uint64_t)(uintptr_t)block->ptr ^ ((uint64_t)block->size << 40) ^ block->size) | 1;
}

static inline size_t storm_stride(const struct storm_block *block) {
    return block->size <= storm_fill_all_bytes ? 8 : block->size <= storm_fill_pages_bytes ? 4096 : 65536;
}

/* Bytes at the end that are filled one by one; what stands before them is a multiple of 8. */
static inline size_t storm_tail(const struct storm_block *block) {
    return block->size < 8 ? block->size : (block->size > storm_fill_all_bytes ? 8u : 0u) + block->size % 8;
}

static inline void storm_fill(struct storm_block *block) {
    uint64_t word = storm_pattern(block);
    size_t stride = storm_stride(block), tail = storm_tail(block);
    for (size_t at = 0; at + 8 <= block->size - tail; at += stride, word += 0x9e3779b97f4a7c15u)
        memcpy(block->ptr + at, &word, 8);
    if (block->size >= storm_small_code) {
        uint64_t size = block->size;
        memcpy(block->ptr, &size, 8);
    }
    memset(block->ptr + block->size - tail, (int)(word & 255), tail);
}

/* The first `size` bytes are as storm_fill left them for the block's own size and for address `filled_at`. */
static inline void storm_verify_prefix(const struct storm_block *block, const unsigned char *filled_at, size_t size) {
    struct storm_block then = *block;
    then.ptr = (unsigned char *)(uintptr_t)filled_at;
    uint64_t word = storm_pattern(&then), found;
    size_t stride = storm_stride(block), tail = storm_tail(block);
    for (size_t at = 0; at + 8 <= block->size - tail; at += stride, word += 0x9e3779b97f4a7c15u) {
        if (at + 8 > size)
            continue;
        memcpy(&found, block->ptr + at, 8);
        uint64_t expected = at == 0 && block->size >= storm_small_code ? block->size : word;
        REQUIRE(found == expected, "block %p of %zu bytes: at %zu %#llx for %#llx", (void *)block->ptr, block->size, at,
                (unsigned long long)found, (unsigned long long)expected);
    }
    for (size_t i = block->size - tail; i < block->size && i < size; i++)
        REQUIRE(block->ptr[i] == (word & 255), "block %p of %zu bytes: byte %zu is %#x for %#x", (void *)block->ptr,
                block->size, i, block->ptr[i], (unsigned)(word & 255));
}

static inline void storm_verify(const struct storm_block *block) {
    storm_verify_prefix(block, block->ptr, block->size);
}

static inline void storm_require_zero(const unsigned char *ptr, size_t size) {
    size_t stride = size <= (1 << 20) ? 1 : 20011;
    for (size_t i = 0; i < size; i += stride)
        REQUIRE(ptr[i] == 0, "calloc gave %p with %#x in byte %zu of %zu", (const void *)ptr, ptr[i], i, size);
}

/* Sizes */

/* Mostly small; often next to the edge of a size class; sometimes large; seldom a mapping of its own, up to
 * `max`. */
static inline size_t storm_size(struct rng *rng, size_t max) {
    uint64_t kind = rng_below(rng, 1000);
    size_t size;
    if (kind < 600)
        size = rng_below(rng, (size_t)16 << rng_below(rng, 7));
    else if (kind < 850)
        size = granary_nallocx(1 + rng_below(rng, (size_t)64 << rng_below(rng, 13)), 0) - 1 + rng_below(rng, 3);
    else if (kind < 970)
        size = rng_below(rng, 1 << 15);
    else if (kind < 996)
        size = rng_below(rng, 1 << 18);
    else if (kind < 999)
        size = rng_below(rng, 1 << 22);
    else
        size = rng_below(rng, 1 << 26);
    return size <= max ? size : 1 + size % max;
}

/* Calls */

/* A block of `size` bytes by a call drawn at random, checked and filled. */
static inline struct storm_block storm_alloc(struct rng *rng, size_t size) {
    struct storm_block block = {.size = size, .exact = true};
    size_t align = 16;
    void *out = NULL;
    uint64_t call = rng_below(rng, 64);
    if (call >= 58) {
        block.log_align = 4 + (unsigned)rng_below(rng, storm_one_in(rng, 16) ? 17 : 9);
        align = (size_t)1 << block.log_align;
    }
    switch (call) {
    case 58:
    case 59:
        out = granary_aligned_alloc(align, size);
        break;
    case 60:
        REQUIRE(granary_posix_memalign(&out, align, size) == 0, "posix_memalign(%zu, %zu)", align, size);
        break;
    case 61:
        out = granary_memalign(align, size);
        break;
    case 62:
    case 63:
        align = 4096;
        block.log_align = 12;
        out = call == 62 ? granary_valloc(size) : granary_pvalloc(size);
        block.exact = false;
        break;
    case 50:
    case 51:
    case 52:
    case 53:
        out = call == 53 ? granary_calloc(size, 1) : granary_calloc(1, size);
        if (out)
            storm_require_zero(out, granary_malloc_usable_size(out));
        break;
    case 54:
    case 55:
        out = size ? granary_realloc(NULL, size) : granary_malloc(0);
        break;
    default:
        out = granary_malloc(size);
    }
    REQUIRE(out, "no memory: call kind %d, %zu bytes, alignment %zu", (int)call, size, align);
    REQUIRE(((uintptr_t)out & (align - 1)) == 0, "call kind %d: %p is not aligned to %zu", (int)call, out, align);
    size_t usable = granary_malloc_usable_size(out);
    REQUIRE(usable >= size, "%p: usable %zu of %zu bytes", out, usable, size);
    block.ptr = out;
    if (storm_one_in(rng, 8)) { /* whatever is usable may be used */
        block.size = usable;
        block.exact = false;
    }
    storm_fill(&block);
    return block;
}

/* Verifies the block and frees it by a call drawn at random. NULL blocks are freed too. */
static inline void storm_release(struct rng *rng, struct storm_block block) {
    if (block.ptr)
        storm_verify(&block);
    switch (rng_below(rng, 16)) {
    case 0:
    case 1:
        if (!block.exact)
            granary_free(block.ptr);
        else if (block.log_align)
            granary_free_aligned_sized(block.ptr, (size_t)1 << block.log_align, block.size);
        else
            granary_free_sized(block.ptr, block.size);
        break;
    case 2:
        if (block.ptr) {
            void *left = granary_realloc(block.ptr, 0);
            REQUIRE(!left, "realloc to 0 bytes gave %p", left);
            break;
        } /* fallthrough */
    default:
        granary_free(block.ptr);
    }
}

static inline void storm_resize(struct rng *rng, struct storm_block *block, size_t size) {
    struct storm_block old = *block;
    size += size == 0;
    storm_verify(&old);
    void *moved = storm_one_in(rng, 4) ? granary_reallocarray(old.ptr, size, 1) : granary_realloc(old.ptr, size);
    REQUIRE(moved, "no memory: realloc to %zu bytes", size);
    REQUIRE(((uintptr_t)moved & 15) == 0, "realloc: %p is not aligned", moved);
    REQUIRE(granary_malloc_usable_size(moved) >= size, "realloc: %p is smaller than %zu bytes", moved, size);
    if (old.ptr) {
        const unsigned char *filled_at = old.ptr;
        old.ptr = moved;
        storm_verify_prefix(&old, filled_at, size < old.size ? size : old.size);
    }
    *block = (struct storm_block){.ptr = moved, .size = size, .exact = true};
    storm_fill(block);
}

/* Hand-over */

/* A place where one block waits for anybody. 0: empty. */
struct storm_box {
    _Atomic uint64_t word;
};

/* 48 bits of address, 6 of alignment, 1 of exact, 9 of size; large sizes stand in the pattern's first word.
 */
static inline uint64_t storm_pack(struct storm_block block) {
    uint64_t code = block.size < storm_small_code ? block.size : storm_small_code;
    return !block.ptr ? 0
                      : ((uint64_t)(uintptr_t)block.ptr | (uint64_t)block.log_align << 48 |
                         (uint64_t)block.exact << 54 | code << 55);
}

static inline struct storm_block storm_unpack(uint64_t word) {
    struct storm_block block = {.ptr = (unsigned char *)(uintptr_t)(word & (((uint64_t)1 << 48) - 1)),
                                .size = word >> 55,
                                .log_align = (unsigned)(word >> 48) & 63,
                                .exact = (word >> 54) & 1};
    if (block.size == storm_small_code) {
        uint64_t size;
        memcpy(&size, block.ptr, 8);
        block.size = size;
    }
    return block;
}

/* Puts `block` (or nothing) into the box and takes out what was there (or nothing). */
static inline struct storm_block storm_trade(struct storm_box *box, struct storm_block block) {
    return storm_unpack(atomic_exchange_explicit(&box->word, storm_pack(block), memory_order_acq_rel));
}

/* Puts the block into the box if that is empty. */
static inline bool storm_offer(struct storm_box *box, struct storm_block block) {
    uint64_t empty = 0;
    return atomic_compare_exchange_strong_explicit(&box->word, &empty, storm_pack(block), memory_order_release,
                                                   memory_order_relaxed);
}

/* Takes out what is there, without writing to an empty box. */
static inline struct storm_block storm_take(struct storm_box *box) {
    if (!atomic_load_explicit(&box->word, memory_order_relaxed))
        return (struct storm_block){0};
    return storm_trade(box, (struct storm_block){0});
}

/* Work */

enum { storm_boxes = 64 };

/* The boxes of the process: blocks in here belong to nobody and cross threads, thread ends and forks. */
static struct storm_box storm_box[storm_boxes];

/* One operation on a set of blocks: a new block, another size, or a trade with the boxes. */
static inline void storm_operation(struct rng *rng, struct storm_block *slots, size_t n_slots, size_t max) {
    struct storm_block *slot = &slots[rng_below(rng, n_slots)];
    uint64_t kind = rng_below(rng, 100);
    if (kind < 60) {
        storm_release(rng, *slot);
        *slot = storm_alloc(rng, storm_size(rng, max));
    } else if (kind < 70) {
        storm_release(rng, *slot);
        *slot = (struct storm_block){0};
    } else if (kind < 82) {
        if (slot->ptr)
            storm_resize(rng, slot, storm_one_in(rng, 2) ? slot->size + rng_below(rng, 64) : storm_size(rng, max));
    } else {
        *slot = storm_trade(&storm_box[rng_below(rng, storm_boxes)], *slot);
    }
}

static inline void storm_release_all(struct rng *rng, struct storm_block *slots, size_t n_slots) {
    for (size_t i = 0; i < n_slots; i++)
        storm_release(rng, slots[i]);
    memset(slots, 0, n_slots * sizeof *slots);
}

static inline void storm_empty_boxes(struct rng *rng) {
    for (int i = 0; i < storm_boxes; i++)
        storm_release(rng, storm_take(&storm_box[i]));
}

/* `ops` operations that keep nothing but what they put into the boxes. */
static inline void storm_churn(struct rng *rng, long ops, size_t max) {
    struct storm_block slots[64] = {{0}};
    for (long i = 0; i < ops; i++)
        storm_operation(rng, slots, 64, max);
    storm_release_all(rng, slots, 64);
}

static inline void *storm_short_life(void *seed) {
    struct rng rng = {(uint64_t)(uintptr_t)seed};
    storm_churn(&rng, 300, 1 << 15);
    return NULL;
}

/* Everything a program may want of the library, in a few milliseconds: churn over all sizes, a block with a
 * mapping of its own, trim and figures, and `threads` threads that are born and die. Runs in any thread and
 * in any forked child; one that has no working pthread_create (of _Fork) passes 0. */
static inline void storm_workload(uint64_t seed, int threads) {
    struct rng rng = {mix(seed)};
    struct granary_stats stats;
    storm_churn(&rng, 600, 1 << 15); /* page faults are what takes the time, so most blocks are small */
    storm_churn(&rng, 30, 1 << 20);
    struct storm_block huge = storm_alloc(&rng, ((size_t)65 << 20) + rng_below(&rng, 1 << 20));
    for (int i = 0; i < threads; i++)
        storm_join(storm_thread(storm_short_life, (void *)(uintptr_t)rng_next(&rng)));
    storm_resize(&rng, &huge, ((size_t)65 << 20) + rng_below(&rng, (size_t)16 << 20)); /* moves pages, copies none */
    storm_release(&rng, huge);
    granary_get_stats(&stats);
    granary_trim();
    storm_churn(&rng, 100, 1 << 16);
}

#endif
