/* race_first.c -- many threads make the process' first call at once.
 *
 * Each round is a process of its own in which nothing has been allocated yet. Its threads wait at a barrier,
 * then make different first calls together, then work. By hand: --ops 1000.
 *
 * covers: S43 C1 C7
 */
/* test: args="--ops 60" timeout=240 */
#include "storm_block.h"

static pthread_barrier_t line;

/* The first call of thread number `kind`. Returns a block or NULL. */
static void *first_call(unsigned kind) {
    void *out = NULL;
    struct granary_stats stats;
    switch (kind % 14) {
    case 0:
        return granary_calloc(3, 50);
    case 1:
        return granary_realloc(NULL, 70);
    case 2:
        return granary_malloc((size_t)80 << 20);
    case 3:
        return granary_malloc(1 << 20);
    case 4:
        return granary_aligned_alloc(4096, 100);
    case 5:
        return granary_posix_memalign(&out, 64, 100) ? NULL : out;
    case 6:
        granary_free(NULL);
        return NULL;
    case 7:
        REQUIRE(granary_malloc_usable_size(NULL) == 0, "usable size of NULL");
        return NULL;
    case 8:
        granary_trim();
        return NULL;
    case 9:
        granary_get_stats(&stats);
        return NULL;
    case 10:
        return granary_pvalloc(1);
    default:
        return granary_malloc(kind);
    }
}

static void *runner(void *index) {
    unsigned kind = (unsigned)(intptr_t)index;
    struct rng rng = storm_rng_of(kind);
    pthread_barrier_wait(&line);
    unsigned char *block = first_call(kind);
    if (block)
        *block = 1;
    storm_churn(&rng, 20, 1 << 16);
    granary_free(block);
    return NULL;
}

static void process(long number) {
    storm.seed += (uint64_t)number;
    pthread_barrier_init(&line, NULL, (unsigned)storm.threads);
    storm_team(storm.threads, runner);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
    REQUIRE(stats.threads <= 1, "%zu caches are alive where one thread is", stats.threads);
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 600, .threads = 64, .ops = 1000}, NULL);
    long number = 0;
    for (; number * storm_slowness < storm.ops && !storm_past_end(); number++)
        storm_in_child(process, number, "process");
    printf("%ld processes whose first %ld calls came at once\n", number, storm.threads);
    return 0;
}
