/* slab/seal.h -- what the hardened build keeps in the last eight bytes of a small block.
 *
 * PURPOSE     A block in a user's hand ends with a seal: a number that depends on its address and on secrets of the process, and
 *             the length that was asked for. Behind the last byte asked for stands SLACK_MARK, then zero up to the seal. A free block
 *             is zero from end to end. So free tells, from bytes that it has to clear anyway, a block that is out from one that
 *             is not, and whether anybody wrote past its end; malloc tells whether anybody wrote after its free,
 *             exactly up to WIDE_BYTES.
 *
 *     handed out   | n bytes of the user's | MARK 0 0 ... 0 | seal: MARK 0, 30 bits of secret, 18 of secret ^ slack |
 *     free         | 0 0 0 ...                                                                                   0 |
 *
 * INVARIANTS
 *   free-zero    A block that is in no user's hand reads as zero, in magazines, depots, slabs, and before its slab is born.
 *   seal-last    The seal is the last thing that malloc writes, and the first that free clears.
 *
 * EDGES       secret-born   booted set -> booted seen   the secrets are chosen, for whoever makes a slab
 *
 * WHY MARK and a zero begin the seal: a string that runs past its end stops there and shows no secret, and a single NUL written
 *     behind it is seen.
 * WHY not a bit out of band: a cold line at each free (docs/design.md, Roads not taken). The seal lies in a line that
 *     free is about to clear.
 * WHY free exchanges it: of two threads that free one block at the same moment, one finds the seal gone. It costs nothing that
 *     could be measured: the line is the freeing thread's, or is about to be.
 */
#ifndef SLAB_SEAL_H
#define SLAB_SEAL_H

#include <stdbool.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/limits.h"
#include "page/slack.h"

enum { SEAL_SLACK_SHIFT = 46, SEAL_WORD = 8 };

/* Chosen once, before the first slab is born and the first thread draws. */
struct seal_secret {
    struct word add, multiply;
};
extern GR_HIDDEN struct seal_secret gr_seal_secret;
void gr_seal_boot(void);

/* Bits that nobody outside can foretell; a shared word is written. */
uint64_t gr_seal_random(void);

/* A thread's own: cheap, and started from the above. */
GR_INLINE uint32_t random_below(uint64_t *state, uint32_t n) {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((*state >> 32) * n >> 32);
}

/* k of the bits set in v, at random. */
uint64_t gr_random_bits(uint64_t v, unsigned k);

GR_INLINE uint64_t seal_of(const void *block) {
    uint64_t mixed = ((uintptr_t)block ^ word_peek(&gr_seal_secret.add)) * word_peek(&gr_seal_secret.multiply);
    return (mixed & ~0xffffull) | SLACK_MARK;
}

GR_INLINE struct word *seal_word(void *block, size_t bytes) {
    return (struct word *)((char *)block + bytes - SEAL_WORD);
}

/* Seals a block that reads as zero, for n bytes of its user. */
GR_INLINE void seal_put(void *block, size_t bytes, size_t n) {
    uint64_t slack = bytes - SEAL_WORD - n;
    ((unsigned char *)block)[n] = SLACK_MARK; /* with no slack: the seal's own first byte */
    word_store_relaxed(seal_word(block, bytes), seal_of(block) ^ slack << SEAL_SLACK_SHIFT);
}

/* What stands in the seal's place; free takes it out, and of two that free one block at the same time the other finds 0. */
GR_INLINE uint64_t seal_look(void *block, size_t bytes) { return word_load_relaxed(seal_word(block, bytes)); }
GR_INLINE uint64_t seal_take(void *block, size_t bytes) { return word_swap_relaxed(seal_word(block, bytes), 0); }

/* The slack of a block with this seal; more than any block's bytes: the seal is broken. */
GR_INLINE uint64_t seal_slack(const void *block, uint64_t seal) {
    uint64_t open = seal ^ seal_of(block);
    return open >> SEAL_SLACK_SHIFT | open << (64 - SEAL_SLACK_SHIFT);
}

/* The first byte that is not zero; NULL: all are. */
const void *gr_first_written(const void *block, size_t bytes);

typedef uint64_t two_words __attribute__((vector_size(16)));

/* A block is a multiple of 16 bytes. Up to 48 there are three places, which may be one; from 64 on the last four may have been looked
 * at before. */
GR_INLINE two_words *middle(const void *block, size_t bytes) {
    return (two_words *)((char *)(uintptr_t)block + (bytes / 2 & ~(size_t)15));
}

GR_INLINE bool is_zero(const void *block, size_t bytes) {
    const two_words *v = block, *end = (const two_words *)((const char *)block + bytes);
    two_words any;
    if (bytes < 64) {
        any = *v | *middle(block, bytes) | end[-1];
    } else {
        any = end[-1] | end[-2] | end[-3] | end[-4];
        for (; v + 4 < end; v += 4)
            any |= v[0] | v[1] | v[2] | v[3];
    }
    return (any[0] | any[1]) == 0;
}

/* From here on a block's user has mostly not been everywhere in it. A page that was never written reads as zero without coming to
 * memory: clearing reads, and writes those pages alone that it has to. Looking is exact in the first 4 KiB and the last eighth,
 * where the first and the last byte of its user were, and everywhere in one look of eight: it costs as much as all else. */
enum { WIDE_BYTES = 32 * 1024 };
void gr_wide_clear(void *block, size_t bytes);
bool gr_wide_is_zero(const void *block, size_t bytes);

/* Makes a block as it is while nobody holds it; a short one by stores that cost less than any call. */
enum { SHORT_BYTES = 512 };
GR_INLINE void short_clear(void *block, size_t bytes) {
    /* volatile: the compiler would call memset */
    volatile two_words *v = block, *end = (two_words *)((char *)block + bytes);
    const two_words zero = {0, 0};
    if (bytes < 64) {
        *v = zero;
        *(volatile two_words *)middle(block, bytes) = zero;
        end[-1] = zero;
        return;
    }
    end[-1] = end[-2] = end[-3] = end[-4] = zero;
    for (; v + 4 < end; v += 4)
        v[0] = v[1] = v[2] = v[3] = zero;
}
GR_INLINE void block_clear(void *block, size_t bytes) {
    if (GR_LIKELY(bytes <= SHORT_BYTES))
        short_clear(block, bytes);
    else if (bytes <= WIDE_BYTES)
        __builtin_memset(block, 0, bytes);
    else
        gr_wide_clear(block, bytes);
}

/* Is it still so? */
GR_INLINE bool block_is_clear(void *block, size_t bytes) {
    return GR_LIKELY(bytes <= WIDE_BYTES) ? is_zero(block, bytes) : gr_wide_is_zero(block, bytes);
}

/* Before it is looked at for the first time: a page that came for reading would come again for writing. */
GR_INLINE void block_touch(void *block, size_t bytes) {
    for (size_t at = 0; at < bytes && bytes <= WIDE_BYTES; at += 4096)
        GR_TOUCH((char *)block + at);
    GR_TOUCH((char *)block + bytes - 1);
}

#endif
