/* central/depot.c -- see `central/depot.h`. */
#include "central/depot.h"

#include "central/bin.h"

enum {
    DEPOT_MOST = 128, /* magazines of a home */
    DEPOT_LEAST = 2,  /* of a home */
    TICK_MOST = 64,   /* magazines dissolved in one tick */
    DEPTH_BITS = 13,  /* of a magazine's depth: magazines; above, their blocks */
    DEPTH_MASK = (1 << DEPTH_BITS) - 1,
    BLOCKS_MOST = UINT32_MAX >> DEPTH_BITS,
};
_Static_assert(DEPOT_LEAST + DEPOT_MOST * HEADS * 5 / 4 + 1 < DEPTH_MASK, "one home may hold as many as all may");

/* Four classes of a home share a line: more homes rather than more lines. */
GR_SPARSE static struct {
    /* any thread writes */
    GR_LINE struct head {
        struct stack full;
        struct half low; /* least depth since the last tick */
    } of_class[CLASSES + 1];
} heads[HEADS];

GR_SPARSE static struct {
    /* any thread writes, seldom */
    struct half used;   /* a bit for each home that was ever pushed to */
    struct half bound;  /* magazines beyond DEPOT_LEAST that all homes together may hold */
    struct half regret; /* pushes refused since the last tick and not missed since */
} learned[CLASSES + 1];

static struct half last_tick;

static uint32_t used_of(unsigned class) { return half_load_relaxed(&learned[class].used); }

static struct half *link_of(void *unused, uint32_t id) {
    (void)unused;
    return &gr_magazine_at(id)->next;
}

/* What the last pusher saw: magazines, and above DEPTH_BITS their blocks. */
static uint32_t seen_at(unsigned head, unsigned class) {
    uint32_t top = stack_top(word_load_acquire(&heads[head].of_class[class].full.head)); /* [acquire exchange] */
    return top ? half_load_relaxed(&gr_magazine_at(top)->depth) : 0;
}

static uint32_t depth_of(unsigned head, unsigned class) { return seen_at(head, class) & DEPTH_MASK; }

uint32_t gr_depot_depth(unsigned class) {
    uint32_t sum = 0;
    FOR_HEADS (head, used_of(class), 0)
        sum += depth_of(head, class);
    return sum;
}

GR_COLD uint32_t gr_depot_blocks(unsigned class) {
    uint32_t sum = 0;
    FOR_HEADS (head, used_of(class), 0)
        sum += seen_at(head, class) >> DEPTH_BITS;
    return sum;
}

/* The most that the class's slabs hold. */
static uint32_t most_of(unsigned class) {
    const struct size_class *k = &gr_classes[class];
    size_t blocks = gr_bin_granules(class) / k->granules * k->capacity;
    return (uint32_t)min_size(blocks / k->rounds, DEPOT_MOST * HEADS);
}

/* A home's part of the bound, rounded up, and two at least. */
static uint32_t bound_of_home(unsigned class) {
    uint32_t used = used_of(class), bound = DEPOT_LEAST + half_load_relaxed(&learned[class].bound);
    if (!(used & (used - 1))) /* no other home */
        return bound;
    uint32_t homes = bits_count(used);
    return (uint32_t)max_size((bound + homes - 1) / homes, DEPOT_LEAST);
}

bool gr_depot_push(unsigned home, unsigned class, struct magazine *m) {
    unsigned head = home % HEADS;
    if (gr_bin_is_sparse(class))
        return false;
    uint32_t seen = seen_at(head, class), depth = seen & DEPTH_MASK;
    if (depth >= bound_of_home(class)) {
        half_store_relaxed(&learned[class].regret, half_load_relaxed(&learned[class].regret) + 1);
        return false;
    }
    uint32_t blocks = (uint32_t)min_size((seen >> DEPTH_BITS) + m->count, BLOCKS_MOST);
    half_store_relaxed(&m->depth, blocks << DEPTH_BITS | (depth + 1));
    spread_mark(&learned[class].used, head);
    stack_push(&heads[head].of_class[class].full, m->id, link_of, NULL); /* [release exchange] */
    return true;
}

/* A pop missed: had an earlier push not been refused, it would not have. */
static void missed(unsigned class) {
    uint32_t regret = half_load_relaxed(&learned[class].regret), bound = half_load_relaxed(&learned[class].bound);
    if (!regret)
        return;
    half_store_relaxed(&learned[class].regret, regret - 1);
    if (bound < most_of(class))
        half_store_relaxed(&learned[class].bound, bound + 1 + bound / 4);
}

GR_INLINE struct magazine *pop_from(unsigned head, unsigned class) {
    uint32_t id = stack_pop(&heads[head].of_class[class].full, link_of, NULL); /* [acquire exchange] */
    if (!id)
        return NULL;
    struct magazine *m = gr_magazine_at(id);
    uint32_t left = (half_load_relaxed(&m->depth) & DEPTH_MASK) - 1;
    if (left < half_load_relaxed(&heads[head].of_class[class].low))
        half_store_relaxed(&heads[head].of_class[class].low, left);
    return m;
}

struct magazine *gr_depot_pop(unsigned home, unsigned class) {
    struct magazine *m;
    FOR_HEADS (head, used_of(class), home)
        if ((m = pop_from(head, class)) != NULL)
            return m;
    missed(class);
    return NULL;
}

static void dissolve_some(unsigned head, unsigned class, uint32_t magazines) {
    struct magazine *m;
    while (magazines-- && (m = pop_from(head, class))) {
        gr_bin_return(class, m->slot + 1, m->count, "free");
        gr_magazine_free(head, m);
    }
}

GR_COLD uint64_t gr_depot_activity(unsigned class) {
    uint64_t sum = 0;
    FOR_HEADS (head, used_of(class), 0)
        sum += word_load_relaxed(
            &heads[head].of_class[class].full.head); /* each change raises it: the tag is above the index */
    return sum;
}

GR_COLD void gr_depot_dissolve(unsigned class) {
    FOR_HEADS (head, used_of(class), 0)
        dissolve_some(head, class, UINT32_MAX);
}

GR_COLD void gr_depot_drain(unsigned class, bool pages) {
    gr_depot_dissolve(class);
    gr_bin_trim(class, UINT32_MAX, pages); /* one side, */
    gr_bin_trim(class, UINT32_MAX, pages); /* then the other */
}

/* Dissolves half of what lay unused in all stacks of a class, the odd ones rounded up and down in turn; how many that was. */
static uint32_t age(unsigned class, uint32_t first, uint32_t *done) {
    uint32_t unused = 0, spare = 0;
    FOR_HEADS (head, used_of(class), first) {
        unused += half_load_relaxed(&heads[head].of_class[class].low);
        uint32_t some = (unused + 1) / 2 - spare;
        if (*done < TICK_MOST) {
            dissolve_some(head, class, some);
            *done += some;
        }
        half_store_relaxed(&heads[head].of_class[class].low, depth_of(head, class));
        spare += some;
    }
    return spare;
}

void gr_depots_tick(uint32_t now) {
    uint32_t last = half_load_relaxed(&last_tick), done = 0;
    if (last == now || !half_cas_strong_relaxed(&last_tick, &last, now))
        return;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        uint32_t bound = half_load_relaxed(&learned[class].bound), spare = age(class, now, &done);
        if (bound)
            half_store_relaxed(&learned[class].bound, bound > spare ? bound - spare : 0);
        if (half_load_relaxed(&learned[class].regret))
            half_store_relaxed(&learned[class].regret, 0);
        gr_bin_tick(class);
    }
}
