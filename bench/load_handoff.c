/* load_handoff.c -- producers allocate, consumers free.
 *
 * Blocks travel in parcels through lanes, one lane for each consumer. A lane is a bounded queue under a
 * mutex; one lock for a parcel of 64 blocks keeps the harness out of the figures, and nobody spins, so that
 * CPU seconds are the allocator's.
 *
 * Modes: 1to1 (pairs), 1toN (one producer), Nto1 (one consumer), NtoN (each producer to every consumer in
 * turn), ring (a ring of stages: each thread frees what the one before it made, and makes for the next).
 */
#include "load.h"

enum {
    PARCEL_BLOCKS = 64,
    LANE_PARCELS = 64,
    WAKE_PARCELS = 8, /* sleepers wake for that many, not for each: fewer switches, the same work */
};

struct parcel {
    void *block[PARCEL_BLOCKS];
    unsigned blocks;
};

struct lane {
    pthread_mutex_t mutex;
    pthread_cond_t not_empty, not_full;
    /* under the mutex */
    unsigned first, parcels;
    unsigned open; /* producers that may still send */
    bool waiting;  /* the consumer sleeps */
    _Alignas(LOAD_LINE_BYTES) struct parcel parcel[LANE_PARCELS];
};

static const struct load_shape shape = {
    .name = "handoff",
    .modes =
        {{"1to1", 8000000, 2}, {"1toN", 8000000, 3}, {"Nto1", 8000000, 3}, {"NtoN", 8000000, 4}, {"ring", 8000000, 2}},
    .min_size = 16,
    .max_size = 512,
};

static struct {
    unsigned producers, consumers, wake;
    struct lane *lanes;
} plan;

static void lane_send(struct lane *lane, const struct parcel *parcel) {
    pthread_mutex_lock(&lane->mutex);
    while (lane->parcels == LANE_PARCELS)
        pthread_cond_wait(&lane->not_full, &lane->mutex);
    lane->parcel[(lane->first + lane->parcels++) % LANE_PARCELS] = *parcel;
    if (lane->waiting && lane->parcels >= plan.wake)
        pthread_cond_signal(&lane->not_empty);
    pthread_mutex_unlock(&lane->mutex);
}

static void lane_close(struct lane *lane) {
    pthread_mutex_lock(&lane->mutex);
    lane->open--;
    pthread_cond_signal(&lane->not_empty);
    pthread_mutex_unlock(&lane->mutex);
}

/* False when the lane is empty and every producer has closed it. */
static bool lane_receive(struct lane *lane, struct parcel *parcel) {
    pthread_mutex_lock(&lane->mutex);
    lane->waiting = true;
    while (lane->parcels == 0 && lane->open)
        pthread_cond_wait(&lane->not_empty, &lane->mutex);
    lane->waiting = false;
    bool got = lane->parcels > 0;
    if (got) {
        *parcel = lane->parcel[lane->first];
        lane->first = (lane->first + 1) % LANE_PARCELS;
        if (--lane->parcels == LANE_PARCELS - plan.wake)
            pthread_cond_broadcast(&lane->not_full);
    }
    pthread_mutex_unlock(&lane->mutex);
    return got;
}

static void parcel_fill(struct worker *w, struct parcel *parcel, uint64_t blocks) {
    parcel->blocks = (unsigned)(blocks < PARCEL_BLOCKS ? blocks : PARCEL_BLOCKS);
    for (unsigned i = 0; i < parcel->blocks; i++)
        parcel->block[i] = block_make(w, load_size(w));
}

static void parcel_drop(struct worker *w, const struct parcel *parcel) {
    for (unsigned i = 0; i < parcel->blocks; i++)
        block_drop(w, parcel->block[i]);
}

static void produce(struct worker *w) {
    struct parcel parcel;
    bool fixed = load_mode_is("1to1");
    uint64_t left = load.ops / plan.producers + (w->id < load.ops % plan.producers);
    for (unsigned to = w->id % plan.consumers; left > 0; left -= parcel.blocks) {
        parcel_fill(w, &parcel, left);
        lane_send(&plan.lanes[to], &parcel);
        if (!fixed && ++to == plan.consumers)
            to = 0;
    }
    for (unsigned i = 0; i < plan.consumers; i++)
        lane_close(&plan.lanes[i]);
}

static void consume(struct worker *w) {
    struct parcel parcel;
    while (lane_receive(&plan.lanes[w->id - plan.producers], &parcel))
        parcel_drop(w, &parcel);
}

static void handoff(struct worker *w) {
    if (w->id < plan.producers)
        produce(w);
    else
        consume(w);
}

/* Every stage goes the same number of rounds, so each parcel that is sent is received. */
static void ring(struct worker *w) {
    struct parcel parcel;
    uint64_t rounds = load.ops / load.threads / PARCEL_BLOCKS + 1;
    for (uint64_t i = 0; i < rounds; i++) {
        parcel_fill(w, &parcel, PARCEL_BLOCKS);
        lane_send(&plan.lanes[(w->id + 1) % load.threads], &parcel);
        if (!lane_receive(&plan.lanes[w->id], &parcel))
            load_die("the ring is broken");
        parcel_drop(w, &parcel);
    }
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    bool in_ring = load_mode_is("ring");
    plan.producers = load_mode_is("1toN") ? 1 : load_mode_is("Nto1") ? load.threads - 1 : load.threads / 2;
    if (load_mode_is("1to1"))
        load.threads = 2 * plan.producers;
    if (in_ring)
        plan.producers = 0;
    plan.consumers = load.threads - plan.producers;
    plan.wake = in_ring ? 1 : WAKE_PARCELS;
    plan.lanes = load_pages(plan.consumers * sizeof *plan.lanes);
    for (unsigned i = 0; i < plan.consumers; i++) {
        pthread_mutex_init(&plan.lanes[i].mutex, NULL);
        pthread_cond_init(&plan.lanes[i].not_empty, NULL);
        pthread_cond_init(&plan.lanes[i].not_full, NULL);
        plan.lanes[i].open = in_ring ? 1 : plan.producers;
    }
    return load_run(in_ring ? ring : handoff, 0);
}
