/* slab/seal.c -- see `slab/seal.h`. */
#include "slab/seal.h"

#include <string.h>

#include "os/os.h"

struct seal_secret gr_seal_secret;

#define PLACE(bytes, k) ((k)*16 < (bytes)-16 ? (k)*16 : (bytes)-16)
#define PLACES(bytes)                                                                                                  \
    { PLACE(bytes, 1), PLACE(bytes, 2), PLACE(bytes, 3), PLACE(bytes, 4), PLACE(bytes, 5), PLACE(bytes, 6) }
GR_LINE const uint8_t gr_short_places[STRIDE_BYTES / 16 + 1][8] = {
    PLACES(16), PLACES(16), PLACES(32), PLACES(48), PLACES(64), PLACES(80), PLACES(96), PLACES(112), PLACES(128),
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
    agree(&gr_seal_secret.add, os_secret() | 1);
    agree(&gr_seal_secret.multiply, os_secret() | 1);
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

typedef uint64_t four_words __attribute__((vector_size(32)));

/* To its first strip that is not zero, and no further. Of whole strips. */
GR_INLINE bool strips_are_zero(const void *from, size_t bytes) {
    enum { STRIP_VECTORS = 16 };
    const four_words *v = from, *end = (const four_words *)((const char *)from + bytes);
    for (; v < end; v += STRIP_VECTORS) {
        four_words any = {0, 0, 0, 0};
        for (unsigned i = 0; i < STRIP_VECTORS; i += 4)
            any |= (v[i] | v[i + 1]) | (v[i + 2] | v[i + 3]);
        if (any[0] | any[1] | any[2] | any[3])
            return false;
    }
    return true;
}

GR_WIDE_VECTORS static bool wide_strips_are_zero(const void *from, size_t bytes) {
    return strips_are_zero(from, bytes);
}

/* Asked of the processor once. */
static bool has_wide_vectors(void) {
    enum { NO = 1, YES = 2 };
    static struct half known;
    uint32_t kind = half_load_relaxed(&known);
    if (GR_UNLIKELY(!kind))
        half_store_relaxed(&known, kind = gr_has_wide_vectors() ? YES : NO);
    return kind == YES;
}

/* Blocks above WIDE_BYTES, their pages, and eighths of them are whole strips. */
static bool reads_zero(const void *from, size_t bytes) {
    return has_wide_vectors() ? wide_strips_are_zero(from, bytes) : strips_are_zero(from, bytes);
}

void gr_wide_clear(void *block, size_t bytes) {
    size_t page = min_size(os_page_bytes(), bytes);
    for (char *at = block, *end = at + bytes; at < end; at += page) {
        page = min_size(page, (size_t)(end - at));
        if (!reads_zero(at, page))
            memset(at, 0, page);
    }
}

bool gr_wide_is_zero(const void *block, size_t bytes) {
    enum { WHOLE_ONE_IN = 8, HEAD = 4096 };
    size_t tail = bytes / 8; /* whatever was asked for, its last byte is there: the class below is shorter by less */
    if (gr_seal_random() % WHOLE_ONE_IN == 0)
        return reads_zero(block, bytes);
    return reads_zero(block, HEAD) && reads_zero((const char *)block + bytes - tail, tail);
}

const void *gr_first_written(const void *block, size_t bytes) {
    const unsigned char *at = block;
    for (size_t i = 0; i < bytes; i++)
        if (at[i])
            return at + i;
    return NULL;
}
