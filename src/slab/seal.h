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
 * WHY free exchanges it: of two threads that free one block at the same moment, one finds the seal gone. Where there is one thread a load
 *     and a store take a pair from 11.3 to 9.6 ns.
 */
#ifndef SLAB_SEAL_H
#define SLAB_SEAL_H

#include <stdbool.h>
#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/limits.h"
#include "page/slack.h"

enum { SEAL_SLACK_SHIFT = 46, SEAL_WORD = 8 };

/* What each call reads, in a line that is written only then: the secrets and the processor's kind are known before the first slab is born
 * and the first thread draws. */
struct seal_facts {
    GR_LINE struct word add;
    struct word multiply;
    struct half wide; /* it has vectors of VECTOR_BYTES */
    struct half
        shared; /* set before a second thread has a cache, for good: two may free one block at the same moment */
};
extern GR_HIDDEN struct seal_facts gr_seal;
void gr_seal_boot(void);

/* Bits that nobody outside can foretell; a shared word is written. */
uint64_t gr_seal_random(void);

/* A thread's own: cheap, and started from the above, with an odd number. */
GR_INLINE uint32_t random_below(uint64_t *state, uint32_t n) {
    *state *= 6364136223846793005ull;
    return (uint32_t)((unsigned __int128)*state * n >> 64);
}

/* k of the bits set in v, at random. */
uint64_t gr_random_bits(uint64_t v, unsigned k);

GR_INLINE uint64_t seal_of(const void *block) {
    uint64_t mixed = ((uintptr_t)block ^ word_peek(&gr_seal.add)) * word_peek(&gr_seal.multiply);
    return (mixed & ~0xffffull) | SLACK_MARK;
}

GR_INLINE struct word *seal_word(void *block, size_t bytes) {
    return (struct word *)((char *)block + bytes - SEAL_WORD);
}

/* Seals a block that reads as zero, for n bytes of its user. */
GR_INLINE void seal_put(void *block, size_t bytes, size_t n) {
    uint64_t slack = bytes - SEAL_WORD - n, mark = SLACK_MARK;
    memcpy((char *)block + n, &mark, sizeof mark); /* free reads as many bytes; of those the seal's are its own again */
    word_store_relaxed(seal_word(block, bytes), seal_of(block) ^ slack << SEAL_SLACK_SHIFT);
}

/* What stands in the seal's place; free takes it out, and of two that free one block at the same time the other finds 0. */
GR_INLINE uint64_t seal_look(void *block, size_t bytes) { return word_load_relaxed(seal_word(block, bytes)); }
GR_INLINE uint64_t seal_take(void *block, size_t bytes) {
    struct word *seal = seal_word(block, bytes);
    if (half_load_relaxed(&gr_seal.shared))
        return word_swap_relaxed(seal, 0);
    uint64_t was = word_load_relaxed(seal);
    word_store_relaxed(seal, 0);
    return was;
}

GR_INLINE uint64_t word_anywhere(const void *at) {
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

/* The slack of a block with this seal; more than any block's bytes: the seal is broken. */
GR_INLINE uint64_t seal_slack(const void *block, uint64_t seal) {
    uint64_t open = seal ^ seal_of(block);
    return open >> SEAL_SLACK_SHIFT | open << (64 - SEAL_SLACK_SHIFT);
}

/* The same as slack_is_whole, of a block whose seal was taken, by words that begin anywhere: so no branch depends on how long the
 * slack is, up to 16 bytes. */
GR_INLINE bool taken_slack_is_whole(const void *block, size_t room, uint64_t slack) {
    const char *at = (const char *)block + room - slack, *seal = (const char *)block + room;
    uint64_t mark = slack ? SLACK_MARK : 0, more = word_anywhere(at) ^ mark;
    more |= word_anywhere(at + 8 < seal ? at + 8 : seal);
    if (GR_UNLIKELY(slack > 16))
        for (const char *end = slack < SLACK_LOOK ? seal : at + SLACK_LOOK; (at += 8) + 8 < end;)
            more |= word_anywhere(at + 8);
    return !more;
}

GR_INLINE bool is_wide(void) { return half_load_relaxed(&gr_seal.wide) != 0; }

/* The first byte that is not zero; NULL: all are. */
const void *gr_first_written(const void *block, size_t bytes);

typedef uint64_t four_words __attribute__((vector_size(32), aligned(16)));
enum { VECTOR_BYTES = 32, STRIDE_BYTES = 8 * VECTOR_BYTES, SHORT_BYTES = 1024 };

/* A block is a multiple of 16 bytes, and no less than a vector. The sizes of a program's short blocks follow no order that a processor
 * could foresee, so there are few branches on them: what is looked at or cleared may have been before. */
GR_INLINE four_words *vector_at(const void *block, size_t at) { return (four_words *)((char *)(uintptr_t)block + at); }

/* For 32, 48 ... STRIDE_BYTES: where what lies between the first vector and the last is, in 6 places. */
extern GR_HIDDEN const uint8_t gr_short_places[STRIDE_BYTES / 16 + 1][8];

GR_INLINE void stride_into(four_words *any, const void *at) {
    const four_words *v = at;
    *any |= ((v[0] | v[1]) | (v[2] | v[3])) | ((v[4] | v[5]) | (v[6] | v[7]));
}

GR_INLINE bool is_zero(const void *block, size_t bytes) {
    const char *v = block, *end = v + bytes;
    four_words any = {0, 0, 0, 0};
    if (bytes <= STRIDE_BYTES) {
        const uint8_t *at = gr_short_places[bytes / 16];
        any = (*vector_at(v, 0) | *vector_at(v, at[0])) | (*vector_at(v, at[1]) | *vector_at(v, at[2]));
        any |=
            (*vector_at(v, at[3]) | *vector_at(v, at[4])) | (*vector_at(v, at[5]) | *vector_at(end - VECTOR_BYTES, 0));
    } else {
        end -= STRIDE_BYTES;
        stride_into(&any, v), stride_into(&any, end);
        if (bytes > 2 * STRIDE_BYTES)
            while ((v += STRIDE_BYTES) < end)
                stride_into(&any, v);
    }
    return !((any[0] | any[1]) | (any[2] | any[3]));
}

/* Longer blocks. Of one of several pages a user has mostly been in a part: clearing reads it, and writes what it has to. A page that was
 * never written reads as zero without coming to memory. Looking is exact to WIDE_BYTES; above, in the first 4 KiB and the last eighth,
 * where the first and the last byte of its user were, and everywhere in one look of eight: it costs as much as all else. */
enum { WIDE_BYTES = 32 * 1024 };
void gr_long_clear(void *block, size_t bytes);
bool gr_long_is_zero(const void *block, size_t bytes);

GR_INLINE void clear_at(void *block, size_t at) { *vector_at(block, at) = (four_words){0, 0, 0, 0}; }

/* volatile: the compiler would call memset */
GR_INLINE void clear_stride(volatile void *at) {
    volatile four_words *v = at;
    v[0] = v[1] = v[2] = v[3] = v[4] = v[5] = v[6] = v[7] = (four_words){0, 0, 0, 0};
}

/* Makes a block as it is while nobody holds it; a short one by stores that cost less than any call. */
GR_INLINE void short_clear(void *block, size_t bytes) {
    char *v = block, *end = v + bytes;
    if (bytes <= STRIDE_BYTES) {
        const uint8_t *at = gr_short_places[bytes / 16];
        clear_at(v, 0), clear_at(v, at[0]), clear_at(v, at[1]), clear_at(v, at[2]);
        clear_at(v, at[3]), clear_at(v, at[4]), clear_at(v, at[5]), clear_at(end - VECTOR_BYTES, 0);
        return;
    }
    end -= STRIDE_BYTES;
    clear_stride(v), clear_stride(end);
    if (bytes > 2 * STRIDE_BYTES)
        while ((v += STRIDE_BYTES) < end)
            clear_stride(v);
}

GR_INLINE void block_clear(void *block, size_t bytes) {
    if (GR_LIKELY(bytes <= SHORT_BYTES))
        short_clear(block, bytes);
    else
        gr_long_clear(block, bytes);
}

/* Is it still so? */
GR_INLINE bool block_is_clear(void *block, size_t bytes) {
    return GR_LIKELY(bytes <= SHORT_BYTES) ? is_zero(block, bytes) : gr_long_is_zero(block, bytes);
}

/* Before a short one is looked at for the first time: a page that came for reading would come again for writing. */
GR_INLINE void block_touch(void *block, size_t bytes) {
    GR_TOUCH(block);
    GR_TOUCH((char *)block + bytes - 1);
}

#endif
