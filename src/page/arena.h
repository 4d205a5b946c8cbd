/* page/arena.h -- runs of granules, claimed in atomic bitmaps.
 *
 * PURPOSE     Who holds which granule: one bit each in `vacant`. A second bitmap, `dirty`, says which may hold old bytes, so
 *             that dirty memory is used before fresh and calloc clears no more than it must.
 *
 * OWNS        The records of 2048 granules each, the slabs' among them. Mapped by the system wherever it likes: no
 *             distance from a block to a record is fixed.
 *
 * LIFETIME    Arenas are never unmapped.
 *
 * INVARIANTS
 *   vacant-mapped  A vacant granule is mapped.
 *   dirty-known    A vacant granule whose dirty bit is clear reads as zero.
 *   run-held       Bits of a claimed run, its dirty bits, its stamps and its record are changed by its holder alone.
 *
 * STATES      from        step      who     order                 to
 *             ----------  --------  ------  --------------------  ----------------------------------------------
 *             unmapped    grow      any     CAS acq_rel           growing, by one thread
 *             growing     mapped    same    or release            vacant, clean
 *             growing     refused   same    store relaxed         unmapped again, or foreign for ever
 *             vacant      claim     any     and acquire, by word  held; a word that was not wholly vacant is undone
 *             held        free      holder  or release, by word   vacant
 *             vacant      unmap     any     claim of the chunk,   growing while the system is asked, then unmapped;
 *                                           store release         refused: mapped and vacant again
 *
 * EDGES       run-home    free -> claim      the last holder's writes to the run and to its record
 *             arena-born  install -> find    an arena is mapped before it can be found
 *             counted-arena  count raised -> count read    an arena below the count can be found
 *             roomy       hint set -> hint cleared    what was freed, and the arena, before the hint was set, for who reads or clears it
 *             chunk-gone  unmapped -> grow   the system has taken a chunk back before it is asked for it again
 *
 * WHY a claim that fails half-way may undo: the bits it took were vacant, so for a moment others find less than there is,
 *     never more. So too while a chunk is mapped or unmapped by somebody else: near the limit of memory a claim may fail
 *     although some is about to be vacant. It does not wait for it.
 * PROGRESS    Lock-free; a stopped claimer keeps its run from others and stops nobody.
 * ELSEWHERE   When dirty granules are given back: `page/purge.h`.
 */
#ifndef PAGE_ARENA_H
#define PAGE_ARENA_H

#include "base/atomic.h"
#include "base/bits.h"
#include "base/limits.h"

/* The record of a slab, in the place of its first granule; its verbs are in `slab/slab.h`. One line holds it all where the blocks
 * are few, as in every slab of blocks from 176 bytes on: who gives blocks back takes one line, and records stay small beside
 * the slabs. */
struct slab {
    /* any thread writes */
    GR_LINE struct half next; /* link, while it waits on a stack */
    struct half word;         /* count of free blocks, flags */
    /* the token's holder writes, by whoever gets the token next read */
    uint16_t parked_clean_from;
    uint16_t swept; /* free blocks when its pages were last given back; 0: claimed from since, 1: and then seen */
    /* any thread writes */
    struct word bits[SLAB_NEAR_WORDS]; /* 1 = free; the others are in `slab_far_bits`. The second may be `slab_fresh` */
};
_Static_assert(sizeof(struct slab) == 64, "one line a slab");

enum { CHUNK_UNMAPPED, CHUNK_GROWING, CHUNK_MAPPED, CHUNK_FOREIGN };

struct arena {
    /* any thread writes */
    GR_LINE struct word vacant[ARENA_CHUNKS];
    GR_LINE struct word dirty[ARENA_CHUNKS];
    GR_LINE struct half chunk[ARENA_CHUNKS]; /* CHUNK_... */
    struct half dense;                       /* bit c: chunk c is for runs of one granule */
    struct half huge;                        /* bit c: chunk c has huge pages, or may have them */
    struct slab slab[ARENA_GRANULES];        /* the first of them in the page that holds the above */
    /* a granule's holder writes */
    GR_LINE struct half run[ARENA_GRANULES]; /* granules of the large run that starts here; see `page/large.c` */
    struct byte stamp[ARENA_GRANULES];       /* the tick in which it became vacant */
    struct word slab_far_bits[ARENA_GRANULES][SLAB_WORDS - SLAB_NEAR_WORDS]; /* any thread writes */
    struct word guarded[HARDENED ? ARENA_CHUNKS : 1]; /* 1: the granule holds a guard; see `page/guard.h` */
    struct word split[HARDENED ? ARENA_CHUNKS : 1];   /* 1: and one that splits a mapping */
    struct byte given[HARDENED ? ARENA_GRANULES : 1]; /* 1: somebody was given memory of this granule once */
    struct word bytes[HARDENED ? ARENA_GRANULES : 1]; /* asked for, of the large block that starts here */
};

extern GR_HIDDEN struct ref gr_arenas[REGION_ARENAS];

/* The arena of a granule that is or was held; never NULL for one. */
GR_INLINE struct arena *arena_of(size_t granule) {
    return ref_load_acquire(&gr_arenas[granule / ARENA_GRANULES]); /* [acquire arena-born] */
}

GR_INLINE struct half *run_record(size_t granule) { return &arena_of(granule)->run[granule % ARENA_GRANULES]; }

GR_INLINE struct word *run_bytes_record(size_t granule) {
    return &arena_of(granule)->bytes[HARDENED ? granule % ARENA_GRANULES : 0];
}

/* Arenas that may exist: 0 .. count - 1; each may still be NULL. */
size_t gr_arena_count(void);

/* Claims `granules` in a row, the first a multiple of `align` (a power of two, at most CHUNK_GRANULES or a multiple of it).
 * Returns the first, or 0 without memory: granule 0 is never vacant. Its dirty bits tell what it holds until
 * gr_run_mark_dirty. */
size_t gr_run_claim(size_t granules, size_t align);

/* The same, of memory that reads as zero and, but for huge pages, is not there yet: for who may use little of it. 0: there is none,
 * or a limit is near. */
size_t gr_run_claim_clean(size_t granules, size_t align);

/* Claims `granules` in a row, ARENA_GRANULES / 2 at most, where there is room for as many more behind them: for a block that has
 * grown before and could not stay. `dirty`: where all of that is dirty. 0: there is no such room, or no memory. */
size_t gr_run_claim_roomy(size_t granules, bool dirty);

/* Claims exactly these, if all of them are vacant or not yet mapped, and in the arena of the granule before them. */
bool gr_run_claim_at(size_t first, size_t granules);

/* How many of the run's granules from `first` on, `granules` at most, have the same cleanness as the first; *dirty says
 * which. The caller holds them. */
size_t gr_run_same_dirt(size_t first, size_t granules, bool *dirty);

/* The holder is about to let somebody write into the run. */
void gr_run_mark_dirty(size_t first, size_t granules);

/* The holder knows that the run reads as zero again. */
void gr_run_mark_clean(size_t first, size_t granules);

/* The granules from the first to the last in a held run that hold a guard, 0: none. *first becomes the first of them; `split`: some of
 * the guards split a mapping. */
size_t gr_run_guarded(size_t *first, size_t granules, bool *split);

/* The holder notes what all of the run's granules hold; how many hold a guard that splits a mapping, of all runs. */
enum guard { GUARD_NONE, GUARD_MARK, GUARD_SPLIT };
void gr_run_mark_guarded(size_t first, size_t granules, enum guard guard);
size_t gr_granules_split(void);

/* Hardened: the holder is about to give parts of the run to users. Was somebody given any of its granules before? */
bool gr_run_was_given(size_t first, size_t granules);

/* Gives up a run. Its page map bytes are clear. */
void gr_run_free(size_t first, size_t granules);

/* Makes vacant granules of one word clean: those among `mask` that can be claimed now; with `if_sparse`, of each run only if
 * little of it is in memory. Returns how many were purged. */
unsigned gr_run_purge(struct arena *a, size_t arena_index, unsigned word, uint64_t mask, bool if_sparse);

/* The holder asks for huge pages under what of these granules nobody has touched; `written`: somebody will write them all. */
void gr_run_want_huge_pages(size_t first, size_t granules, bool written);

/* For a run that will be written whole: also under the 2 MiB in which it begins and ends, if nobody has been there either. */
void gr_run_want_huge_pages_around(size_t first, size_t granules);

/* For a run that had `have` granules and will grow on: asks under all of it, so that it stays one mapping, whose pages can be moved, and
 * under the rest of the 2 MiB in which it ends, if that is vacant. False: there is nothing new to ask for. */
bool gr_run_want_huge_pages_on(size_t first, size_t have, size_t granules);

/* Pages of the granule's chunk go back while others of it are in use: the system is asked to leave the holes, which it would fill
 * up to make huge pages; and what huge pages hold of granules that were never used goes back, too. */
void gr_run_has_holes(size_t granule);

/* What huge pages hold of granules that were never used goes back, everywhere. */
void gr_arenas_drop_untouched(void);

/* Unmaps chunks that are wholly vacant; returns how many granules went. For trim, and where memory has run out. */
uint64_t gr_arenas_unmap_vacant(void);

/* Any number: does the granule exist, and is it ours? Other mappings may lie between our chunks. */
bool gr_granule_is_mapped(size_t granule);

/* Sums over all arenas, in granules. */
struct arena_totals {
    uint64_t mapped, vacant, vacant_dirty;
};
struct arena_totals gr_arena_totals(void);

/* Vacant and dirty granules, kept as a running sum: exact when nobody is at work. */
uint64_t gr_vacant_dirty(void);
uint64_t gr_granules_mapped(void);

/* Single-threaded repair after fork: granules that nobody holds any more become vacant, half-done growth is undone.
 * `held` answers for a granule whether something of ours lives there. */
void gr_arenas_repair(bool (*held)(size_t granule));

#endif
