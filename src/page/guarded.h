/* page/guarded.h -- the few blocks of the plain build that stand between two pages without access.
 *
 * PURPOSE     One in many blocks, which `api/alloc.c` draws, has a page of its own, between two without access: it begins where
 *             the one before it ends, or ends where the one behind it begins, by chance. Freed, the page has no access either, and
 *             of the free ones the one that was freed first is used next. So an access past such a block's end, before its start
 *             or after its free ends the program at that instruction, with the calls that allocated it and freed it on stderr; a
 *             second free does, too, and a write beside it that met no guard is found when it is freed.
 *
 *     guard | slot 0 | guard | slot 1 | guard | ...     pages
 *
 * OWNS        A slot's page is its block's while that lives, and has no access while the slot is closed. What stands in it beside the
 *             block is SLACK_MARK.
 *
 * LIFETIME    Slots and their records are never unmapped. What a record says of a block that is gone may be that of the next:
 *             all of it is words, and only a report believes it.
 *
 * INVARIANTS
 *   once-each   The stamp in a slot's state is another at each of its blocks: who found it live and reads its record, and then
 *               takes it from the state that he found, has read that block's.
 *
 * STATES      from    step   who      order          to
 *             ------  -----  -------  -------------  ------------------------------------------------------
 *             closed  claim  any      CAS acq_rel    held: the caller's; of the closed ones the least stamp
 *             held    open   holder   store release  live: page and record are the block's
 *             live    take   any      CAS acq_rel    held, by one caller; a second one is told so
 *             held    close  holder   store release  closed, with the next stamp: the page has no access
 *             held    close  child    store release  likewise: what a vanished thread held
 *
 * EDGES       pool-born     start -> base         the pages are mapped before their base is known
 *             guarded-open  open -> find, take    the record
 *             guarded-shut  close -> claim        the page's state, and the record's reuse
 *
 * PROGRESS    claim is lock-free, the rest wait-free. A holder that is stopped for ever costs one slot. The handler of faults only
 *             reads.
 */
#ifndef PAGE_GUARDED_H
#define PAGE_GUARDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/limits.h"

/* One in so many; 0: none are made, and nothing of this is used. */
extern GR_HIDDEN struct word gr_guarded_one_in;
GR_INLINE bool guarded_in_use(void) { return word_peek(&gr_guarded_one_in) != 0; }

/* Maps the pages and begins to look at faults; without memory nothing changes. Chance follows from the seed. Called once, before
 * main. */
void gr_guarded_start(uint64_t one_in, uint64_t seed);

/* Which block is the next to be guarded: at least 1, one_in in the mean. */
uint32_t gr_guarded_draw(void);

/* May a block of n bytes be guarded? */
GR_INLINE bool guarded_fits(size_t n, size_t align) { return n <= GUARDED_MAX_BYTES && align <= GUARDED_MAX_BYTES; }

/* A block that reads as zero; `room` is what a common one would have. frame: of the api's function, for the trace. NULL: it does
 * not fit, or every slot is live. */
void *gr_guarded_alloc(size_t n, size_t align, size_t room, const void *frame);

/* False: p does not point among the slots. It ends the program if p is no live block, or was written beside. */
bool gr_guarded_free(void *p, const char *call, const void *frame);

/* Bytes of a live block, and its room; 0: p does not point among the slots. It ends the program likewise. */
size_t gr_guarded_bytes(const void *p, size_t *room, const char *call, const void *frame);

/* Pages of live blocks. */
size_t gr_guarded_pages(void);

/* After fork: nobody holds a slot. */
void gr_guarded_repair(void);

#endif
