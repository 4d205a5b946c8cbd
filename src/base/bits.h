/* base/bits.h -- words as sets of bits, sizes as powers of two. Pure functions. */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* Position of the lowest, highest set bit; v is not 0. */
GR_INLINE unsigned bits_lowest(uint64_t v) { return (unsigned)__builtin_ctzll(v); }
GR_INLINE unsigned bits_highest(uint64_t v) { return 63u - (unsigned)__builtin_clzll(v); }
GR_INLINE unsigned bits_count(uint64_t v) {
#if defined(__POPCNT__) || defined(__aarch64__)
    return (unsigned)__builtin_popcountll(v);
#else /* the builtin would be a call into the compiler's library, and a table in memory */
    v -= v >> 1 & 0x5555555555555555ull;
    v = (v & 0x3333333333333333ull) + (v >> 2 & 0x3333333333333333ull);
    return (unsigned)(((v + (v >> 4)) & 0x0f0f0f0f0f0f0f0full) * 0x0101010101010101ull >> 56);
#endif
}

/* n ones from bit `from` on; from + n <= 64. */
GR_INLINE uint64_t bits_span(unsigned from, unsigned n) { return n >= 64 ? ~0ull : ((1ull << n) - 1) << from; }

/* The lowest k of the bits set in v. */
GR_INLINE uint64_t bits_lowest_k(uint64_t v, unsigned k) {
    if (bits_count(v) <= k)
        return v;
    /* A new slab's bits come in one row. It ends within the word: v has more than k bits. */
    uint64_t row = bits_span(bits_lowest(v), k);
    if ((v & row) == row)
        return row;
    uint64_t kept = 0;
    for (; k; k--) {
        kept |= v & (0 - v);
        v &= v - 1;
    }
    return kept;
}

/* Where the row of equal bytes that begins at `from` ends, before n. */
GR_INLINE size_t bytes_row_end(const uint8_t *at, size_t from, size_t n) {
    size_t to = from + 1;
    while (to < n && at[to] == at[from])
        to++;
    return to;
}

GR_INLINE bool is_power_of_two(size_t n) { return n && !(n & (n - 1)); }

/* Rounds up to a multiple of `unit`, a power of two; the caller rules out overflow. */
GR_INLINE size_t round_up(size_t n, size_t unit) { return (n + unit - 1) & ~(unit - 1); }

GR_INLINE size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
GR_INLINE size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

#endif
