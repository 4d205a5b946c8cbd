/* slab/seal.c -- see `slab/seal.h`. */
#include "slab/seal.h"

#include <string.h>

#include "os/os.h"

struct seal_facts gr_seal;

#define PLACE(bytes, k) ((k)*VECTOR_BYTES < (bytes)-VECTOR_BYTES ? (k)*VECTOR_BYTES : (bytes)-VECTOR_BYTES)
#define PLACES(bytes)                                                                                                  \
    { PLACE(bytes, 1), PLACE(bytes, 2), PLACE(bytes, 3), PLACE(bytes, 4), PLACE(bytes, 5), PLACE(bytes, 6) }
GR_LINE const uint8_t gr_short_places[STRIDE_BYTES / 16 + 1][8] = {
    PLACES(32),  PLACES(32),  PLACES(32),  PLACES(48),  PLACES(64),  PLACES(80),  PLACES(96),  PLACES(112), PLACES(128),
    PLACES(144), PLACES(160), PLACES(176), PLACES(192), PLACES(208), PLACES(224), PLACES(240), PLACES(256),
};

static struct word booted, drawn;

/* Whoever comes first chooses. */
static void agree(struct word *w, uint64_t mine) {
    uint64_t none = 0;
    (void)word_cas_strong_relaxed(w, &none, mine);
}

void gr_seal_boot(void) {
    if (GR_LIKELY(word_load_acquire(&booted))) /* [acquire secret-born] */
        return;
    half_store_relaxed(&gr_seal.wide, gr_has_wide_vectors() != 0);
    agree(&gr_seal.add, os_secret() | 1);
    agree(&gr_seal.multiply, os_secret() | 1);
    agree(&drawn, os_secret() | 1);
    word_store_release(&booted, 1); /* [release secret-born] */
}

uint64_t gr_seal_random(void) {
    gr_seal_boot();
    uint64_t z = word_add_relaxed(&drawn, 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t gr_random_bits(uint64_t v, unsigned k) {
    if (bits_count(v) <= k)
        return v;
    uint64_t kept = 0, state = gr_seal_random() | 1;
    for (; k; k--) {
        unsigned turn = random_below(&state, 64);
        uint64_t turned = v >> turn | v << (64 - turn) % 64;
        uint64_t one = 1ull << (bits_lowest(turned) + turn) % 64;
        kept |= one;
        v &= ~one;
    }
    return kept;
}

/* ---- long blocks ---- */

enum { STRIP_BYTES = 512, PAGE_BYTES = 4096 };

GR_INLINE bool strip_is_zero(const void *at) {
    const four_words *v = at, *end = v + STRIP_BYTES / sizeof *v;
    four_words any = {0, 0, 0, 0};
    for (; v < end; v += 4)
        any |= (v[0] | v[1]) | (v[2] | v[3]);
    return !(any[0] | any[1] | any[2] | any[3]);
}

/* volatile: the compiler would call memset */
GR_INLINE void clear_strip(volatile void *at) {
    volatile four_words *v = at, *end = v + STRIP_BYTES / sizeof *v;
    for (; v < end; v += 4)
        v[0] = v[1] = v[2] = v[3] = (four_words){0, 0, 0, 0};
}

enum deed { LOOK, CLEAR, CLEAR_READING };

/* False: looked, and to the first strip that is not zero. The last strip may have been done in part before. */
GR_INLINE bool strips(void *from, size_t bytes, enum deed deed) {
    for (size_t at = 0; at < bytes; at += STRIP_BYTES) {
        char *strip = (char *)from + min_size(at, bytes - STRIP_BYTES);
        if (deed != CLEAR && strip_is_zero(strip))
            continue;
        if (deed == LOOK)
            return false;
        clear_strip(strip);
    }
    return true;
}

#define STRIPS(name, deed)                                                                                             \
    GR_WIDE_VECTORS static bool wide_##name(void *from, size_t bytes) { return strips(from, bytes, deed); }            \
    static bool name(void *from, size_t bytes) {                                                                       \
        return is_wide() ? wide_##name(from, bytes) : strips(from, bytes, deed);                                       \
    }

STRIPS(reads_zero, LOOK)
STRIPS(clear, CLEAR)
STRIPS(clear_reading, CLEAR_READING)

void gr_long_clear(void *block, size_t bytes) {
    if (bytes <= PAGE_BYTES)
        clear(block, bytes);
    else
        clear_reading(block, bytes);
}

bool gr_long_is_zero(const void *block, size_t bytes) {
    enum { WHOLE_ONE_IN = 8 };
    char *at = (char *)(uintptr_t)block;
    size_t tail = bytes / 8; /* whatever was asked for, its last byte is there: the class below is shorter by less */
    if (bytes <= WIDE_BYTES || gr_seal_random() % WHOLE_ONE_IN == 0)
        return reads_zero(at, bytes);
    return reads_zero(at, PAGE_BYTES) && reads_zero(at + bytes - tail, tail);
}

const void *gr_first_written(const void *block, size_t bytes) {
    const unsigned char *at = block;
    for (size_t i = 0; i < bytes; i++)
        if (at[i])
            return at + i;
    return NULL;
}
