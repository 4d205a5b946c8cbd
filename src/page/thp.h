/* page/thp.h -- where the system is asked for huge pages, and when it is not.
 *
 * PURPOSE     A huge page saves 511 faults and most of what address translation costs, if its memory is used and if the system has
 *             one at hand. What is used the callers know: slabs of small blocks, and large blocks of a program that writes them
 *             whole. What it costs only the system knows, so the asker brings one in and takes the time.
 *
 * WHY by time: memory that is free in long rows may be with the host of a virtual machine, from where 2 MiB of it takes
 *     milliseconds, while single pages come from between what is in use. There is no other sign of it. The thread's own time is
 *     taken: who else runs meanwhile does not count.
 */
#ifndef PAGE_THP_H
#define PAGE_THP_H

#include <stdbool.h>
#include <stddef.h>

/* May chunks that were just mapped have huge pages? `dense`: they are for slabs of small blocks. */
bool gr_thp_may(size_t first_chunk, size_t chunks, bool dense);

/* In a heap that is not large yet, but more than a few chunks: may those have them that follow on filled ones? */
bool gr_thp_may_early(void);

/* Are huge pages under large blocks asked for block by block, and no more once their memory has gone back? */
bool gr_thp_by_run(void);

/* The holder of these granules asks for huge pages under them. `bring`, if not 0, is the first granule of a huge page among them that
 * nobody has touched and somebody will: it is brought in, and if it was dear, no more are asked for there, nor by others for a
 * while. False: in that while, and where a limit is tight, nothing was done. */
bool gr_thp_ask(size_t first, size_t granules, size_t bring);

/* As it was, and huge pages that came before stay. */
void gr_thp_ask_no_more(size_t first, size_t granules);

#endif
