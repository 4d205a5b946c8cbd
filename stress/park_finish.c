/* park_finish.c -- nobody waits: a thread that stops for ever before any step stops nobody else.
 *
 * For each site in turn a process of its own: a victim works until it comes to the site for the k-th time and
 * stays there. Everybody else must finish the full workload, thread births and ends, trim and huge blocks
 * included, and the process must be able to end. In half of the processes the victim starts alone, so that it
 * also stops in the middle of the process' first use; in the others it runs among the others, so that it
 * stops in the middle of contention. By hand: --visits 20.
 *
 * covers: S53 S54 S59 C1
 */
/* test: link=granary_points args="--visits 1" timeout=240 */
#include "storm_points.h"

static long visits = 1;
static _Atomic bool others_may_end;

static void *other(void *index) {
    struct rng rng = storm_rng_of(10 + (uint64_t)(intptr_t)index);
    while (!atomic_load(&others_may_end))
        storm_churn(&rng, 50, 1 << 15);
    storm_workload(rng_next(&rng), 1);
    return NULL;
}

/* The body of a child: returns if all but the victim could finish. */
static void scenario(long alone) {
    pthread_t threads[storm_max_threads];
    struct rng rng = storm_rng_of(5);
    if (alone)
        points_start_victim();
    for (long i = 0; i < storm.threads; i++)
        threads[i] = storm_thread(other, (void *)(intptr_t)i);
    if (!alone)
        points_start_victim();
    atomic_store(&others_may_end, true);
    for (long i = 0; i < storm.threads; i++)
        storm_join(threads[i]);
    storm_workload(rng_next(&rng), 1);
    storm_empty_boxes(&rng);
    exit(0);
}

int main(int argc, char **argv) {
    static const struct storm_extra extras[] = {{"visits", &visits, "scenarios for each site"}, {0}};
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 2}, extras);
    points_sweep(visits, scenario);
    return 0;
}
