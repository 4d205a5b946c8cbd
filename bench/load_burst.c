/* load_burst.c -- hundreds of threads that appear, allocate, free and sleep; and storms of connections.
 *
 * Each worker is the captain of a crew of 64 threads. An op is a block.
 * Modes: appear (a crew is born, each allocates, frees half, sleeps 1 ms, frees the rest and ends; then the
 * next crew), stay (the crew lives on and does the same in every burst, asleep between them: what idle
 * threads hold shows in the peak), storm (the captain alone takes its share of 2000 connections, each with a
 * record, two buffers and small blocks, drops them in random order, and so on).
 */
#include "load.h"

enum {
    CREW = 64,
    BLOCKS = 200, /* of one thread in one burst */
    NAP_US = 1000,
    CONNECTION_BLOCKS = 8,
    STACK_BYTES = 64 * 1024,
};

static const struct load_shape shape = {
    .name = "burst",
    .modes = {{"appear", 1200000, 1}, {"stay", 2000000, 1}, {"storm", 2000000, 1}},
    .live = 2000, /* connections */
    .min_size = 16,
    .max_size = 2048,
};

struct crew {
    struct worker hand[CREW]; /* their own generators and sums, added to the captain's at the end */
    pthread_t thread[CREW];
    pthread_barrier_t barrier;
    uint64_t bursts;
};

static struct crew *crews;

static void burst(struct worker *w) {
    void *block[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++)
        block[i] = block_make(w, load_size(w));
    for (unsigned i = 0; i < BLOCKS; i += 2)
        block_drop(w, block[i]);
    usleep(NAP_US);
    for (unsigned i = 1; i < BLOCKS; i += 2)
        block_drop(w, block[i]);
}

static void *burst_once(void *arg) {
    burst(arg);
    return NULL;
}

static void *burst_again(void *arg) {
    struct worker *w = arg;
    struct crew *crew = &crews[w->id];
    for (uint64_t i = 0; i < crew->bursts; i++) {
        pthread_barrier_wait(&crew->barrier);
        burst(w);
    }
    return NULL;
}

/* Starts a thread for each hand of the crew and waits for them all. */
static void crew_run(struct crew *crew, void *(*duty)(void *)) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (unsigned i = 0; i < CREW; i++)
        if (pthread_create(&crew->thread[i], &attr, duty, &crew->hand[i]) != 0)
            load_die("cannot start a thread");
    for (unsigned i = 0; i < CREW; i++)
        pthread_join(crew->thread[i], NULL);
    pthread_attr_destroy(&attr);
}

static void captain(struct worker *w) {
    struct crew *crew = &crews[w->id];
    crew->bursts = w->ops / CREW / BLOCKS + 1;
    pthread_barrier_init(&crew->barrier, NULL, CREW);
    for (unsigned i = 0; i < CREW; i++) {
        crew->hand[i].id = w->id;
        crew->hand[i].rng = load_rand(w);
    }
    if (load_mode_is("stay"))
        crew_run(crew, burst_again);
    for (uint64_t i = 0; i < crew->bursts && load_mode_is("appear"); i++)
        crew_run(crew, burst_once);
    for (unsigned i = 0; i < CREW; i++) {
        w->made += crew->hand[i].made;
        w->dropped += crew->hand[i].dropped;
        w->bad += crew->hand[i].bad;
    }
}

static void connect_one(struct worker *w, void **block) {
    for (unsigned i = 0; i < CONNECTION_BLOCKS; i++)
        block[i] = block_make(w, i == 0 ? 320u : i <= 2 ? 4096u << i : load_size(w) / 8 + 16);
}

static void storm(struct worker *w) {
    for (uint64_t done = 0; done < w->ops && w->live; done += w->live * CONNECTION_BLOCKS) {
        for (uint64_t c = 0; c < w->live; c++)
            connect_one(w, &w->slots[c * CONNECTION_BLOCKS]);
        for (uint64_t left = w->live; left > 0; left--) {
            void **gone = &w->slots[load_below(w, left) * CONNECTION_BLOCKS];
            for (unsigned i = 0; i < CONNECTION_BLOCKS; i++)
                block_drop(w, gone[i]);
            memmove(gone, &w->slots[(left - 1) * CONNECTION_BLOCKS], CONNECTION_BLOCKS * sizeof *gone);
        }
    }
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    if (load_mode_is("storm"))
        return load_run(storm, (load.live / load.threads + 1) * CONNECTION_BLOCKS);
    crews = load_pages(load.threads * sizeof *crews);
    return load_run(captain, 0);
}
