/* fork_park_inside.c -- fork before any step of the very thread that is in the middle of it.
 *
 * What a handler does that interrupts malloc or free at the worst moment, for every moment: the hook itself
 * forks. The child completes the full workload inside the interrupted call, returns into it, finishes its own
 * work and ends; the parent waits and does the same. Other threads churn. Every third fork is _Fork. By hand:
 * --visits 20.
 *
 * covers: S75 S78 C9
 */
/* test: link=granary_points args="--visits 1" timeout=240 */
#include "storm_points.h"

enum { forks_in_a_process = 64 };

static long visits = 1, hits_wanted;
static long forks_left; /* of this process' victim */
static bool is_child, is_bare;
static struct rng hook_rng;
static _Atomic bool done;

/* Does not return. */
static void child_work(bool bare) {
    storm_workload(rng_next(&hook_rng), bare ? 0 : 1);
    storm_empty_boxes(&hook_rng);
    storm_churn(&hook_rng, 100, 1 << 18);
    _exit(0);
}

static void child(bool bare, bool inside) {
    storm_child();
    is_child = true;
    is_bare = bare;
    if (inside)
        child_work(bare);
}

/* Forks twice at a site that wants it, so that each process takes up where the last one stopped. */
static void fork_here(struct site *site) {
    if (is_child || !forks_left || site->hits >= hits_wanted || !storm_one_in(&hook_rng, 2))
        return;
    char what[160];
    long number = atomic_fetch_add(&site->hits, 1) + 1;
    forks_left--;
    points_name(what, sizeof what, site, number);
    for (int inside = 0; inside < 2; inside++) {
        bool bare = storm_one_in(&hook_rng, 3);
        pid_t pid = bare ? _Fork() : fork();
        REQUIRE(pid >= 0, "fork: errno %d", errno);
        if (pid == 0) {
            child(bare, inside);
            return;
        }
        storm_reap(pid, what, bare + 2 * inside);
    }
}

/* Runs in the thread that was forked and, with is_child set, in each of its children. */
static void *victim(void *unused) {
    (void)unused;
    struct rng rng = storm_rng_of(1);
    points_armed = true;
    points_victim_work(&rng, 1);
    if (is_child && storm_one_in(&rng, 2))
        child_work(is_bare); /* else the thread's own end is part of the test, and that of the process */
    return NULL;
}

static void *churner(void *index) {
    struct rng rng = storm_rng_of(10 + (uint64_t)(intptr_t)index);
    while (!atomic_load(&done))
        storm_churn(&rng, 50, 1 << 18);
    return NULL;
}

static void scenario(long number) {
    pthread_t threads[storm_max_threads];
    hook_rng = storm_rng_of((uint64_t)number);
    storm.seed += (uint64_t)number;
    forks_left = forks_in_a_process;
    long churners = number % 2 ? storm.threads : 0;
    for (long i = 0; i < churners; i++)
        threads[i] = storm_thread(churner, (void *)(intptr_t)i);
    storm_join(storm_thread(victim, NULL));
    atomic_store(&done, true);
    for (long i = 0; i < churners; i++)
        storm_join(threads[i]);
    storm_workload(3, 1);
}

static size_t sites_done(size_t *count) {
    static struct site *list[points_max_sites];
    size_t reached = 0;
    *count = points_list(list);
    for (size_t i = 0; i < *count; i++)
        reached += list[i]->hits >= hits_wanted;
    return reached;
}

int main(int argc, char **argv) {
    static const struct storm_extra extras[] = {{"visits", &visits, "forks at each site"}, {0}};
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 2}, extras);
    points_begin();
    storm_in_child(scenario, 0, "recording: scenario");
    points_visit = fork_here;
    size_t count = 0, reached = 0;
    long number = 0;
    hits_wanted = visits;
    for (int vain = 0; vain < 8 && !storm_past_end(); number++) {
        storm_in_child(scenario, number, "scenario");
        size_t now = sites_done(&count);
        vain = now > reached ? 0 : vain + 1;
        reached = now;
    }
    printf("forked at %zu of %zu sites in %ld processes\n", reached, count, number);
    REQUIRE(count > 0, "the library was built without points");
    REQUIRE(reached > count / 2, "only %zu of %zu sites were reached", reached, count);
    return 0;
}
