/* slab/size_class.c -- see `slab/size_class.h`. */
#include "slab/size_class.h"

#include "base/check.h"

/* The least power of two of granules in which at least SLAB_MIN_BLOCKS blocks fit. */
#define FITS(size, granules) ((granules)*GRANULE_BYTES / (size) >= SLAB_MIN_BLOCKS)
#define GRANULES(size)                                                                                                 \
    (FITS(size, 1) ? 1 : FITS(size, 2) ? 2 : FITS(size, 4) ? 4 : FITS(size, 8) ? 8 : FITS(size, 16) ? 16 : 32)
#define CAPACITY(size) ((GRANULES(size) * GRANULE_BYTES - (HARDENED ? GUARD_BYTES : 0)) / (size))

/* A magazine holds MAGAZINE_BYTES of blocks, between 2 and the largest kind's rounds. */
enum { MAGAZINE_BYTES = 256 * 1024, MAGAZINE_ROUNDS = 252 };
#define ROUNDS(size)                                                                                                   \
    (MAGAZINE_BYTES / (size) > MAGAZINE_ROUNDS ? MAGAZINE_ROUNDS                                                       \
     : MAGAZINE_BYTES / (size) < 2             ? 2                                                                     \
                                               : MAGAZINE_BYTES / (size))
#define CLASS(size)                                                                                                    \
    {                                                                                                                  \
        .bytes = (size), .capacity = CAPACITY(size), .threshold = CAPACITY(size) / 8 ? CAPACITY(size) / 8 : 1,         \
        .inverse = ((1ull << 44) + (size)-1) / (size), .granules = GRANULES(size),                                     \
        .words = (CAPACITY(size) + 63) / 64, .rounds = ROUNDS(size),                                                   \
    }
#define SEVEN(from)                                                                                                    \
    CLASS(from * 9 / 8), CLASS(from * 10 / 8), CLASS(from * 11 / 8), CLASS(from * 12 / 8), CLASS(from * 13 / 8),       \
        CLASS(from * 14 / 8), CLASS(from * 15 / 8)
#define EIGHT(from) SEVEN(from), CLASS(from * 2)

#define SHARD CLASS(16), CLASS(32), CLASS(48)

const struct size_class gr_classes[CLASS_SLOTS] = {
    {.bytes = 0}, CLASS(16),   CLASS(32),    CLASS(48),    CLASS(64),    CLASS(80),     CLASS(96),
    CLASS(112),   CLASS(128),  EIGHT(128),   EIGHT(256),   EIGHT(512),   EIGHT(1024),   EIGHT(2048),
    EIGHT(4096),  EIGHT(8192), EIGHT(16384), EIGHT(32768), EIGHT(65536), SEVEN(131072), CLASS(SMALL_MAX_BYTES),
    SHARD,        SHARD,       SHARD,        SHARD,        SHARD,        SHARD,         SHARD,
};

/* Doubling d has eight classes, each 2^d steps of 128 bytes wide, from 1 KiB * 2^d on; the last one has all the rest. */
#define STEP(d, j)     [((8 + (j)) << (d)) + 1 ...(8 + (j) + 1) << (d)] = LINEAR_CLASSES + 8 * (d) + (j) + 1
#define SEVEN_STEPS(d) STEP(d, 0), STEP(d, 1), STEP(d, 2), STEP(d, 3), STEP(d, 4), STEP(d, 5), STEP(d, 6)
#define STEPS(d)       SEVEN_STEPS(d), STEP(d, 7)

const uint8_t gr_class_by_128[SMALL_MAX_BYTES / 128 + 1] = {
    STEPS(0), STEPS(1),       STEPS(2),
    STEPS(3), STEPS(4),       STEPS(5),
    STEPS(6), SEVEN_STEPS(7), [(15 << 7) + 1 ... SMALL_MAX_BYTES / 128] = SIZE_CLASSES};

static const uint8_t by_16[CLASS_BY_16_ENTRIES] = CLASS_BY_16;

unsigned gr_class_of(size_t n) {
    ASSERT(n <= SMALL_MAX_BYTES);
    return n <= LINEAR_MAX_BYTES ? by_16[(n + 15) / 16] : gr_class_by_128[(n + 127) / 128];
}

/* Hardened: the last class is not of the sizes of which aligned_bytes speaks. */
unsigned gr_class_of_aligned(size_t n, size_t align) {
    if (!aligned_fits(n, align) || aligned_bytes(n, align) > SMALL_MAX_BYTES)
        return 0;
    unsigned class = gr_class_of(aligned_bytes(n, align));
    return HARDENED && class_bytes(class) % align ? 0 : class;
}
