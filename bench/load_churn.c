/* load_churn.c -- random replacement in a working set larger than the second-level cache.
 *
 * Each op frees the block of a random slot, whatever its size, and puts one of a random size there.
 * Modes: small (16 to 1024 bytes, the default), wide (the same number of bytes alive, in sizes to 64 KiB).
 */
#include "load.h"

static const struct load_shape shape = {
    .name = "churn",
    .modes = {{"small", 3000000, 1}, {"wide", 2000000, 1}},
    .live = 65536,
    .min_size = 16,
    .max_size = 1024,
};

static void churn(struct worker *w) {
    for (uint64_t i = 0; i < w->live; i++)
        w->slots[i] = block_make(w, load_size(w));
    for (uint64_t i = 0; i < w->ops && w->live; i++) {
        void **slot = &w->slots[load_below(w, w->live)];
        block_drop(w, *slot);
        *slot = block_make(w, load_size(w));
    }
    for (uint64_t i = 0; i < w->live; i++)
        block_clear(w, &w->slots[i]);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    if (load_mode_is("wide")) {
        load.live /= 16;
        load_set_sizes(load.min_size, load.max_size * 64);
    }
    return load_run(churn, load.live / load.threads + 1);
}
