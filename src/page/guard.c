/* page/guard.c -- see `page/guard.h`. */
#include "page/guard.h"

#include <string.h>

#include "os/os.h"
#include "page/arena.h"
#include "page/region.h"

static struct {
    /* any thread writes */
    GR_LINE struct word at;           /* the next slot of the line */
    struct word line[HELD_BACK_RUNS]; /* first << 32 | granules; 0: none */
} guards;

bool gr_guard_open(size_t first, size_t granules) {
    bool split;
    granules = gr_run_guarded(&first, granules, &split);
    if (!granules)
        return true;
    if (!os_unguard(region_address(first), granules * GRANULE_BYTES, split))
        return false;
    gr_run_mark_guarded(first, granules, GUARD_NONE);
    return true;
}

/* Marks where they are few, and where too many mappings are split. What is guarded as a whole splits one for all of its granules, but is
 * opened in parts: at worst in every second granule. */
static enum guard kind_of(size_t granules, bool whole) {
    size_t split = gr_granules_split() + granules;
    if (os_guards_split())
        return split <= SPLIT_MOST ? GUARD_SPLIT : GUARD_NONE;
    return whole && granules >= SPLIT_FROM_GRANULES && split <= SPLIT_MOST_WHOLE ? GUARD_SPLIT : GUARD_MARK;
}

/* What is written before the system splits the mapping goes after that, if the system will; where it refuses, marks may do. */
static bool guard_as(enum guard kind, void *at, size_t bytes) {
    if (os_guard(at, bytes, kind == GUARD_SPLIT)) {
        if (kind == GUARD_SPLIT)
            os_purge(at, bytes);
        return true;
    }
    return kind == GUARD_SPLIT && !os_guards_split() && os_guard(at, bytes, false);
}

/* The bit comes first: a child of a fork in between must not take guarded pages for open ones. */
static bool guard(size_t first, size_t granules, size_t from) {
    size_t untouched = from / GRANULE_BYTES;
    enum guard kind = kind_of(granules, from == 0);
    if (kind == GUARD_NONE)
        return false;
    gr_run_mark_guarded(first + untouched, granules - untouched, kind);
    return guard_as(kind, (char *)region_address(first) + from, granules * GRANULE_BYTES - from);
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
    if (!guard(first, granules, 0)) { /* pages that are locked in memory, and others that are guarded by now */
        (void)os_unguard(at, granules * GRANULE_BYTES, true);
        if (!os_purge(at, granules * GRANULE_BYTES))
            memset(at, 0, open);
    }
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
