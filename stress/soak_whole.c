/* soak_whole.c -- the whole allocator at once: every call, every kind of size, threads that are born, pass
 * blocks on and die.
 *
 * Lanes run side by side; in each lane one thread lives for some thousand operations on the lane's blocks,
 * then starts its successor, who joins it and goes on with the same blocks. Blocks also cross lanes through
 * the boxes. Contents are verified at every free and realloc. By hand: --seconds 36000 --threads 16, also
 * under each sanitizer.
 *
 * covers: S52 S102 C6
 */
/* test: args="--seconds 3" timeout=240 */
/* test: name=one_processor args="--seconds 600 --ops 1000 --threads 48 --cpus 1" timeout=240 */
#include "storm_block.h"

enum { slots_per_lane = 512 };

struct lane {
    struct storm_block slots[slots_per_lane];
    struct rng rng;
    pthread_t last; /* the predecessor of the thread that runs */
    bool has_last;
    long generation, ops;
    pthread_barrier_t *end; /* met by the lane's last thread and by main */
};

static long max_mib = 48, cpus = 0;

/* On so many of the processors that the process may use. With --ops each of many threads must get its work done there, which
 * threads that wait for each other would not. */
static void use_processors(long count) {
    cpu_set_t allowed;
    REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0, "errno %d", errno);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && count-- <= 0)
            CPU_CLR(cpu, &allowed);
    REQUIRE(sched_setaffinity(0, sizeof allowed, &allowed) == 0, "errno %d", errno);
}

/* Also blocks of a lane that sleep for long: a burst that fills the lane, or empties most of it. */
static void tide(struct lane *lane) {
    bool rising = storm_one_in(&lane->rng, 2);
    for (int i = 0; i < slots_per_lane; i++) {
        struct storm_block *slot = &lane->slots[i];
        if (rising && !slot->ptr)
            *slot = storm_alloc(&lane->rng, storm_size(&lane->rng, 4096));
        else if (!rising && !storm_one_in(&lane->rng, 16)) {
            storm_release(&lane->rng, *slot);
            *slot = (struct storm_block){0};
        }
    }
}

static void *life(void *arg) {
    struct lane *lane = arg;
    if (lane->has_last)
        storm_join(lane->last);
    long until = lane->ops + 500 + (long)rng_below(&lane->rng, 20000);
    bool goes_on = true;
    while (lane->ops < until && (goes_on = storm_goes_on(lane->ops))) {
        storm_operation(&lane->rng, lane->slots, slots_per_lane, (size_t)max_mib << 20);
        lane->ops++;
        if (storm_one_in(&lane->rng, 5000))
            tide(lane);
        if (storm_one_in(&lane->rng, 20000))
            granary_malloc_trim(rng_below(&lane->rng, 2) << 20);
    }
    lane->last = pthread_self();
    lane->has_last = true;
    lane->generation++;
    if (goes_on)
        storm_thread(life, lane);
    else
        pthread_barrier_wait(lane->end);
    return NULL;
}

int main(int argc, char **argv) {
    static const struct storm_extra extras[] = {
        {"max-mib", &max_mib, "largest block, MiB"}, {"cpus", &cpus, "processors to run on, 0: all"}, {0}};
    storm_begin(argc, argv, (struct storm_options){.seconds = 10, .threads = 4}, extras);
    if (cpus)
        use_processors(cpus);
    struct lane *lanes = granary_calloc((size_t)storm.threads, sizeof *lanes);
    REQUIRE(lanes, "no memory for %ld lanes", storm.threads);
    pthread_barrier_t end;
    pthread_barrier_init(&end, NULL, (unsigned)storm.threads + 1);
    for (long i = 0; i < storm.threads; i++) {
        lanes[i].rng = storm_rng_of((uint64_t)i);
        lanes[i].end = &end;
        storm_thread(life, &lanes[i]);
    }
    pthread_barrier_wait(&end);

    long ops = 0, lives = 0;
    struct rng rng = storm_rng_of(1000);
    for (long i = 0; i < storm.threads; i++) {
        storm_join(lanes[i].last);
        storm_release_all(&rng, lanes[i].slots, slots_per_lane);
        ops += lanes[i].ops;
        lives += lanes[i].generation;
    }
    storm_empty_boxes(&rng);
    granary_free(lanes);
    granary_trim();
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
    printf("%ld operations by %ld threads; at the end %.1f MiB used (%.1f cached), %.1f dirty, RSS %.1f MiB\n", ops,
           lives, storm_mib(stats.used_bytes), storm_mib(stats.cached_bytes), storm_mib(stats.dirty_bytes),
           storm_mib(rss_bytes()));
    REQUIRE(stats.threads <= 1, "%zu caches are alive where one thread is", stats.threads);
    /* Nothing lives, so a leak of whole blocks shows here: what may be left is a slab in hand for each size
     * class. */
    REQUIRE(stats.huge_bytes == 0, "%zu bytes of huge blocks are left", stats.huge_bytes);
    REQUIRE(stats.used_bytes <= (size_t)32 << 20, "%zu bytes in use with no block alive", stats.used_bytes);
    REQUIRE(stats.cached_bytes <= stats.used_bytes, "%zu bytes cached of %zu in use", stats.cached_bytes,
            stats.used_bytes);
    return 0;
}
