/* thread_cancel.c -- no call is a cancellation point.
 *
 * First a thread whose cancellation is pending does everything there is and must reach its end. Then main
 * cancels threads at random that only test for it now and then; what they hold is freed by their cleanup
 * handlers. By hand: --ops 100000.
 *
 * covers: S69
 */
/* test: args="--ops 200" timeout=120 */
#include "storm_block.h"

enum { slots = 64 };

static bool reached_end;

static void *work_while_pending(void *unused) {
    (void)unused;
    int error = pthread_cancel(pthread_self());
    REQUIRE(error == 0, "pthread_cancel: error %d", error);
    storm_workload(1, 0);
#ifndef STORM_LIBC
    struct granary_stats stats;
    granary_get_stats(&stats);
#endif
    reached_end = true;
    pthread_testcancel();
    return NULL;
}

struct victim {
    struct storm_block blocks[slots];
    struct rng rng;
    _Atomic bool runs;
    bool tested;
};

static void give_all_back(void *arg) {
    struct victim *me = arg;
    REQUIRE(me->tested, "cancelled outside pthread_testcancel");
    storm_release_all(&me->rng, me->blocks, slots);
}

static void *work_till_cancelled(void *arg) {
    struct victim *me = arg;
    pthread_cleanup_push(give_all_back, me);
    atomic_store(&me->runs, true);
    for (long i = 0;; i++) {
        storm_operation(&me->rng, me->blocks, slots, 1 << 16);
        if (i % 16 == 0) {
            me->tested = true;
            pthread_testcancel();
            me->tested = false;
        }
    }
    pthread_cleanup_pop(0);
    return NULL;
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 600, .threads = 2, .ops = 1000}, NULL);
    void *result = storm_join(storm_thread(work_while_pending, NULL));
    REQUIRE(reached_end, "a call was a cancellation point");
    REQUIRE(result == PTHREAD_CANCELED, "a pending cancellation was lost");

    struct rng rng = storm_rng_of(1000);
    struct victim *victims = granary_calloc((size_t)storm.threads, sizeof *victims);
    REQUIRE(victims, "no memory for %ld threads", storm.threads);
    long done = 0;
    for (; storm_goes_on(done); done += storm.threads) {
        pthread_t thread[storm_max_threads];
        for (long i = 0; i < storm.threads; i++) {
            victims[i] = (struct victim){.rng = {rng_next(&rng)}};
            thread[i] = storm_thread(work_till_cancelled, &victims[i]);
        }
        for (long i = 0; i < storm.threads; i++) {
            while (!atomic_load(&victims[i].runs))
                sched_yield();
            for (uint64_t turns = rng_below(&rng, 8); turns > 0; turns--)
                sched_yield();
            pthread_cancel(thread[i]);
            result = storm_join(thread[i]);
            REQUIRE(result == PTHREAD_CANCELED, "a thread ended with %p", result);
        }
    }
    storm_empty_boxes(&rng);
    granary_free(victims);
    struct granary_stats stats = {0};
    granary_get_stats(&stats);
    REQUIRE(stats.threads <= 1, "%zu caches are alive where one thread is", stats.threads);
    printf("%ld threads cancelled\n", done);
    return 0;
}
