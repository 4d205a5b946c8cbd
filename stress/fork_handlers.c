/* fork_handlers.c -- the program's own fork handlers allocate, in all three places.
 *
 * Some handlers are older than the library's first use and some younger, so they run on both sides of its
 * own. Prepare handlers run in reverse order of registration, the others in order. Threads churn all the
 * time. By hand: --ops 5000 --threads 16.
 *
 * covers: S80 C7 C9
 */
/* test: args="--ops 25 --threads 3" timeout=240 */
#include "storm_block.h"

enum { handlers = 2 }; /* before the first use and after it */

static struct storm_block kept[handlers]; /* made before fork, freed on both sides of it */
static long prepared, in_parents, in_children;
static struct rng handler_rng;
static _Atomic bool done;

static void prepare(int which) {
    prepared++;
    kept[which] = storm_alloc(&handler_rng, storm_size(&handler_rng, 1 << 20));
    storm_churn(&handler_rng, 30, 1 << 17);
}

static void after(int which, long *count) {
    ++*count;
    storm_release(&handler_rng, kept[which]);
    kept[which] = (struct storm_block){0};
    storm_churn(&handler_rng, 30, 1 << 17);
    if (storm_one_in(&handler_rng, 4))
        granary_trim();
}

static void prepare_old(void) { prepare(0); }
static void parent_old(void) { after(0, &in_parents); }
static void child_old(void) { after(0, &in_children); }
static void prepare_young(void) { prepare(1); }
static void parent_young(void) { after(1, &in_parents); }
static void child_young(void) { after(1, &in_children); }

static void *churner(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    while (!atomic_load_explicit(&done, memory_order_relaxed))
        storm_churn(&rng, 50, 1 << 18);
    return NULL;
}

static void grandchild(long number) { storm_short_life((void *)(uintptr_t)number); }

static void fork_once(long number) {
    in_children = 0;
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: errno %d", errno);
    if (pid == 0) {
        storm_child();
        REQUIRE(in_children == handlers, "%ld child handlers have run", in_children);
        storm_empty_boxes(&handler_rng);
        storm_workload((uint64_t)number, 2);
        storm_in_child(grandchild, number, "grandchild");
        _exit(0);
    }
    storm_reap(pid, "fork", number);
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 4, .ops = 100}, NULL);
    if (!storm_plain)
        storm_skip("the sanitizers' own locks do not survive a fork of many threads");
    handler_rng = storm_rng_of(1000);
    pthread_atfork(prepare_old, parent_old, child_old);
    granary_free(granary_malloc(1));
    pthread_atfork(prepare_young, parent_young, child_young);

    pthread_t thread[storm_max_threads];
    REQUIRE(storm.threads <= storm_max_threads, "%ld threads", storm.threads);
    for (long i = 0; i < storm.threads; i++)
        thread[i] = storm_thread(churner, (void *)(intptr_t)i);
    long number = 0;
    for (; number < storm.ops && !storm_past_end(); number++)
        fork_once(number);
    atomic_store_explicit(&done, true, memory_order_relaxed);
    for (long i = 0; i < storm.threads; i++)
        storm_join(thread[i]);
    REQUIRE(prepared == handlers * number && in_parents == prepared, "%ld forks: %ld prepare and %ld parent handlers",
            number, prepared, in_parents);
    storm_empty_boxes(&handler_rng);
    printf("%ld forks with handlers\n", number);
    return 0;
}
