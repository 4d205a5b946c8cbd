/* page/limit.h -- how many bytes the heap may have from the system.
 *
 * PURPOSE     The footprint is what may be resident: granules that somebody holds, vacant ones that are dirty, huge blocks. It
 *             never passes limit_hard. Near limit_soft, or where that is left to us near the limit of the control group, who is
 *             about to allocate gives back first what lies idle, and goes on.
 *
 * OWNS        The footprint: who takes granules that were clean or maps a huge block takes their bytes before, who gives pages
 *             back gives the bytes after. What is dirty already is paid for; who claimed it for that looks again when it is his.
 *
 * INVARIANTS
 *   below-hard  footprint <= limit_hard, but for bytes that a call has taken and, refused, is about to give.
 *
 * WHY the footprint and not the group's own figure: that one counts the page cache, which the kernel drops when it has to, and
 *     would be near the limit in every container that reads files.
 * WHY a thread of the program's asks for the group's limit, at the end of a slow path, and not the keeper: a file that another
 *     thread opens takes the number that a program expects for what it opens next when it has closed 0.
 */
#ifndef PAGE_LIMIT_H
#define PAGE_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/limits.h"

struct limit {
    /* any thread writes */
    GR_LINE struct word footprint;
    /* any thread reads */
    GR_LINE struct word near; /* the least limit, or where the heap was a step beyond the last relief */
    struct word group;        /* what the control group makes of limit_soft:auto */
    struct word ask_ms;       /* when to ask for that again */
};
extern GR_HIDDEN struct limit gr_limit;

/* In a child what a vanished thread had not counted yet may be missing: a sum below zero is nothing. */
GR_INLINE uint64_t limit_counted(uint64_t sum) { return sum >> 63 ? 0 : sum; }
GR_INLINE uint64_t limit_footprint(void) { return limit_counted(word_load_relaxed(&gr_limit.footprint)); }

/* Would so many more bytes pass a limit? Then what lies idle goes back first. */
GR_INLINE bool limit_is_near(uint64_t bytes) {
    return GR_UNLIKELY(limit_footprint() + bytes > word_load_relaxed(&gr_limit.near));
}

/* Is so little left below the least limit that memory which nobody may use should not come? */
bool gr_limit_is_tight(void);

/* Something went back for a limit's sake: not again until the heap has grown by a 32nd of the limit, 4 MiB at least. Before main:
 * the options have been read. */
void gr_limit_relieved(void);
void gr_limit_start(void);

/* More bytes are about to be in use. False: the hard limit is in the way, and nothing was taken. */
bool gr_limit_take(uint64_t bytes);
void gr_limit_give(uint64_t bytes);

/* In force now; UINT64_MAX: none. */
uint64_t gr_limit_soft(void);
uint64_t gr_limit_hard(void);
uint64_t gr_limit_least(void);

/* Called on slow paths with the time: when the heap is worth it, asks each few seconds what the control group may use. */
GR_COLD void gr_limit_ask(uint64_t now_ms);
GR_INLINE void limit_poll(uint64_t now_ms) {
    if (GR_UNLIKELY(limit_footprint() >= (uint64_t)LIMIT_FROM_GRANULES * GRANULE_BYTES) &&
        GR_UNLIKELY(now_ms >= word_load_relaxed(&gr_limit.ask_ms)))
        gr_limit_ask(now_ms);
}

/* Single-threaded repair after fork: so much is in use. */
void gr_limit_repair(uint64_t bytes);

#endif
