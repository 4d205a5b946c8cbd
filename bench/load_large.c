/* load_large.c -- buffers of 64 KiB to 32 MiB; one byte of each page is written, as a user would.
 *
 * An op is a MiB. Modes: same (one size in a loop, then the next, doubling), live (random sizes, random
 * replacement in a live set), sparse (as live, but nothing is written between the first and the last word).
 */
#include "load.h"

static const struct load_shape shape = {
    .name = "large",
    .modes = {{"same", 10000, 1}, {"live", 3000, 1}, {"sparse", 700000, 1}},
    .live = 32,
    .min_size = 64 * 1024,
    .max_size = 32 * 1024 * 1024,
};

static uint64_t share_bytes(const struct worker *w) { return w->ops << 20; }

static void large_same(struct worker *w) {
    unsigned steps = 1;
    for (size_t size = load.min_size; size * 2 <= load.max_size; size *= 2)
        steps++;
    for (unsigned i = 0; i < steps; i++) {
        size_t size = load.min_size << i;
        for (uint64_t bytes = 0; bytes < share_bytes(w) / steps; bytes += size) {
            void *p = block_make(w, size);
            block_touch(p, 0, size);
            block_drop(w, p);
        }
    }
}

static void large_live(struct worker *w) {
    bool touch = load_mode_is("live");
    for (uint64_t bytes = 0; bytes < share_bytes(w) && w->live;) {
        void **slot = &w->slots[load_below(w, w->live)];
        size_t size = load_size(w);
        block_clear(w, slot);
        *slot = block_make(w, size);
        if (touch)
            block_touch(*slot, 0, size);
        bytes += size;
    }
    for (uint64_t i = 0; i < w->live; i++)
        block_clear(w, &w->slots[i]);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    if (load.live < load.threads)
        load.live = load.threads;
    return load_run(load_mode_is("same") ? large_same : large_live, load.live / load.threads + 1);
}
