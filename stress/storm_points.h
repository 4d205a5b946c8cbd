/* storm_points.h -- stopping the library between any two of its atomic steps.
 *
 * PURPOSE   The library built with GRANARY_POINTS calls gr_test_point() before each step on shared memory. A
 * test that includes this header defines what happens there. A *site* is the place of such a call in the
 * code, told by its return address; what is known of sites lies in memory that all processes of the test
 * share.
 *
 * INVARIANTS
 *   main-is-clean   The test's main process never calls the library, so each scenario's process begins with
 * its boot. own-steps-only  A thread takes part only while points_armed is set in it; nothing that the hook
 * itself does in the library is a step (points_busy).
 */
#ifndef STRESS_STORM_POINTS_H
#define STRESS_STORM_POINTS_H

#include "storm_block.h"

enum { points_max_sites = 4096 };

struct site {
    _Atomic uintptr_t address; /* 0: free entry */
    _Atomic long visits;       /* by armed threads, while recording */
    _Atomic long hits;         /* scenarios that acted here */
};

/* In shared memory; open addressing by address. */
static struct points { struct site site[points_max_sites]; } * points;

static _Thread_local bool points_armed, points_busy;

static inline void points_count(struct site *site) {
    atomic_fetch_add_explicit(&site->visits, 1, memory_order_relaxed);
}

/* What an armed thread does at a step. */
static void (*points_visit)(struct site *site) = points_count;

static inline struct site *points_find(uintptr_t address) {
    for (size_t at = mix(address) % points_max_sites, probes = 0; probes < points_max_sites;
         at = (at + 1) % points_max_sites, probes++) {
        struct site *site = &points->site[at];
        uintptr_t seen = atomic_load_explicit(&site->address, memory_order_relaxed);
        if (seen == address ||
            (seen == 0 && (atomic_compare_exchange_strong(&site->address, &seen, address) || seen == address)))
            return site;
    }
    REQUIRE(false, "more than %d sites", points_max_sites);
    return NULL;
}

void gr_test_point(void);

__attribute__((noinline)) void gr_test_point(void) {
    uintptr_t address = (uintptr_t)__builtin_return_address(0);
    if (!points_armed || points_busy)
        return;
    points_busy = true;
    points_visit(points_find(address));
    points_busy = false;
}

static inline void points_begin(void) {
    points = mmap(NULL, sizeof *points, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(points != MAP_FAILED, "mmap: errno %d", errno);
}

/* Sites known so far, in the order of their addresses, so that a seed means the same in each run of a binary.
 */
static inline int points_by_address(const void *left, const void *right) {
    uintptr_t a = (*(struct site *const *)left)->address, b = (*(struct site *const *)right)->address;
    return a < b ? -1 : a > b;
}

static inline size_t points_list(struct site **list) {
    size_t count = 0;
    for (size_t i = 0; i < points_max_sites; i++)
        if (points->site[i].address)
            list[count++] = &points->site[i];
    qsort(list, count, sizeof *list, points_by_address);
    return count;
}

/* What a victim does: all that the library has, from a thread's birth to its end. The last steps happen in
 * its exit. */
static inline void points_victim_work(struct rng *rng, int rounds) {
    for (int i = 0; i < rounds; i++) {
        storm_workload(rng_next(rng), 0);
        struct storm_block burst[200]; /* one class at a time, so that magazines run full and empty */
        size_t size = storm_size(rng, 1 << 15);
        for (size_t b = 0; b < COUNT_OF(burst); b++)
            burst[b] = storm_alloc(rng, size);
        storm_release_all(rng, burst, COUNT_OF(burst));
    }
}

/* Who and where, for a message; addr2line takes the number. */
static inline void points_name(char *text, size_t size, const struct site *site, long visit) {
    extern char __executable_start;
    snprintf(text, size, "at site %#zx of %s, visit %ld: scenario",
             (size_t)(site->address - 1 - (uintptr_t)&__executable_start), storm_name, visit);
}

/* Parking: one thread, the victim, comes to points_target for the points_target_visit-th time and stays
 * there. */

static struct site *points_target;
static long points_target_visit;
static _Atomic long points_at_target;
static _Atomic bool points_parked;

static inline void points_park(struct site *site) {
    if (site != points_target || atomic_fetch_add(&points_at_target, 1) + 1 != points_target_visit)
        return;
    atomic_fetch_add(&site->hits, 1);
    atomic_store(&points_parked, true);
    for (;;)
        pause();
}

static inline void *points_victim(void *unused) {
    (void)unused;
    struct rng rng = storm_rng_of(1);
    points_armed = true;
    points_victim_work(&rng, 2);
    return NULL;
}

/* Starts the victim and returns when it stands still, or has ended without (only while recording, or by bad
 * luck). */
static inline void points_start_victim(void) {
    pthread_t thread = storm_thread(points_victim, NULL);
    while (!atomic_load(&points_parked) && pthread_tryjoin_np(thread, NULL) != 0)
        usleep(100);
}

static inline void points_scenario_at(struct site *site, long visit, void (*scenario)(long), long argument) {
    char what[160];
    points_name(what, sizeof what, site, visit);
    points_target = site;
    points_target_visit = visit;
    storm_in_child(scenario, argument, what);
}

/* Runs scenario(0) and scenario(1) to learn the sites, then one of them for each site, `rounds` times, in a
 * child each; the visit is drawn at random, small numbers and large ones alike. A scenario calls
 * points_start_victim. */
static inline void points_sweep(long rounds, void (*scenario)(long)) {
    static struct site *list[points_max_sites];
    points_begin();
    for (long argument = 0; argument < 2; argument++)
        storm_in_child(scenario, argument, "recording: scenario");
    size_t count = points_list(list), reached = 0;
    points_visit = points_park;
    for (long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < count && !storm_past_end(); i++) {
            struct rng rng = storm_rng_of(i ^ (uint64_t)round << 32);
            long visit = 1 + (long)rng_below(&rng, 1 + rng_below(&rng, (uint64_t)list[i]->visits));
            long hits = list[i]->hits;
            points_scenario_at(list[i], visit, scenario, (long)rng_below(&rng, 2));
            for (long argument = 0; argument < 2 && list[i]->hits == hits; argument++) /* it did not come by as often */
                points_scenario_at(list[i], 1, scenario, argument);
        }
    }
    for (size_t i = 0; i < count; i++)
        reached += list[i]->hits > 0;
    printf("a thread was stopped for ever at %zu of %zu sites\n", reached, count);
    REQUIRE(count > 0, "the library was built without points");
    REQUIRE(reached > count / 2, "only %zu of %zu sites were reached", reached, count);
}

#endif
