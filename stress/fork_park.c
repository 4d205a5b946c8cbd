/* fork_park.c -- fork while another thread is in the middle of any step.
 *
 * For each site in turn a process of its own: a victim stays before the step for ever, then another thread
 * forks. In the child the victim does not exist, and what it was about to do never happens; the child
 * completes the full workload within the bound against hanging, as does its own child, and as does the
 * parent. Half of the forks are _Fork, which runs no handlers. By hand: --visits 20.
 *
 * covers: S78 C9
 */
/* test: link=granary_points args="--visits 1" timeout=240 */
#include "storm_points.h"

static long visits = 1;

static void grandchild(long seed) { storm_workload((uint64_t)seed, 2); }

static void scenario(long bare) {
    struct rng rng = storm_rng_of(5);
    if (!bare)
        storm_churn(&rng, 50, 1 << 18); /* a cache that the victim's trim takes; else the victim comes first */
    points_start_victim();
    if (storm_one_in(&rng, 2))
        storm_churn(&rng, 50, 1 << 18); /* else, with a bare fork, it is this thread's first act */
    pid_t pid = bare ? _Fork() : fork();
    REQUIRE(pid >= 0, "fork: errno %d", errno);
    if (pid == 0)
        storm_child();
    storm_workload(rng_next(&rng), bare && pid == 0 ? 0 : 2);
    storm_empty_boxes(&rng);
    if (pid == 0) {
        if (!bare)
            storm_in_child(grandchild, (long)rng_below(&rng, 1000), "grandchild");
        _exit(0);
    }
    storm_reap(pid, bare ? "_Fork beside a parked thread" : "fork beside a parked thread", 0);
    exit(0);
}

int main(int argc, char **argv) {
    static const struct storm_extra extras[] = {{"visits", &visits, "scenarios for each site"}, {0}};
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 1}, extras);
    points_sweep(visits, scenario);
    return 0;
}
