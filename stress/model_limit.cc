/* model_limit.cc -- page/limit.c as shipped: bytes taken and given under a hard limit by all threads at once, never above it, none
 * lost, none refused that would have fitted; the limit of a group that two threads learn of.
 *
 * That arenas and huge blocks take and give what they have is in the models of these: they compile page/limit.c, too.
 *
 * covers: S125 C2 C4
 */
#include "model/c.h"

#include "base/limits.h"
#include "os/options.h"

enum { THREADS = 3, HARD = 100, GROUP = 64 << 20 };

static uint64_t hard;
uint64_t option_get(enum option which) { return which == OPTION_LIMIT_HARD ? hard : OPTION_AUTO; }
bool gr_cgroup_limit(const char *, uint64_t *bytes) {
    *bytes = GROUP;
    return true;
}

#include "page/limit.c"

struct limit_model : model::suite<limit_model, THREADS, 1, 4> {
    uint64_t held;
    unsigned refused;

    enum { TOO_MUCH, ALL_FITS, ASK, ASK_AGAIN };
    static constexpr uint64_t soft = GROUP - GROUP / 16; /* what is made of the group's limit */

    /* The last program's heap is smaller than when it was relieved. */
    void set_up() {
        hard = model::program >= ASK ? UINT64_MAX : uint64_t{HARD};
        bind(&gr_limit.footprint, 0);
        bind(&gr_limit.near, model::program == ASK_AGAIN ? 2 * soft : UINT64_MAX);
        bind(&gr_limit.group, model::program == ASK_AGAIN ? soft : CGROUP_NO_LIMIT);
        bind(&gr_limit.ask_ms, 0);
        held = 0;
        refused = 0;
    }
    bool take(uint64_t bytes) {
        bool taken = gr_limit_take(bytes);
        held += taken ? bytes : 0;
        refused += !taken;
        RL_ASSERT(held <= hard); /* below-hard */
        return taken;
    }
    void give(uint64_t bytes) {
        held -= bytes;
        gr_limit_give(bytes);
    }

    void too_much(unsigned t) {
        static const uint64_t want[THREADS] = {60, 60, 30};
        if (take(want[t]) && t != 1)
            give(want[t]);
        take(t == 2 ? HARD : 50);
    }
    void all_fits(unsigned t) {
        static const uint64_t want[THREADS] = {60, 30, 10};
        for (unsigned i = 0; i < 2; i++) {
            take(want[t]);
            give(want[t]);
        }
        take(want[t]);
    }

    void run(unsigned t) {
        if (model::program == TOO_MUCH)
            too_much(t);
        else if (model::program == ALL_FITS)
            all_fits(t);
        else
            gr_limit_ask(1);
    }
    void check() {
        RL_ASSERT(model::final_value(&gr_limit.footprint) == held);
        RL_ASSERT(model::program != ALL_FITS || (!refused && held == HARD));
        if (model::program >= ASK) { /* whoever asked, what holds now stands */
            RL_ASSERT(model::final_value(&gr_limit.group) == soft);
            RL_ASSERT(model::final_value(&gr_limit.near) == soft);
            RL_ASSERT(model::final_value(&gr_limit.ask_ms) == 1 + LIMIT_ASK_MS);
        }
    }
};

int main(int argc, char **argv) {
    return model::main_of<limit_model>(
        argc, argv,
        {"limit", {"too-much", "all-fits", "ask", "ask-again"}, {}, {"page/limit.c", "page/limit.h"}, {3, 3, 2, 2}});
}
