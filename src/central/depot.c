/* central/depot.c -- see `central/depot.h`. */
#include "central/depot.h"

#include "central/bin.h"

enum {
    DEPOT_MOST = 128, /* magazines */
    DEPOT_LEAST = 2,
    TICK_MOST = 64, /* magazines dissolved in one tick */
};

GR_SPARSE static struct {
    /* any thread writes */
    GR_LINE struct stack full;
    struct half low;    /* least depth since the last tick */
    struct half bound;  /* magazines beyond DEPOT_LEAST that it may hold */
    struct half regret; /* pushes refused since the last tick and not missed since */
} depots[CLASSES + 1];

static struct half last_tick;

static struct half *link_of(void *unused, uint32_t id) {
    (void)unused;
    return &gr_magazine_at(id)->next;
}

uint32_t gr_depot_depth(unsigned class) {
    uint32_t top = stack_top(word_load_acquire(&depots[class].full.head)); /* [acquire exchange] */
    return top ? half_load_relaxed(&gr_magazine_at(top)->depth) : 0;
}

/* The most that the class's slabs hold. */
static uint32_t most_of(unsigned class) {
    const struct size_class *k = &gr_classes[class];
    size_t blocks = gr_bin_granules(class) / k->granules * k->capacity;
    return (uint32_t)min_size(blocks / k->rounds, DEPOT_MOST);
}

bool gr_depot_push(unsigned class, struct magazine *m) {
    if (gr_bin_is_sparse(class))
        return false;
    uint32_t depth = gr_depot_depth(class);
    if (depth >= DEPOT_LEAST + half_load_relaxed(&depots[class].bound)) {
        half_store_relaxed(&depots[class].regret, half_load_relaxed(&depots[class].regret) + 1);
        return false;
    }
    half_store_relaxed(&m->depth, depth + 1);
    stack_push(&depots[class].full, m->id, link_of, NULL); /* [release exchange] */
    return true;
}

/* A pop missed: had an earlier push not been refused, it would not have. */
static void missed(unsigned class) {
    uint32_t regret = half_load_relaxed(&depots[class].regret), bound = half_load_relaxed(&depots[class].bound);
    if (!regret)
        return;
    half_store_relaxed(&depots[class].regret, regret - 1);
    if (bound < most_of(class))
        half_store_relaxed(&depots[class].bound, bound + 1 + bound / 4);
}

struct magazine *gr_depot_pop(unsigned class) {
    uint32_t id = stack_pop(&depots[class].full, link_of, NULL); /* [acquire exchange] */
    if (!id) {
        missed(class);
        return NULL;
    }
    struct magazine *m = gr_magazine_at(id);
    uint32_t left = half_load_relaxed(&m->depth) - 1;
    if (left < half_load_relaxed(&depots[class].low))
        half_store_relaxed(&depots[class].low, left);
    return m;
}

static void dissolve_some(unsigned class, uint32_t magazines) {
    struct magazine *m;
    while (magazines-- && (m = gr_depot_pop(class))) {
        gr_bin_return(class, m->slot + 1, m->count, "free");
        gr_magazine_free(m);
    }
}

uint64_t gr_depot_activity(unsigned class) { return word_load_relaxed(&depots[class].full.head); }

void gr_depot_dissolve(unsigned class) { dissolve_some(class, UINT32_MAX); }

void gr_depot_drain(unsigned class, bool pages) {
    gr_depot_dissolve(class);
    gr_bin_trim(class, UINT32_MAX, pages); /* one side, */
    gr_bin_trim(class, UINT32_MAX, pages); /* then the other */
}

void gr_depots_tick(uint32_t now) {
    uint32_t last = half_load_relaxed(&last_tick), done = 0;
    if (last == now || !half_cas_strong_relaxed(&last_tick, &last, now))
        return;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        uint32_t spare = (half_load_relaxed(&depots[class].low) + 1) / 2,
                 bound = half_load_relaxed(&depots[class].bound);
        if (spare && done < TICK_MOST) {
            dissolve_some(class, spare);
            done += spare;
        }
        half_store_relaxed(&depots[class].bound, bound > spare ? bound - spare : 0);
        half_store_relaxed(&depots[class].regret, 0);
        half_store_relaxed(&depots[class].low, gr_depot_depth(class));
        gr_bin_tick(class);
    }
}
