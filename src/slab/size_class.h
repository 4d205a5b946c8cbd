/* slab/size_class.h -- from sizes to classes and back. Pure functions over one table.
 *
 * PURPOSE     16-byte steps to 128 bytes, then 8 classes per doubling to 256 KiB, of which the last is a page longer in the hardened
 *             build. A request of n bytes
 *             gets the smallest class that holds it; 0 bytes get the least.
 *
 * INVARIANTS
 *   class-minimal  class_of(n) is the least class of at least n bytes, from LEAST_CLASS on; class_bytes rises with the class, to SIZE_CLASSES.
 *   class-aligned  A block whose class's size is a multiple of a power of two up to GRANULE_BYTES is aligned to it,
 *                  since slabs start at multiples of their own size.
 *   index-exact    block_index is offset / size for every offset in a slab.
 */
#ifndef SLAB_SIZE_CLASS_H
#define SLAB_SIZE_CLASS_H

#include "base/bits.h"
#include "base/limits.h"

struct size_class {
    uint32_t bytes;     /* of a block */
    uint16_t capacity;  /* blocks of a slab */
    uint16_t threshold; /* free blocks at which a slab is listed */
    uint64_t inverse;   /* 2^44 / bytes, rounded up */
    uint8_t granules;   /* of a slab: a power of two */
    uint8_t words;      /* bitmap words of a slab */
    uint16_t rounds;    /* blocks in a full-grown magazine */
};

/* Of 0 bytes for what is no small class. */
extern GR_HIDDEN const struct size_class gr_classes[CLASS_SLOTS];
extern GR_HIDDEN const uint8_t gr_class_by_128[SMALL_MAX_BYTES / 128 + 1];

/* Hardened: no block is shorter than the vectors that it is cleared with. */
enum { LEAST_CLASS = HARDENED ? 2 : 1 };

/* The table for 16-byte steps, as an initializer: each cache has a copy beside its magazines. */
#define CLASS_BY_16                                                                                                    \
    {                                                                                                                  \
        LEAST_CLASS, LEAST_CLASS, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 17, 18, 18, 19, 19, 20, 20,  \
            21, 21, 22, 22, 23, 23, 24, 24, 25, 25, 25, 25, 26, 26, 26, 26, 27, 27, 27, 27, 28, 28, 28, 28, 29, 29,    \
            29, 29, 30, 30, 30, 30, 31, 31, 31, 31, 32, 32, 32, 32                                                     \
    }
enum { CLASS_BY_16_ENTRIES = LINEAR_MAX_BYTES / 16 + 1 };

GR_INLINE size_t class_bytes(unsigned class) { return gr_classes[class].bytes; }

/* The least block takes its own cache line only from 64 bytes on. A block below it that another thread frees must not be
 * handed out there: its neighbours in the line are written by their user. So the sizes below have a class for each shard; a
 * thread allocates in its shard alone, and frees into any. */
GR_INLINE unsigned class_in_shard(unsigned class, unsigned shard) {
    return shard && class <= SHARDED_CLASSES ? SIZE_CLASSES + (shard - 1) * SHARDED_CLASSES + class : class;
}
enum { SHARDED_MAX_BYTES = SHARDED_CLASSES * 16 };

/* n <= SMALL_MAX_BYTES; of shard 0. */
unsigned gr_class_of(size_t n);

/* Does a class serve n bytes aligned to `align`, a power of two? */
GR_INLINE bool aligned_fits(size_t n, size_t align) { return n <= SMALL_MAX_BYTES && align <= GRANULE_BYTES; }

/* Blocks of the class of so many bytes are aligned to `align`, a power of two: sizes of a doubling are multiples of an eighth of it, so that
 * a multiple of less is among them, and one of more is a class itself. One does. */
GR_INLINE size_t aligned_bytes(size_t n, size_t align) { return round_up(n + !n, align); }

/* The class for n bytes aligned to `align`, a power of two; 0: no class serves it. */
unsigned gr_class_of_aligned(size_t n, size_t align);

GR_INLINE uint32_t block_index(const struct size_class *k, size_t offset) {
    return (uint32_t)((uint64_t)offset * k->inverse >> 44);
}

#endif
