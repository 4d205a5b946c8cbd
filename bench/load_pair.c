/* load_pair.c -- malloc and free at once: the shape that lives wholly in an allocator's fast path.
 *
 * Modes: small (64 bytes only), fixed (one size after another, doubling from min to max), mixed (log-uniform
 * sizes).
 */
#include "load.h"

static const struct load_shape shape = {
    .name = "pair",
    .modes = {{"small", 40000000, 1}, {"fixed", 20000000, 1}, {"mixed", 20000000, 1}},
    .min_size = 8,
    .max_size = 256 * 1024,
};

static void pair_of(struct worker *w, size_t size, uint64_t ops) {
    for (uint64_t i = 0; i < ops; i++)
        block_drop(w, block_make(w, size));
}

static void pair_small(struct worker *w) { pair_of(w, 64, w->ops); }

static void pair_fixed(struct worker *w) {
    unsigned steps = 1;
    for (size_t size = load.min_size; size * 2 <= load.max_size; size *= 2)
        steps++;
    for (unsigned i = 0; i < steps; i++)
        pair_of(w, load.min_size << i, w->ops / steps);
}

static void pair_mixed(struct worker *w) {
    for (uint64_t i = 0; i < w->ops; i++)
        block_drop(w, block_make(w, load_size(w)));
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    return load_run(load_mode_is("small") ? pair_small : load_mode_is("fixed") ? pair_fixed : pair_mixed, 0);
}
