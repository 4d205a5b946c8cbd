/* load_align.c -- alignments of 32 bytes to 2 MiB, with a live set and random replacement.
 *
 * Modes: small (alignments to 4 KiB, as vector code and direct I/O ask for them), wide (to 2 MiB).
 */
#include "load.h"

enum { SHIFT_MIN = 5, SHIFT_SMALL = 12, SHIFT_WIDE = 21 };

static const struct load_shape shape = {
    .name = "align",
    .modes = {{"small", 2000000, 1}, {"wide", 500000, 1}},
    .live = 1000,
    .min_size = 16,
    .max_size = 16 * 1024,
};

static void *make_aligned(struct worker *w, unsigned shift) {
    void *p = NULL;
    size_t alignment = (size_t)1 << shift, size = load_size(w);
    if (shift % 2 == 0 || shift > SHIFT_SMALL) {
        if (posix_memalign(&p, alignment, size) != 0)
            load_die("out of memory");
    } else {
        p = aligned_alloc(alignment, (size + alignment - 1) & ~(alignment - 1)); /* a multiple, as C11 wants it */
    }
    w->bad += ((uintptr_t)p & (alignment - 1)) != 0;
    return block_sign(w, p, size);
}

static void align(struct worker *w) {
    unsigned shifts = (load_mode_is("small") ? SHIFT_SMALL : SHIFT_WIDE) - SHIFT_MIN + 1;
    for (uint64_t i = 0; i < w->ops && w->live; i++) {
        void **slot = &w->slots[load_below(w, w->live)];
        block_clear(w, slot);
        *slot = make_aligned(w, SHIFT_MIN + (unsigned)load_below(w, shifts));
    }
    for (uint64_t i = 0; i < w->live; i++)
        block_clear(w, &w->slots[i]);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    return load_run(align, load.live / load.threads + 1);
}
