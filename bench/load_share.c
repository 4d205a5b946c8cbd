/* load_share.c -- writes to small blocks: does the allocator put blocks of two threads on one cache line?
 *
 * Modes: active (each thread allocates small blocks of its own and writes them again and again), passive
 * (first one thread allocates for all and deals the blocks out in turn; each thread frees what it was dealt,
 * and then does as in active: an allocator that reuses freed memory at once hands out pieces of shared
 * lines).
 *
 * Seconds show the cost only where a line that moves between cores is dear. So the lines are also counted: at
 * the end of each epoch, with the blocks of every thread alive, `shared_lines` are the blocks whose line
 * holds another thread's too, of `held_blocks` in all.
 */
#include "load.h"

enum {
    EPOCHS = 10,
    HELD_BLOCKS = 8,
    WRITES = 64, /* to each block, one after another */
    CACHE_LINE_BYTES = 64,
};

static const struct load_shape shape = {
    .name = "share",
    .modes = {{"active", 4000000, 2}, {"passive", 4000000, 2}},
    .min_size = 8,
    .max_size = 8,
};

static struct {
    pthread_barrier_t barrier;
    uint64_t held, shared_lines; /* worker 0 only */
} epoch;

static void meet(void) { pthread_barrier_wait(&epoch.barrier); }

/* The stores are volatile: each one happens, though nobody reads the sum. */
static void write_all(void **block) {
    for (unsigned i = 0; i < HELD_BLOCKS; i++) {
        volatile unsigned char *byte = (unsigned char *)block[i] + 7;
        for (unsigned n = 0; n < WRITES; n++)
            *byte = (unsigned char)(*byte + 4); /* 64 * 4 is 0 in a byte: the signature is whole again */
    }
}

static bool line_is(const void *p, uintptr_t line) { return (uintptr_t)p / CACHE_LINE_BYTES == line; }

/* Counts, over all held blocks, those whose line another thread holds a block of too. Worker 0, while the
 * others wait. */
static void count_lines(void) {
    for (unsigned i = 0; i < load.threads; i++) {
        for (unsigned k = 0; k < HELD_BLOCKS; k++) {
            uintptr_t line = (uintptr_t)load.workers[i].slots[k] / CACHE_LINE_BYTES;
            bool shared = false;
            for (unsigned j = 0; j < load.threads && !shared; j++)
                for (unsigned m = 0; j != i && m < HELD_BLOCKS && !shared; m++)
                    shared = line_is(load.workers[j].slots[m], line);
            epoch.held++;
            epoch.shared_lines += shared;
        }
    }
}

static void deal(struct worker *w) {
    for (unsigned k = 0; k < HELD_BLOCKS; k++)
        for (unsigned i = 0; i < load.threads; i++)
            load.workers[i].slots[k] = block_make(w, load_size(w));
}

static void share(struct worker *w) {
    bool passive = load_mode_is("passive");
    uint64_t rounds = w->ops / EPOCHS / HELD_BLOCKS + 1;
    for (unsigned e = 0; e < EPOCHS; e++) {
        if (passive && w->id == 0)
            deal(w);
        meet();
        for (uint64_t r = 0; r < rounds; r++) {
            for (unsigned k = 0; k < HELD_BLOCKS; k++)
                block_clear(w, &w->slots[k]);
            for (unsigned k = 0; k < HELD_BLOCKS; k++)
                w->slots[k] = block_make(w, load_size(w));
            write_all(w->slots);
        }
        meet();
        if (w->id == 0)
            count_lines();
        meet();
        for (unsigned k = 0; k < HELD_BLOCKS; k++)
            block_clear(w, &w->slots[k]);
        meet(); /* the next deal writes into all slots */
    }
}

static void summary(void) {
    load_note("held_blocks", epoch.held);
    load_note("shared_lines", epoch.shared_lines);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    pthread_barrier_init(&epoch.barrier, NULL, load.threads);
    load.summary = summary;
    /* A line's worth of words more: no line of slots serves two workers. */
    return load_run(share, HELD_BLOCKS + 2 * LOAD_LINE_BYTES / sizeof(void *));
}
