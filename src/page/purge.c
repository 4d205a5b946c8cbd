/* page/purge.c -- see `page/purge.h`. */
#include "page/purge.h"

#include "base/atomic.h"
#include "base/bits.h"
#include "os/options.h"
#include "os/os.h"
#include "page/arena.h"

static struct {
    /* any thread reads, the purger writes */
    GR_LINE struct word tick;
    struct word purged;    /* granules */
    struct word most_once; /* granules, in one turn of gr_purge_poll */
    /* any thread writes */
    struct half busy;
    struct word freed; /* granules, in large blocks */
    /* the purger's */
    struct word next_chunk;        /* where the sweep goes on */
    struct word next_sparse_chunk; /* where the sparse one does */
    struct word round;             /* of freed / SPARSE_SWEEP_GRANULES, when the last sparse sweep ended */
} purge;

uint8_t gr_purge_tick(void) { return (uint8_t)word_load_relaxed(&purge.tick); }
uint64_t gr_purged(void) { return word_load_relaxed(&purge.purged); }
uint64_t gr_purged_most_once(void) { return word_load_relaxed(&purge.most_once); }
void gr_purge_repair(void) { half_store_relaxed(&purge.busy, 0); }

static bool begin(void) {
    uint32_t idle = 0;
    return half_cas_strong_acq_rel(&purge.busy, &idle, 1); /* [acquire turn] */
}

static void end(void) { half_store_release(&purge.busy, 0); } /* [release turn] */

bool gr_purge_is_due(uint8_t stamp, uint64_t now, uint64_t ticks) { return (uint8_t)(now - stamp) >= ticks; }

#define PURGE_ANY_AGE UINT64_MAX

static uint64_t due_in_word(struct arena *a, unsigned word, uint64_t now, uint64_t ticks) {
    uint64_t found = word_load_relaxed(&a->vacant[word]);
    if (found)
        found &= word_load_relaxed(&a->dirty[word]);
    if (ticks != PURGE_ANY_AGE)
        for (uint64_t rest = found; rest; rest &= rest - 1) {
            unsigned bit = bits_lowest(rest);
            if (!gr_purge_is_due(byte_load_relaxed(&a->stamp[word * 64 + bit]), now, ticks))
                found &= ~(1ull << bit);
        }
    return found;
}

struct turn {
    uint64_t now, ticks; /* what has this age */
    bool if_sparse;
    uint64_t granules; /* at most; purged or, if_sparse, looked at */
    uint64_t us;       /* no step begins later */
};
#define PURGE_ANY_TIME (UINT64_MAX / 2)

/* Sweeps on from where the last turn stopped, a chunk a step. True: a limit was met before the end; else the next one begins
 * anew. The clock is read for a step that makes a system call, after the first. */
static bool sweep(struct word *next, struct turn turn) {
    size_t chunks = gr_arena_count() * ARENA_CHUNKS, at = word_load_relaxed(next);
    uint64_t spent = 0, purged = 0, end_us = os_clock_us() + turn.us;
    for (; at < chunks; at++) {
        size_t index = at / ARENA_CHUNKS;
        struct arena *a = ref_load_acquire(&gr_arenas[index]); /* [acquire arena-born] */
        uint64_t due = a ? due_in_word(a, at % ARENA_CHUNKS, turn.now, turn.ticks) : 0;
        if (!due)
            continue;
        if (spent >= turn.granules || (spent && os_clock_us() >= end_us))
            break;
        uint64_t part = bits_lowest_k(due, (unsigned)min_size(turn.granules - spent, 64));
        unsigned done = gr_run_purge(a, index, at % ARENA_CHUNKS, part, turn.if_sparse);
        purged += done;
        spent += turn.if_sparse ? bits_count(part) : done;
        if (part != due)
            break;
    }
    word_store_relaxed(next, at < chunks ? at : 0);
    word_add_relaxed(&purge.purged, purged);
    return at < chunks;
}

void gr_purge_freed(size_t granules) { word_add_relaxed(&purge.freed, granules); }

/* Blocks of which a page or two are touched leave a page or two wherever they were: a heap that reuses its dirty memory all the
 * time, and so never lets it age, would in the end be resident where nobody wrote for long. */
void gr_purge_poll_sparse(void) {
    uint64_t round = word_load_relaxed(&purge.freed) / SPARSE_SWEEP_GRANULES;
    if (round == word_load_relaxed(&purge.round) || option_get(OPTION_PURGE_MS) == OPTION_NEVER || !begin())
        return;
    struct turn turn = {0, PURGE_ANY_AGE, true, SPARSE_TURN_GRANULES, PURGE_TURN_US};
    if (!sweep(&purge.next_sparse_chunk, turn))
        word_store_relaxed(&purge.round, round);
    end();
}

bool gr_purge_poll(uint64_t now_ms) {
    uint64_t delay = option_get(OPTION_PURGE_MS);
    if (delay == OPTION_NEVER)
        return false;
    uint64_t now = now_ms / PURGE_TICK_MS;
    if (now == word_load_relaxed(&purge.tick) || !begin())
        return false;
    /* Runs are stamped with the last tick that anybody saw: against that one they have an age, and what was freed since, however
     * long ago that tick is, has none yet. */
    uint64_t before = gr_purged();
    struct turn turn = {word_load_relaxed(&purge.tick), delay / PURGE_TICK_MS, false, PURGE_TURN_GRANULES,
                        PURGE_TURN_US};
    bool more = gr_vacant_dirty() && sweep(&purge.next_chunk, turn);
    if (gr_purged() - before > gr_purged_most_once())
        word_store_relaxed(&purge.most_once, gr_purged() - before);
    word_store_relaxed(&purge.tick, more ? now - 1 : now); /* not done: the next slow path goes on */
    end();
    return more;
}

uint64_t gr_purge_all(uint64_t keep) {
    if (!begin())
        return 0;
    uint64_t before = gr_purged(), have = gr_vacant_dirty();
    word_store_relaxed(&purge.next_chunk, 0);
    if (have > keep)
        sweep(&purge.next_chunk, (struct turn){0, PURGE_ANY_AGE, false, have - keep, PURGE_ANY_TIME});
    if (!keep)
        gr_arenas_drop_untouched();
    uint64_t done = gr_purged() - before;
    end();
    return done;
}
