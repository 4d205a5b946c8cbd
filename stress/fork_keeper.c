/* fork_keeper.c -- fork by the thread that is about to start the housekeeping thread, or to stop it, at any step of that.
 *
 * The hook forks, by fork and by _Fork in turn; each child returns into the interrupted call, allocates, and
 * ends by the end of its thread, which libc makes the end of the process once no other thread is left.
 *
 * covers: S75 S78 C9
 */
/* test: link=granary_points */
#include "storm_points.h"

#include "cache/keeper.h"

enum { BLOCKS = 800, BLOCK_BYTES = 48 * 1024, FORKS_AT_A_SITE = 2 };

static long forks;
static bool is_child;

/* From when the heap may be worth a keeper until it is awake, and while it is stopped. */
static void fork_here(struct site *site) {
    uint32_t state = half_load_relaxed(&gr_keeper);
    struct arena_totals t = gr_arena_totals();
    bool due = state == KEEPER_ABSENT && t.mapped - t.vacant >= KEEPER_FROM_GRANULES;
    if (is_child || site->hits == FORKS_AT_A_SITE || !(due || state == KEEPER_STARTING || state == KEEPER_STOPPING))
        return;
    site->hits++;
    for (int bare = 0; bare < 2; bare++) {
        pid_t pid = bare ? _Fork() : fork();
        REQUIRE(pid >= 0, "fork: errno %d", errno);
        if (pid == 0) {
            storm_child();
            is_child = true;
            return;
        }
        storm_reap(pid, bare ? "_Fork" : "fork", forks++);
    }
}

/* More than a heap for which there is a keeper. A child leaves it as it is: in a small heap the keeper would end by itself. */
static void *work(void *unused) {
    (void)unused;
    static struct storm_block block[BLOCKS];
    struct rng rng = storm_rng_of(1);
    points_armed = true;
    for (size_t i = 0; i < BLOCKS; i++)
        block[i] = storm_alloc(&rng, BLOCK_BYTES);
    if (!is_child)
        storm_release_all(&rng, block, BLOCKS);
    return NULL;
}

static void scenario(long number) {
    (void)number;
    storm_join(storm_thread(work, NULL));
    REQUIRE(forks >= 16, "the keeper was not started and stopped: %ld forks", forks);
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 2}, NULL);
    points_begin();
    points_visit = fork_here;
    storm_in_child(scenario, 0, "scenario");
    return 0;
}
