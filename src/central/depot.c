/* central/depot.c -- see `central/depot.h`. */
#include "central/depot.h"

enum { DEPOT_BYTES = 4 << 20, DEPOT_MOST = 128, DEPOT_LEAST = 4 };

static struct { GR_LINE struct stack full; } depots[CLASSES + 1];

static struct half *link_of(void *unused, uint32_t id) {
    (void)unused;
    return &gr_magazine_at(id)->next;
}

uint32_t gr_depot_depth(unsigned class) {
    uint32_t top = stack_top(word_load_acquire(&depots[class].full.head)); /* [acquire exchange] */
    return top ? half_load_relaxed(&gr_magazine_at(top)->depth) : 0;
}

static uint32_t bound_of(unsigned class) {
    const struct size_class *k = &gr_classes[class];
    return (uint32_t)min_size(max_size(DEPOT_BYTES / ((size_t)k->rounds * k->bytes), DEPOT_LEAST), DEPOT_MOST);
}

bool gr_depot_push(unsigned class, struct magazine *m) {
    uint32_t depth = gr_depot_depth(class);
    if (depth >= bound_of(class))
        return false;
    half_store_relaxed(&m->depth, depth + 1);
    stack_push(&depots[class].full, m->id, link_of, NULL); /* [release exchange] */
    return true;
}

struct magazine *gr_depot_pop(unsigned class) {
    uint32_t id = stack_pop(&depots[class].full, link_of, NULL); /* [acquire exchange] */
    return id ? gr_magazine_at(id) : NULL;
}
