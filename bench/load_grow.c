/* load_grow.c -- blocks that grow, and zeroed blocks.
 *
 * An op is a MiB that is grown to or asked for, but a block in zero_small.
 * Modes: factor (realloc from min to max, half as much again each time), append (realloc by pieces of 16
 * bytes to 64 KiB, as a string or a log buffer grows), zero_small (calloc of 16 to 1024 bytes, from memory
 * that was dirty before), zero_large (calloc of 1 to 64 MiB, untouched), zero_touch (the same, one byte of
 * each page read and written).
 */
#include "load.h"

enum { SMALL_BLOCKS = 64, SMALL_MAX = 1024, PIECE_MIN = 16, PIECE_MAX = 64 * 1024 };

static const size_t large_min = 1024 * 1024;

static const struct load_shape shape = {
    .name = "grow",
    .modes = {{"factor", 1000, 1},
              {"append", 700, 1},
              {"zero_small", 10000000, 1},
              {"zero_large", 60000, 1},
              {"zero_touch", 1200, 1}},
    .min_size = 16,
    .max_size = 64 * 1024 * 1024,
};

/* One realloc of a signed block. What was there must still be: the first word and the old last one tell. */
static void *resize(struct worker *w, void *p, size_t was, size_t size) {
    uint64_t tail = block_load((char *)p + was - 8);
    block_check(w, p);
    p = realloc(p, size);
    if (!p)
        load_die("out of memory");
    w->bad += block_load(p) != LOAD_WIPED || block_load((char *)p + was - 8) != tail;
    block_touch(p, (was + LOAD_PAGE_BYTES - 1) / LOAD_PAGE_BYTES * LOAD_PAGE_BYTES, size);
    return block_sign(w, p, size);
}

/* From min to max in steps of half as much again, or of random pieces; as often as the share of MiB allows.
 */
static void grow(struct worker *w) {
    bool by_factor = load_mode_is("factor");
    for (uint64_t bytes = 0; bytes < w->ops << 20; bytes += load.max_size) {
        size_t size = load.min_size;
        void *p = block_make(w, size);
        while (size < load.max_size) {
            size_t next = size + (by_factor ? size / 2 : load_size(w));
            next = next < load.max_size ? next : load.max_size;
            p = resize(w, p, size, next);
            size = next;
        }
        block_drop(w, p);
    }
}

static void expect_zero(struct worker *w, const void *p, size_t size) {
    uint64_t sum =
        block_load(p) | block_load((const char *)p + size - 8) | block_load((const char *)p + size / 2 / 8 * 8);
    w->bad += sum != 0;
}

static void zero_small(struct worker *w) {
    void *block[SMALL_BLOCKS];
    for (uint64_t done = 0; done < w->ops; done += SMALL_BLOCKS) {
        for (unsigned i = 0; i < SMALL_BLOCKS; i++) {
            size_t size = load_size(w);
            block[i] = calloc(1, size);
            if (block[i]) {
                expect_zero(w, block[i], size);
                memset((char *)block[i] + size / 2 / 8 * 8, 0xa5, 8);
            }
            block_sign(w, block[i], size);
        }
        for (unsigned i = 0; i < SMALL_BLOCKS; i++)
            block_drop(w, block[i]);
    }
}

/* The sum of bytes, one of each page, which are dirtied. */
static unsigned touch_and_sum(void *p, size_t size) {
    unsigned sum = 0;
    for (size_t i = 0; i < size; i += LOAD_PAGE_BYTES) {
        volatile unsigned char *byte = (unsigned char *)p + i;
        sum |= *byte;
        *byte = 0xa5;
    }
    return sum;
}

static void zero_large(struct worker *w) {
    bool touch = load_mode_is("zero_touch");
    for (uint64_t bytes = 0; bytes < w->ops << 20;) {
        size_t size = load_size(w);
        void *p = calloc(size / 16, 16);
        if (!p)
            load_die("out of memory");
        if (touch)
            w->bad += touch_and_sum(p, size / 16 * 16) != 0;
        w->made += block_sum(size);
        w->dropped += block_sum(size);
        free(p);
        bytes += size;
    }
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    if (load_mode_is("append"))
        load_set_sizes(PIECE_MIN, PIECE_MAX);
    else if (load_mode_is("zero_small"))
        load_set_sizes(load.min_size, SMALL_MAX);
    else
        load_set_sizes(large_min, load.max_size);
    bool growing = load_mode_is("factor") || load_mode_is("append");
    return load_run(growing ? grow : load_mode_is("zero_small") ? zero_small : zero_large, 0);
}
