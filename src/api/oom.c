/* api/oom.c -- see `api/oom.h`. */
#include "api/oom.h"

#include "base/atomic.h"
#include "cache/thread.h"
#include "granary.h"
#include "os/fatal.h"
#include "os/options.h"
#include "page/limit.h"

static struct ref asked; /* any thread writes: a const struct granary_oom_callback */

const struct granary_oom_callback *granary_set_oom_callback(const struct granary_oom_callback *callback) {
    return ref_swap_acq_rel(&asked, (void *)(uintptr_t)callback); /* [release asked] [acquire asked] */
}

bool gr_asks_again(size_t n) {
    struct quiet asking;
    bool again = false, loud = quiet_begin(&asking);
    const struct granary_oom_callback *callback = ref_load_acquire(&asked); /* [acquire asked] */
    if (loud && callback && !gr_inside)
        again = callback->call(n, callback->context) != 0;
    quiet_end(&asking);
    if (again)
        return true;
    if (loud && option_get(OPTION_OOM) == OOM_ABORT)
        gr_fatal_memory(n, limit_footprint(), gr_limit_least());
    errno = ENOMEM;
    return false;
}
