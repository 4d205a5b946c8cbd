/* cache/keeper.c -- see `cache/keeper.h`. */
#include "cache/keeper.h"

#include "cache/reclaim.h"
#include "central/depot.h"
#include "os/options.h"
#include "os/os.h"
#include "page/purge.h"

enum {
    PERIOD_MS = 500,
    ASK_MS = 10, /* between looks at how much of the heap is in use: a burst into memory that is mapped takes longer */
    QUIET_TURNS = 3,    /* without anything to do, before it sleeps */
    REHOME_TURNS = 4,   /* between the depots of classes that are in use: 2 s */
    GATHER_SLABS = 512, /* of each such class, looked at in one turn */
};

struct half gr_keeper;

static struct {
    struct half process; /* which one the keeper's state speaks of: a child of vfork shares our memory */
    struct word began;   /* granules in use when the process began, by fork maybe */
    struct word asked;   /* when, and at which size, the heap was last looked at */
    uint64_t thread;     /* whoever makes the state starting writes, or stopping reads */
    /* the keeper's */
    uint64_t seen[CLASSES + 1]; /* the class's activity, */
    bool done[CLASSES + 1];     /* for which it has been put away */
    unsigned turns;             /* modulo REHOME_TURNS */
} keeper;

static uint64_t granules_in_use(void) {
    struct arena_totals t = gr_arena_totals();
    return t.mapped - min_size(t.vacant, t.mapped);
}

static uint64_t activity(unsigned class) { return gr_bin_activity(class) + gr_depot_activity(class); }

/* Of a class that nobody below the caches was asked for since the last turn, all goes back that can. Of the others the depot does now
 * and then: blocks that only go round between depot and caches stay for ever where a burst has left them, a few in each of its
 * slabs; those that come from slabs again fill one after the other. Nor may they go round in the caches alone: a class may be sparse
 * that seems to be idle. True: it was not idle. */
static bool put_away(unsigned class) {
    bool returned = gr_bin_was_returned_to(class), idle = !returned && activity(class) == keeper.seen[class];
    if (idle && keeper.done[class])
        return false;
    keeper.done[class] = idle;
    if (keeper.done[class]) {
        gr_depot_drain(class, true);
        gr_bin_judge(class);
    } else {
        if (!keeper.turns)
            gr_depot_dissolve(class);
        gr_bin_gather(class, GATHER_SLABS);
    }
    keeper.seen[class] = activity(class);
    return true;
}

static bool is(uint32_t state) { return half_load_relaxed(&gr_keeper) == state; }

static bool change(uint32_t from, uint32_t to) {
    return half_cas_strong_acq_rel(&gr_keeper, &from, to); /* [release keeping] [acquire keeping] */
}

/* True: there was something to do, or soon will be. */
static bool turn(void) {
    uint64_t now_ms = os_clock_ms();
    bool busy = gr_caches_reclaim(true) != 0;
    keeper.turns = (keeper.turns + 1) % REHOME_TURNS;
    gr_depots_tick(gr_cache_clock(now_ms));
    for (unsigned class = 1; class <= CLASSES && !is(KEEPER_STOPPING); class ++)
        busy |= put_away(class);
    while (!is(KEEPER_STOPPING) && gr_purge_poll(now_ms))
        now_ms = os_clock_ms();
    return busy || gr_vacant_dirty();
}

static void nobody_gathers(void) {
    for (unsigned class = 1; class <= CLASSES; class ++)
        gr_bin_gathered(class);
}

static void keep(void) {
    while (is(KEEPER_STARTING))
        os_wait(&gr_keeper, KEEPER_STARTING, PERIOD_MS);
    for (unsigned quiet = 0; is(KEEPER_AWAKE);) {
        os_wait(&gr_keeper, KEEPER_AWAKE, PERIOD_MS);
        quiet = turn() ? 0 : quiet + 1;
        if (quiet < QUIET_TURNS)
            continue;
        nobody_gathers();
        if (granules_in_use() < KEEPER_FROM_GRANULES / 2) {
            if (change(KEEPER_AWAKE, KEEPER_DONE))
                return;
            continue;
        }
        if (change(KEEPER_AWAKE, KEEPER_ASLEEP)) {
            while (is(KEEPER_ASLEEP) && !turn())
                os_wait(&gr_keeper, KEEPER_ASLEEP, 0);
            change(KEEPER_ASLEEP, KEEPER_AWAKE);
        }
        quiet = 0;
    }
    nobody_gathers();
}

/* A child that saves its parent's heap and ends has nothing to keep: the heap must have become its own by 4 MiB, up or down. */
static bool is_worth_one(uint64_t in_use) {
    uint64_t began = word_load_relaxed(&keeper.began);
    return in_use >= KEEPER_FROM_GRANULES && (in_use > began ? in_use - began : began - in_use) >= CHUNK_GRANULES;
}

/* The last thread that has a cache stops the keeper: who starts one has a cache. */
static bool counts(void) {
    slow_enter();
    bool serves = cache_serves(gr_self) || gr_thread_cache_slow();
    slow_leave();
    return serves;
}

GR_COLD void gr_keeper_consider(void) {
    uint64_t ask = os_clock_ms() / ASK_MS + gr_granules_mapped();
    if (word_load_relaxed(&keeper.asked) == ask)
        return;
    word_store_relaxed(&keeper.asked, ask);
    if (!option_get(OPTION_HOUSEKEEPING) || option_get(OPTION_PURGE_MS) == OPTION_NEVER ||
        !is_worth_one(granules_in_use()) || os_process() != half_load_relaxed(&keeper.process) || !counts())
        return;
    if (change(KEEPER_DONE, KEEPER_STARTING))
        os_join_thread(keeper.thread);
    else if (!change(KEEPER_ABSENT, KEEPER_STARTING))
        return;
    bool started = os_start_thread(keep, &keeper.thread) && os_process() == half_load_relaxed(&keeper.process);
    change(KEEPER_STARTING, started ? KEEPER_AWAKE : KEEPER_REFUSED);
}

void gr_keeper_rouse(void) {
    if (change(KEEPER_ASLEEP, KEEPER_AWAKE))
        os_wake(&gr_keeper);
}

static void join(void) {
    os_wake(&gr_keeper);
    os_join_thread(keeper.thread);
    half_store_release(&gr_keeper, KEEPER_ABSENT); /* [release keeping] */
}

void gr_keeper_stop(void) {
    if (os_process() != half_load_relaxed(&keeper.process))
        return;
    uint32_t seen = half_load_relaxed(&gr_keeper);
    do
        if (seen < KEEPER_DONE || seen > KEEPER_ASLEEP)
            return;
    while (!half_cas_strong_acq_rel(&gr_keeper, &seen, KEEPER_STOPPING)); /* [acquire keeping] */
    join();
}

void gr_keeper_reap(void) {
    if (os_process() == half_load_relaxed(&keeper.process) && change(KEEPER_DONE, KEEPER_STOPPING))
        join();
}

void gr_keeper_forget(void) {
    if (!is(KEEPER_ABSENT)) /* a process that begins touches no bin */
        nobody_gathers();
    half_store_relaxed(&keeper.process, os_process());
    /* Below this any number is as good: who has come from there to where a keeper is worth it has come far. */
    bool small = gr_granules_mapped() <= KEEPER_FROM_GRANULES - CHUNK_GRANULES;
    word_store_relaxed(&keeper.began, small ? 0 : granules_in_use());
    half_store_release(&gr_keeper, KEEPER_ABSENT); /* [release keeping] */
}
