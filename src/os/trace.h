/* os/trace.h -- which calls led here, for a report.
 *
 * PURPOSE     The chain of frame pointers is followed: no lock, no allocation, no table of the compiler's; a signal handler may do
 *             it. Code that was compiled without frame pointers leaves no link: behind it the chain ends, or goes on where that
 *             code's caller left it.
 *
 * INVARIANTS
 *   asked-first  No page is read before the system has said that it can be: a link may be any number. So a thread's stack may be
 *                of any size and anywhere, a signal handler's too.
 */
#ifndef OS_TRACE_H
#define OS_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/limits.h"

struct trace {
    uint32_t thread; /* the system's number of it; 0: there is no trace */
    uint32_t depth;
    const void *call[TRACE_FRAMES]; /* addresses to which the calls return, the innermost first */
};

/* This thread's calls from a frame on, a __builtin_frame_address(0): there is one. */
void gr_trace(const void *frame, struct trace *out);

/* The same from what a register held, with the instruction at `code` before them. */
void gr_trace_from(const void *code, const void *frame, struct trace *out);

/* On stderr: "granary:   <what> thread <n>", and a line for each call, with file and address in it as addr2line wants them, if the
 * system can tell without a lock. */
GR_COLD void gr_trace_print(const char *what, const struct trace *t);

#endif
