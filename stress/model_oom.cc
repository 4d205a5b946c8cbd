/* model_oom.cc -- api/oom.c as shipped: callbacks are set by two threads and called by a third, each with the context that its maker
 * has filled, and handed on by the one that follows.
 *
 * covers: S125 S136 C2
 */
#include "model/c.h"

#include "base/limits.h"
#include "os/options.h"

/* Relacy's name for it is taken back: it is the fiber's only thread's. */
#define errno (*__errno_location())

#include "api/oom.c"

enum { THREADS = 3 };

/* No stretch is in another, no thread in a slow path. */
bool os_stretch_begin(struct os_stretch *) { return true; }
void os_stretch_end(struct os_stretch *) {}
thread_local volatile int gr_inside;
uint64_t option_get(enum option) { return OOM_NULL; }
struct limit gr_limit;
uint64_t gr_limit_least(void) { return UINT64_MAX; }
void gr_fatal_memory(size_t, uint64_t, uint64_t) { abort(); }

static int call(size_t n, void *context);

struct oom_model : model::suite<oom_model, THREADS, 1, 1> {
    struct granary_oom_callback pair[2];
    rl::var<unsigned> filled[2]; /* by who sets it */
    bool followed[2];

    void set_up() {
        bind(&asked, nullptr);
        for (unsigned i = 0; i < 2; i++) {
            pair[i] = {call, &filled[i]};
            filled[i]($) = 0;
            followed[i] = false;
        }
    }
    void run(unsigned t) {
        if (t == 2) {
            errno = 0;
            bool again = gr_asks_again(100);
            RL_ASSERT(errno == (again ? 0 : ENOMEM)); /* ENOMEM: none was set yet */
            return;
        }
        filled[t]($) = 7;
        const struct granary_oom_callback *before = granary_set_oom_callback(&pair[t]);
        if (before) {
            RL_ASSERT(before == &pair[!t] && call(0, before->context));
            followed[!t] = true;
        }
    }
    void check() {
        RL_ASSERT(followed[0] != followed[1]); /* each but the last is handed on */
        RL_ASSERT(model::final_value(&asked) == (uintptr_t)&pair[followed[0]]);
    }
};

static int call(size_t, void *context) { return (*static_cast<rl::var<unsigned> *>(context))($).load() == 7; }

int main(int argc, char **argv) {
    return model::main_of<oom_model>(argc, argv, {"oom", {"set"}, {}, {"api/oom.c"}, {3}});
}
