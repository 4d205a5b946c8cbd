/* api/oom.h -- a request that cannot be met: who is asked, and what it comes to.
 *
 * PURPOSE     Every request for which there is no memory, when all that lies idle has gone back, comes to gr_asks_again: the program's
 *             callback may have it tried again; else `oom:null|abort` decides.
 *
 * OWNS        A pointer to the program's pair of a callback and its context: who reads the pointer has both, as they were set.
 *
 * LIFETIME    The pair is the program's, for good: who has read the pointer may call it much later.
 *
 * INVARIANTS
 *   nothing-held  Who asks is in no slow path, so the callback may do what a program may do between two calls: allocate, free, trim,
 *                 fork, jump out, end its thread. A handler that interrupted a slow path does not ask.
 *   asked-once    In a quiet stretch nobody is asked and nothing aborts: the request is refused. The callback runs in one; so does what
 *                 can do without the block, or asks for itself when it is refused.
 *
 * EDGES       asked    set -> asks, set    callback and context, by whoever made the pair
 *
 * WHY a stretch and not a mark on the thread: the callback may leave by longjmp, and a mark would stay. The stretch is in libc's list of
 *     what to do when a thread ends, which longjmp shortens; it needs no storage of ours, so a thread without a cache has it too.
 */
#ifndef API_OOM_H
#define API_OOM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "os/os.h"

/* On the stack. errno is afterwards what it was. */
struct quiet {
    struct os_stretch stretch;
    int error;
};

/* True: it is in no other one. */
GR_INLINE bool quiet_begin(struct quiet *q) {
    q->error = errno;
    return os_stretch_begin(&q->stretch);
}
GR_INLINE void quiet_end(struct quiet *q) {
    os_stretch_end(&q->stretch);
    errno = q->error;
}

/* There is no memory for n bytes, and what lies idle has gone back. True: the request is to be tried again. False: it has failed, and errno
 * is ENOMEM. Outside slow paths; it may not return. */
GR_COLD bool gr_asks_again(size_t n);

#endif
