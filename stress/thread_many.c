/* thread_many.c -- threads in great number, one after the other and all at once.
 *
 * After some thousand short threads the process is as large as it will ever be: RSS, address space, mappings
 * and caches are the same after ten or a hundred times as many. Each third thread only frees, each third
 * allocates and leaves its block to the next. By hand: --threads-total 1000000 --alive 10000.
 *
 * covers: S48 S49 S50 C8
 */
/* test: args="--threads-total 20000 --alive 400" timeout=240 */
#include "storm_block.h"

static long threads_total = 100000, alive = 10000;
static pthread_attr_t small_stack;

static void *short_life(void *arg) {
    long number = (intptr_t)arg;
    struct storm_box *box = &storm_box[number % storm_boxes];
    struct rng rng = storm_rng_of((uint64_t)number);
    struct storm_block block;
    switch (number % 3) {
    case 0:
        granary_free(granary_malloc(1 + rng_below(&rng, 2000)));
        break;
    case 1:
        storm_release(&rng, storm_trade(box, storm_alloc(&rng, storm_size(&rng, 1 << 16))));
        break;
    default: /* frees what another left and nothing else */
        block = storm_take(&storm_box[(number - 1) % storm_boxes]);
        if (block.ptr)
            storm_verify(&block);
        granary_free(block.ptr);
    }
    return NULL;
}

static pthread_t start(void *(*body)(void *), void *arg) {
    pthread_t thread;
    int error = pthread_create(&thread, &small_stack, body, arg);
    REQUIRE(error == 0, "pthread_create: error %d", error);
    return thread;
}

/* `count` threads, storm.threads of them at a time. */
static void generations(long count) {
    pthread_t thread[storm_max_threads];
    for (long done = 0; done < count; done += storm.threads) {
        for (long i = 0; i < storm.threads; i++)
            thread[i] = start(short_life, (void *)(intptr_t)(done + i));
        for (long i = 0; i < storm.threads; i++)
            storm_join(thread[i]);
    }
}

struct measure {
    size_t rss, vsz, maps, caches, metadata;
};

static struct measure measure(const char *when) {
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
    struct measure m = {rss_bytes(), vsz_bytes(), map_count(), stats.threads, stats.metadata_bytes};
    printf("%s: RSS %.2f MiB, address space %.1f MiB, %zu mappings, %zu caches, %.2f MiB of records\n", when,
           storm_mib(m.rss), storm_mib(m.vsz), m.maps, m.caches, storm_mib(m.metadata));
    return m;
}

static struct { pthread_barrier_t all_hold, may_end; } crowd;

static void *hold_one(void *arg) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)arg);
    struct storm_block block = storm_alloc(&rng, storm_size(&rng, 1 << 14));
    pthread_barrier_wait(&crowd.all_hold);
    pthread_barrier_wait(&crowd.may_end);
    if (storm_one_in(&rng, 2)) /* the rest is freed by whoever trades it, mostly after this thread's end */
        block = storm_trade(&storm_box[rng_below(&rng, storm_boxes)], block);
    storm_release(&rng, block);
    return NULL;
}

static void all_alive_at_once(void) {
    pthread_t *threads = malloc((size_t)alive * sizeof *threads);
    REQUIRE(threads, "no memory for %ld threads", alive);
    pthread_barrier_init(&crowd.all_hold, NULL, (unsigned)alive + 1);
    pthread_barrier_init(&crowd.may_end, NULL, (unsigned)alive + 1);
    for (long i = 0; i < alive; i++)
        threads[i] = start(hold_one, (void *)(intptr_t)i);
    pthread_barrier_wait(&crowd.all_hold);
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
#ifndef STORM_LIBC
    /* A few need no cache: what they drew has a mapping or a run of its own. */
    REQUIRE(stats.threads >= (size_t)alive / 10 * 9, "%zu caches with %ld threads alive", stats.threads, alive);
#endif
    pthread_barrier_wait(&crowd.may_end);
    for (long i = 0; i < alive; i++)
        storm_join(threads[i]);
    free(threads);
}

int main(int argc, char **argv) {
    static const struct storm_extra extras[] = {
        {"threads-total", &threads_total, "threads born and died"}, {"alive", &alive, "threads alive at once"}, {0}};
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 4}, extras);
    pthread_attr_init(&small_stack);
    pthread_attr_setstacksize(&small_stack, storm_plain ? 65536 : 1 << 20);
    struct rng rng = storm_rng_of(1000);

    long total = threads_total / storm_slowness;
    /* Hardened: blocks lie anywhere, and it takes more of them until all pages were touched. */
    generations(GRANARY_HARDENED ? total : total / 5);
    struct measure before = measure("warm");
    generations(total);
    struct measure after = measure("later");
    if (storm_plain) {
        REQUIRE(after.rss <= before.rss + ((size_t)4 << 20), "RSS grew by %.2f MiB", storm_mib(after.rss - before.rss));
        REQUIRE(after.vsz <= before.vsz + ((size_t)32 << 20), "address space grew by %.1f MiB",
                storm_mib(after.vsz - before.vsz));
        REQUIRE(after.maps <= before.maps + 32, "%zu mappings more", after.maps - before.maps);
    }
    REQUIRE(after.caches <= 1 && after.metadata <= before.metadata + (64 << 10), "caches of dead threads are left");

    if (!storm_plain && alive > 100)
        alive = 100;
    all_alive_at_once();
    storm_empty_boxes(&rng);
    struct measure end = measure("after the crowd");
    REQUIRE(end.caches <= 1, "%zu caches are alive where one thread is", end.caches);
    return 0;
}
