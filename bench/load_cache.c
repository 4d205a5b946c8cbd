/* load_cache.c -- a large map of values of variable size, with replacement and expiry: the live bytes stay
 * the same and the sizes shift.
 *
 * The map has shards, each under its own mutex; any thread sets any key, so most values are freed by another
 * thread than made them. A shard holds a ring of its values, oldest first, and expires them until it is
 * within its share of the budget. Over the run the sizes move in four phases, each with larger values: what
 * was freed by one phase is what the next has to live in.
 */
#include "load.h"

enum { SHARDS = 64, PHASES = 4, VALUES_PER_KIB = 32 };

static const struct load_shape shape = {
    .name = "cache",
    .modes = {{"shift", 1200000, 1}, {"steady", 1500000, 1}},
    .live = 48 * 1024, /* KiB of values */
    .min_size = 64,
    .max_size = 1024,
};

/* An entry's place in the ring is its age; a replaced entry leaves a NULL behind. */
struct shard {
    pthread_mutex_t mutex;
    uint64_t bytes, budget;
    uint64_t first, count, capacity; /* of the ring */
    void **ring;
    _Alignas(LOAD_LINE_BYTES) char end[LOAD_LINE_BYTES];
};

static struct shard *shards;
static uint32_t phase_sizes[PHASES][LOAD_SIZES];

/* Phase p has sizes of min << p to max << p; steady has phase 0 for ever. */
static void draw_phases(void) {
    for (unsigned p = 0; p < PHASES; p++) {
        unsigned shift = load_mode_is("steady") ? 0 : p;
        load_set_sizes(load.min_size << shift, load.max_size << shift);
        memcpy(phase_sizes[p], load.sizes, sizeof phase_sizes[p]);
    }
}

static void shard_remove_locked(struct worker *w, struct shard *s, void **entry) {
    if (!*entry)
        return;
    s->bytes -= block_check(w, *entry);
    free(*entry);
    *entry = NULL;
}

static void shard_expire_locked(struct worker *w, struct shard *s) {
    shard_remove_locked(w, s, &s->ring[s->first]);
    s->first = s->first + 1 == s->capacity ? 0 : s->first + 1;
    s->count--;
}

static void shard_set_locked(struct worker *w, struct shard *s, void *value, size_t size, uint64_t victim) {
    if (s->count > 0 && victim % 4 == 0) /* the key was there already */
        shard_remove_locked(w, s, &s->ring[(s->first + victim % s->count) % s->capacity]);
    while (s->count > 0 && (s->bytes + size > s->budget || s->count == s->capacity))
        shard_expire_locked(w, s);
    s->ring[(s->first + s->count++) % s->capacity] = value;
    s->bytes += size;
}

static void cache(struct worker *w) {
    for (uint64_t i = 0; i < w->ops; i++) {
        const uint32_t *sizes = phase_sizes[i * PHASES / w->ops];
        size_t size = sizes[(load_rand(w) >> 20) % LOAD_SIZES];
        uint64_t key = load_rand(w) >> 16;
        struct shard *s = &shards[key % SHARDS];
        void *value = block_make(w, size);
        pthread_mutex_lock(&s->mutex);
        shard_set_locked(w, s, value, size, key / SHARDS);
        pthread_mutex_unlock(&s->mutex);
    }
    pthread_barrier_wait(&load.start);
    for (unsigned i = w->id; i < SHARDS; i += load.threads)
        while (shards[i].count > 0)
            shard_expire_locked(w, &shards[i]);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    draw_phases();
    shards = load_pages(SHARDS * sizeof *shards);
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &shards[i];
        pthread_mutex_init(&s->mutex, NULL);
        s->budget = load.live * 1024 / SHARDS;
        s->capacity = s->budget / 1024 * VALUES_PER_KIB / 2 + 16;
        s->ring = load_pages(s->capacity * sizeof *s->ring);
    }
    return load_run(cache, 0);
}
