/* central/magazine.c -- see `central/magazine.h`. */
#include "central/magazine.h"

#include "base/check.h"

GR_SPARSE static struct ref chunks[MAGAZINE_KINDS][META_CHUNKS];
/* A line for each home: any thread writes. */
GR_SPARSE static struct { GR_LINE struct stack of_kind[MAGAZINE_KINDS]; } unused[HEADS];
static struct meta_pool pools[MAGAZINE_KINDS] = {
    META_POOL(128, chunks[0], &unused[0].of_kind[0], sizeof *unused),
    META_POOL(192, chunks[1], &unused[0].of_kind[1], sizeof *unused),
    META_POOL(576, chunks[2], &unused[0].of_kind[2], sizeof *unused),
    META_POOL(2048, chunks[3], &unused[0].of_kind[3], sizeof *unused),
};

/* Rounds of a kind: slots less the bottom and the full mark. */
static unsigned kind_rounds(unsigned kind) {
    return (pools[kind].record_bytes - MAGAZINE_HEAD) / (unsigned)sizeof(void *) - 2;
}

/* An id is a number in a kind's pool, and the kind. */
struct magazine *gr_magazine_at(uint32_t id) {
    return meta_at(&pools[id & 3], id >> 2);
}

unsigned gr_magazine_kind(unsigned rounds) {
    unsigned kind = 0;
    while (kind_rounds(kind) < rounds)
        kind++;
    ASSERT(kind < MAGAZINE_KINDS);
    return kind;
}

struct magazine *gr_magazine_new(unsigned home, unsigned rounds) {
    unsigned kind = gr_magazine_kind(rounds);
    uint32_t index = gr_meta_take(&pools[kind], home);
    if (!index || index > STACK_INDEX_MASK >> 2)
        return NULL;
    struct magazine *m = meta_at(&pools[kind], index);
    m->id = index << 2 | kind;
    gr_magazine_renew(m, rounds);
    return m;
}

void gr_magazine_renew(struct magazine *m, unsigned rounds) {
    m->slot[m->rounds + 1] = NULL; /* it may hold more than before: no mark must stand among its rounds */
    m->rounds = (uint16_t)rounds;
    m->count = 0;
    m->slot[0] = NULL;
    m->slot[rounds + 1] = MAGAZINE_FULL;
}

void gr_magazine_free(unsigned home, struct magazine *m) { gr_meta_give(&pools[m->id & 3], home, m->id >> 2); }
