/* count/count.h -- what each step on shared memory costs where, counted and not timed.
 *
 * PURPOSE     A line is 64 bytes that some atomic word lies in. It *moves* when a thread needs it whose processor, had each
 *             thread its own, would not have it in the state that the step needs: by a write, when another thread has read
 *             or written it since; by a read, when another has written it. So counts do not depend on the machine's cores.
 *
 * COUNT_FILE=FILE   writes the counts there when the program ends, as JSON; bench/counts reads it
 * COUNT_FROM=N      counts from about the N-th allocation on, so that what is still warming up is left out
 * COUNT_TO=N        counts to about the N-th allocation
 * COUNT_TURNS=1     a thread yields after each change of a shared word: as many take turns as there are threads, where
 *                   few processors would let each run for milliseconds
 *
 * LIFETIME    Static tables, never freed, and no call into the library: nothing of it is allocated or changed by counting.
 */
#ifndef COUNT_COUNT_H
#define COUNT_COUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* One place in the code, as often as it is compiled. */
struct count_site {
    const char *file, *function, *word;
    uint64_t line;
    uint64_t steps, failed, moved; /* any thread adds */
} GR_LINE;

/* They stand in a section of their own, one behind the other. */
#define COUNT_SITE(w)                                                                                                  \
    static struct count_site site_                                                                                     \
        __attribute__((section("count_sites"), used)) = {__FILE__, __func__, #w, __LINE__, 0, 0, 0}

void gr_count_load(struct count_site *site, const volatile void *at);
void gr_count_store(struct count_site *site, const volatile void *at, size_t bytes);

/* An atomic read-modify-write; `done`: it was no compare-and-swap that failed. */
void gr_count_change(struct count_site *site, const volatile void *at, bool done);

#endif
