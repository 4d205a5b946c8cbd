/* load_inherit.c -- churn whose threads die and leave their blocks to newly born ones, as in a server that
 * runs a thread per request over data that outlives it.
 *
 * Each worker is the head of a line of threads, one alive at a time. A thread of the line replaces random
 * blocks of the set it inherits and ends; then the next is born. The workers themselves only wait. Modes:
 * short (1000 ops in a life), long (20000).
 */
#include "load.h"

static const struct load_shape shape = {
    .name = "inherit",
    .modes = {{"short", 4000000, 1}, {"long", 6000000, 1}},
    .live = 16000,
    .min_size = 10,
    .max_size = 500,
};

static uint64_t ops_per_life(void) { return load_mode_is("short") ? 1000 : 20000; }

static void *live_once(void *arg) {
    struct worker *w = arg;
    uint64_t ops = w->ops < ops_per_life() ? w->ops : ops_per_life();
    for (uint64_t i = 0; i < ops; i++) {
        void **slot = &w->slots[load_below(w, w->live)];
        if (*slot)
            block_drop(w, *slot);
        *slot = block_make(w, load_size(w));
    }
    w->ops -= ops;
    return NULL;
}

static void inherit(struct worker *w) {
    while (w->ops > 0 && w->live > 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, live_once, w) != 0)
            load_die("cannot start a thread");
        pthread_join(thread, NULL);
    }
    for (uint64_t i = 0; i < w->live; i++)
        block_clear(w, &w->slots[i]);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    return load_run(inherit, load.live / load.threads + 1);
}
