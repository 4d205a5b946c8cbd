/* page/limit.c -- see `page/limit.h`. */
#include "page/limit.h"

#include "base/bits.h"
#include "os/cgroup.h"
#include "os/options.h"

enum {
    STEPS = 32,
    TIGHT = 8, /* of so many parts of a limit the last is left */
};

struct limit gr_limit = {.near = {UINT64_MAX}, .group = {CGROUP_NO_LIMIT}};

uint64_t gr_limit_hard(void) { return option_get(OPTION_LIMIT_HARD); }

uint64_t gr_limit_soft(void) {
    uint64_t set = option_get(OPTION_LIMIT_SOFT);
    return set == OPTION_AUTO ? word_load_relaxed(&gr_limit.group) : set;
}

uint64_t gr_limit_least(void) { return min_size(gr_limit_soft(), gr_limit_hard()); }

bool gr_limit_is_tight(void) {
    uint64_t least = gr_limit_least();
    return limit_footprint() > least - least / TIGHT;
}

bool gr_limit_take(uint64_t bytes) {
    uint64_t before = limit_counted(word_add_relaxed(&gr_limit.footprint, bytes)), hard = gr_limit_hard();
    if (before <= hard && bytes <= hard - before)
        return true;
    gr_limit_give(bytes);
    return false;
}

void gr_limit_give(uint64_t bytes) {
    if (bytes)
        word_add_relaxed(&gr_limit.footprint, 0 - bytes);
}

void gr_limit_start(void) { word_store_relaxed(&gr_limit.near, gr_limit_least()); }

/* A limit, or a step from here: a heap whose needs rise and fall by less is relieved once. */
static uint64_t next(void) {
    uint64_t least = gr_limit_least();
    return max_size(least, limit_footprint() + max_size(least / STEPS, CHUNK_BYTES));
}

void gr_limit_relieved(void) { word_store_relaxed(&gr_limit.near, next()); }

void gr_limit_ask(uint64_t now_ms) {
    uint64_t before = gr_limit_soft(), found;
    word_store_relaxed(&gr_limit.ask_ms, now_ms + LIMIT_ASK_MS);
    if (option_get(OPTION_LIMIT_SOFT) == OPTION_AUTO && gr_cgroup_limit("", &found))
        word_store_relaxed(&gr_limit.group, found == CGROUP_NO_LIMIT ? found : found - found / 16);
    if (gr_limit_soft() != before)
        gr_limit_start();
    else if (next() < word_load_relaxed(&gr_limit.near)) /* the heap is smaller than when it was relieved */
        gr_limit_relieved();
}

void gr_limit_repair(uint64_t bytes) { word_store_relaxed(&gr_limit.footprint, bytes); }
