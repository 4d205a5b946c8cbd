/* page/guard.c -- see `page/guard.h`. */
#include "page/guard.h"

#include <string.h>

#include "os/os.h"
#include "page/arena.h"
#include "page/region.h"

enum { GUARDED_MOST = 8192 };

static struct {
    /* any thread writes */
    GR_LINE struct word at;           /* the next slot of the line */
    struct word line[HELD_BACK_RUNS]; /* first << 32 | granules; 0: none */
} guards;

static bool may_guard(size_t granules) {
    return !os_guards_split() || gr_granules_guarded() + granules <= GUARDED_MOST;
}

bool gr_guard_open(size_t first, size_t granules) {
    granules = gr_run_guarded(&first, granules);
    if (!granules)
        return true;
    if (!os_unguard(region_address(first), granules * GRANULE_BYTES))
        return false;
    gr_run_mark_guarded(first, granules, false);
    return true;
}

/* The bit comes first: a child of a fork in between must not take guarded pages for open ones. */
static bool guard(size_t first, size_t granules, size_t from) {
    size_t untouched = from / GRANULE_BYTES;
    if (!may_guard(granules))
        return false;
    gr_run_mark_guarded(first + untouched, granules - untouched, true);
    return os_guard((char *)region_address(first) + from, granules * GRANULE_BYTES - from);
}

void gr_guard_tail(size_t first, size_t granules, size_t from) {
    if (from < granules * GRANULE_BYTES)
        guard(first, granules, from);
}

static void leave(uint64_t run) {
    if (run)
        gr_run_free(run >> 32, run & UINT32_MAX);
}

void gr_guard_free(size_t first, size_t granules, size_t open) {
    void *at = region_address(first);
    if (!guard(first, granules, 0) && !os_purge(at, granules * GRANULE_BYTES))
        memset(at, 0, open); /* pages that are locked in memory */
    gr_run_mark_clean(first, granules);
    uint64_t slot = word_add_relaxed(&guards.at, 1) % HELD_BACK_RUNS;
    leave(word_swap_acq_rel(&guards.line[slot],
                            (uint64_t)first << 32 | granules)); /* [release held-back] [acquire held-back] */
}

void gr_guard_flush(void) {
    for (unsigned slot = 0; slot < HELD_BACK_RUNS; slot++)
        leave(word_swap_acq_rel(&guards.line[slot], 0)); /* [acquire held-back] */
}

void gr_guard_repair(void) {
    for (unsigned slot = 0; slot < HELD_BACK_RUNS; slot++)
        word_store_relaxed(&guards.line[slot], 0);
}
