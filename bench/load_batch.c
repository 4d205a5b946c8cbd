/* load_batch.c -- allocate N blocks, then free them: in the order they came, in reverse, or at random.
 *
 * Each thread has batches of `live` blocks of its own. The random order is one permutation, drawn before the
 * first batch.
 */
#include "load.h"

static const struct load_shape shape = {
    .name = "batch",
    .modes = {{"order", 12000000, 1}, {"reverse", 12000000, 1}, {"random", 10000000, 1}},
    .live = 1000,
    .min_size = 16,
    .max_size = 512,
};

/* Fills order with the places 0 .. n - 1 in the sequence in which they are freed. */
static void draw_order(struct worker *w, uint64_t *order, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        order[i] = load_mode_is("reverse") ? n - 1 - i : i;
    if (!load_mode_is("random"))
        return;
    for (uint64_t i = n - 1; i > 0; i--) {
        uint64_t other = load_below(w, i + 1), was = order[i];
        order[i] = order[other];
        order[other] = was;
    }
}

static void batch(struct worker *w) {
    uint64_t n = load.live;
    void **block = w->slots;
    uint64_t *order = (uint64_t *)(w->slots + n);
    draw_order(w, order, n);
    for (uint64_t done = 0; done < w->ops; done += n) {
        for (uint64_t i = 0; i < n; i++)
            block[i] = block_make(w, load_size(w));
        for (uint64_t i = 0; i < n; i++)
            block_drop(w, block[order[i]]);
    }
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    return load_run(batch, 2 * load.live);
}
