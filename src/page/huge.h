/* page/huge.h -- blocks with mappings of their own: above 64 MiB, or of an alignment beyond that.
 *
 * PURPOSE     An address found in a table of records, a mapping that mremap can grow. Fresh memory is zero.
 *
 * LIFETIME    Records are static. A record is found only while its block lives: it is hidden before the mapping changes or
 *             goes, so the kernel may hand the address to somebody else at once.
 *
 * INVARIANTS
 *   one-window  The record of an address lies in the HUGE_WINDOW slots from its hash on.
 *
 * STATES      from    step     who      order          to
 *             ------  -------  -------  -------------  ------------------------------------------
 *             empty   reserve  any      CAS acq_rel    hidden
 *             hidden  show     holder   store release  shown: address and bytes may be read
 *             shown   hide     any      CAS acq_rel    hidden; a second free finds nothing
 *             hidden  drop     holder   store release  empty
 *
 * EDGES       shown    show -> find, hide   bytes
 *             dropped  drop -> reserve      the record's reuse
 *
 * PROGRESS    Lock-free. A holder that is stopped for ever costs one record.
 */
#ifndef PAGE_HUGE_H
#define PAGE_HUGE_H

#include <stdbool.h>
#include <stddef.h>

/* Zeroed; NULL without memory. align is a power of two. */
void *gr_huge_alloc(size_t bytes, size_t align);

/* False: no such block. */
bool gr_huge_free(void *p);

/* Hardened: was nothing written past the end of a huge block? */
bool gr_huge_is_whole(const void *p);

/* Usable bytes, or 0: no such block. */
size_t gr_huge_bytes(const void *p);

/* The block with room for `bytes`, moved if it must be; NULL: it is as it was. p is a huge block. */
void *gr_huge_resize(void *p, size_t bytes);

/* A huge block with the pages [at, at + have), which read as zero afterwards; NULL: nothing happened. */
void *gr_huge_adopt(void *at, size_t have, size_t bytes);

/* Bytes in all huge blocks. */
size_t gr_huge_total(void);

#endif
