/* central/bin.h -- what all threads share of one size class.
 *
 * PURPOSE     Partial slabs wait here; refill claims blocks from slabs, return puts them back into the bitmaps, many blocks
 *             to one atomic step. Whoever gets a slab's token from `slab/slab.h` lists or retires it here.
 *
 * INVARIANTS
 *   listed-class  A slab waits on a stack of its own class.
 *   one-in-hand   Trim holds one slab at a time: malloc never meets an empty bin because a trim runs. While it purges pages
 *                 it owns the slab, so nobody claims the blocks there.
 *
 * WHY two sides of three tiers: trim pops from one side and pushes what is not whole to the other, so that it comes round; and it
 *     sorts by how much is free. Adopters take from the fullest tier, so that the others drain; what was listed since is full but
 *     for an eighth, or was claimed from last.
 * PROGRESS    Lock-free.
 */
#ifndef CENTRAL_BIN_H
#define CENTRAL_BIN_H

#include "slab/slab.h"

/* A slab that its holder owns, and his private budget of it. slab 0: none. Plain fields: one thread's. */
struct holding {
    uint32_t slab;
    uint16_t budget;
    uint16_t cursor;     /* the word to look at next */
    uint16_t clean_from; /* blocks from here on were never handed out and read as zero */
};

/* Claims up to `want` blocks of the class into out[], in address order within a slab; returns how many. The held slab first,
 * then listed ones, and a new one only for the first block. *clean: all of them read as zero. 0 without memory. */
unsigned gr_bin_claim(struct holding *h, unsigned class, void **out, unsigned want, bool *clean);

/* The owner lets a held slab go. */
void gr_bin_release(struct holding *h, unsigned class);

/* Puts blocks back. Each is checked: of this class, at a block's start, not free; else the program ends, naming `call`. */
void gr_bin_return(unsigned class, void *const *blocks, unsigned n, const char *call);

/* A number that grows by one with each 16 slabs beyond the most that there were: the heap's own clock. */
uint32_t gr_bins_growth(void);

/* Granules in slabs of the class. */
size_t gr_bin_granules(unsigned class);

/* Once in a while: retires listed slabs that became whole. */
void gr_bin_tick(unsigned class);

/* Looks at up to `most` listed slabs of one side, the emptiest first, of the other one the next time, and retires the whole ones; with
 * `pages` it gives the pages back that lie wholly in free blocks of the others. Returns how many were retired. */
unsigned gr_bin_trim(unsigned class, unsigned most, bool pages);

/* The keeper's look at a class in use, at up to `most` listed slabs: it retires the whole ones and gives back the pages that lie wholly
 * in free blocks of those that nobody has claimed from since the last look. Then it judges. */
void gr_bin_gather(unsigned class, unsigned most);

/* Judges whether the class is sparse, by trim's last round through a side. The keeper's. */
void gr_bin_judge(unsigned class);

/* Half of what the class's slabs could hold is free in them: its blocks are to go to the slabs, and come from there, so that they fill one
 * after the other and the others become whole. A hint. */
bool gr_bin_is_sparse(unsigned class);

/* Nobody judges the class any more: it is not sparse. */
void gr_bin_gathered(unsigned class);

/* A number that changes with each slab that is listed or taken. */
uint64_t gr_bin_activity(unsigned class);

/* Did blocks come back since this was last asked? Those of listed slabs move nothing. */
bool gr_bin_was_returned_to(unsigned class);

/* Single-threaded repair after fork: the slab's owner vanished, its count is what its bits say. */
void gr_bin_relist(uint32_t slab, unsigned class);

#endif
