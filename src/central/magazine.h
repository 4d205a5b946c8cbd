/* central/magazine.h -- an array of pointers to free blocks of one class.
 *
 * PURPOSE     What threads pop from, push to, and exchange whole. Four kinds, for 12, 20, 68 and 252 rounds, so that a
 *             thread which allocates little holds little; a magazine may be told to hold less than its kind could.
 *
 *     slot    [0]     [1] ... [count]  [count + 1] ...   [rounds + 1]
 *             NULL    blocks           old contents      MAGAZINE_FULL
 *
 * The slot below the bottom says "empty" and the one above the top says "full", so that neither costs a counter.
 *
 * LIFETIME    Type-stable: see `page/meta.h`. One holder at a time: a thread's cache, a depot, or the pool.
 */
#ifndef CENTRAL_MAGAZINE_H
#define CENTRAL_MAGAZINE_H

#include "base/atomic.h"
#include "page/meta.h"

#define MAGAZINE_FULL ((void *)-1)

enum { MAGAZINE_KINDS = 4, MAGAZINE_HEAD = 16 };

struct magazine {
    /* any thread writes, while it waits on a stack */
    struct half next;
    /* constant */
    uint32_t id;
    /* the holder's */
    uint16_t rounds;   /* blocks it may hold */
    uint16_t count;    /* blocks it holds, kept while it is not loaded */
    struct half depth; /* what is in the depot under and with it, as the pusher saw it: `central/depot.c` */
    void *slot[];
};
_Static_assert(sizeof(struct magazine) == MAGAZINE_HEAD, "slots follow the head");

struct magazine *gr_magazine_at(uint32_t id);

/* The least kind for so many rounds, at most the largest kind's. */
unsigned gr_magazine_kind(unsigned rounds);

/* An empty magazine for `rounds` blocks. NULL without memory. `home`: see `base/stack.h`. */
struct magazine *gr_magazine_new(unsigned home, unsigned rounds);
void gr_magazine_free(unsigned home, struct magazine *m);

/* The same, of a magazine that its holder has emptied: it will hold `rounds` blocks, at most its kind's. */
void gr_magazine_renew(struct magazine *m, unsigned rounds);

GR_INLINE unsigned magazine_kind(const struct magazine *m) { return m->id & 3; }

#endif
