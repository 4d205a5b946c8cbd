/* api/hardened.h -- malloc and free of the hardened build.
 *
 * PURPOSE     The same calls on the same heap, with every block sealed on its way out and looked at on its way back: `slab/seal.h`
 *             has what is looked at, docs/hardened.md what it catches. The plain build compiles this and calls none of it.
 */
#ifndef API_HARDENED_H
#define API_HARDENED_H

#include "cache/thread.h"

void *gr_hardened_malloc(size_t n);
void *gr_hardened_aligned(size_t n, size_t align);
void gr_hardened_free(void *p);

/* The same for another call: realloc. */
void gr_hardened_free_as(void *p, const char *call);

/* free_sized and its kin: size and alignment must be those of the allocation, or of the realloc since. */
void gr_hardened_free_sized(void *p, size_t n, size_t align, const char *call);

/* What was asked for when p was allocated; ends the program, naming `call`, if p is no live block or was overflown. */
size_t gr_hardened_usable(void *p, unsigned class, const char *call);

/* The block itself with n bytes, if they fit its class as a new block's would; else NULL. p was looked at. */
void *gr_hardened_resize(void *p, unsigned class, size_t have, size_t n);

#endif
