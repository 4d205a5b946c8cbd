/* os/fatal.h -- the last line of a program that misused us, or that we failed.
 *
 * PURPOSE     One line on stderr by write(2), then abort. Nothing here allocates, locks or uses stdio, so that a
 *             SIGABRT handler may allocate.
 */
#ifndef OS_FATAL_H
#define OS_FATAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* A line under construction, on the caller's stack. What does not fit is cut. */
struct line {
    size_t used;
    char text[240];
};

void line_text(struct line *l, const char *text);
void line_number(struct line *l, uint64_t n);
void line_pointer(struct line *l, const void *p);
void line_write(struct line *l, int fd); /* adds the newline */

/* "granary: FATAL <what>: ", and the same with "<call>(<p>". A report of several lines begins so and ends by gr_abort. */
void line_fatal(struct line *l, const char *what);
void line_call(struct line *l, const char *what, const char *call, const void *p);
GR_COLD GR_NORETURN void gr_abort(void);

/* "granary: FATAL <what>: <call>(<p>) <detail>", then abort. */
GR_COLD GR_NORETURN void gr_fatal_pointer(const char *what, const char *call, const void *p, const char *detail);

/* "... <call>(<p>) of a <bytes>-byte block" */
GR_COLD GR_NORETURN void gr_fatal_block(const char *what, const char *call, const void *p, size_t bytes);

/* "... <call>(<p>) is not the start of a block (<bytes>-byte blocks)" */
GR_COLD GR_NORETURN void gr_fatal_inside(const char *call, const void *p, size_t bytes);

/* "granary: FATAL wrong size: <call>(<p>, <size>) of a <bytes>-byte block" */
GR_COLD GR_NORETURN void gr_fatal_size(const char *call, const void *p, size_t size, size_t bytes);

/* "granary: FATAL <what>: byte <at - p> of the free <bytes>-byte block <p>" */
GR_COLD GR_NORETURN void gr_fatal_written(const char *what, const void *at, const void *p, size_t bytes);

/* "granary: FATAL out of memory: <bytes> bytes wanted, <in_use> in use, limit <limit>"; UINT64_MAX: "no limit set" */
GR_COLD GR_NORETURN void gr_fatal_memory(size_t bytes, uint64_t in_use, uint64_t limit);

/* "granary: FATAL <text>" */
GR_COLD GR_NORETURN void gr_fatal(const char *text);

/* "granary: warning: <text><detail>": goes on. */
GR_COLD void gr_warn(const char *text, const char *detail, size_t detail_bytes);

#endif
