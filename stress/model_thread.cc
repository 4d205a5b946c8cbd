/* model_thread.cc -- cache/thread.c, cache/keeper.c, page/meta.c and the gates of cache/reclaim.c as shipped: threads that come
 * and go, a taker at the records that they leave and find, a census; what a forked child does with the cache of a thread that
 * vanished; and the keeper, started by one thread, stopped by the last.
 *
 * Caches are empty here: what a magazine goes through is in `model_reclaim.cc`. What a record holds is one plain field, which
 * its thread and its taker touch; likewise what one keeper notes for the next, and the number of its thread. The system's
 * threads are the model's: the third thread is the keeper whenever one was started. Waiting and joining give no edge but
 * what pthread promises.
 *
 * covers: S125 C2 C3
 */
#include "model/c.h"

#include "base/bits.h"
#include "base/limits.h"
#include "base/stack.h"
#include "central/bin.h"
#include "central/depot.h"
#include "central/magazine.h"
#include "os/options.h"
#include "os/os.h"
#include "page/limit.h"
#include "page/meta.h"
#include "page/purge.h"

#define EACH_CLASS(value) value /* one will do, nobody looks at the others */
#undef CLASS_BY_16
#define CLASS_BY_16                                                                                                    \
    {}

static bool heavy_fence(SEAM_HERE) {
    seam::fence("heavy_fence", function, file, line);
    return true;
}
#define os_heavy_fence()   heavy_fence()
#define limit_poll(now_ms) ((void)(now_ms))

#include "page/meta.c"
#undef chunks
#include "cache/thread.c"

#define gr_caches_reclaim gr_caches_reclaim_all
#include "cache/reclaim.c"
#undef gr_caches_reclaim
#define CLASSES 1u /* a turn's length */
#include "cache/keeper.c"
#undef CLASSES

enum { THREADS = 3, USERS = 2, KEEPER = 2, RECORDS = 2, ALL = 3, NOBODY = -1 };

/* ---- the small world ---- */

alignas(CACHE_BYTES) static char chunk[(ALL + 1) * CACHE_BYTES];

struct thread_model;
static thread_model *now;
static void touch(struct cache *c);
static void begin(struct cache *c);
static void end(struct cache *c);
static void note();
static bool start_keeper(void (*body)(void), uint64_t *thread);
static void join_keeper(uint64_t thread);
static void wait_at(const struct half *w, uint32_t seen, unsigned most_ms);
static void wake_at(const struct half *w);

/* A thread's own: kept for it while others run. */
static struct {
    struct cache *self;
    int inside;
} own[THREADS];
static unsigned running;
static void switch_over() {
    unsigned t = rl::thread_index();
    if (t == running)
        return;
    own[running].self = gr_self;
    own[running].inside = gr_inside;
    running = t;
    gr_self = own[t].self;
    gr_inside = own[t].inside;
}

static void (*hook)(void *);
static bool no_hooks, no_threads, small;
static uint64_t granules; /* mapped */
static unsigned work;     /* turns that may find something to do */
static uint64_t clock_ms;

bool os_at_thread_exit(void (*body)(void *), void *) {
    hook = body;
    return !no_hooks;
}
void *os_map(size_t) { abort(); }
bool os_unmap(void *, size_t) { abort(); }
uint64_t os_clock_ms(void) { return clock_ms += ASK_MS; }
uint32_t os_process(void) { return 1; }
bool os_start_thread(void (*body)(void), uint64_t *thread) { return start_keeper(body, thread); }
void os_join_thread(uint64_t thread) { join_keeper(thread); }
void os_wait(const struct half *word, uint32_t seen, unsigned most_ms) { wait_at(word, seen, most_ms); }
void os_wake(const struct half *word) { wake_at(word); }
uint64_t option_get(enum option) { return 1; }

void gr_cache_init(struct cache *c) { begin(c); }
void gr_cache_flush(struct cache *c, bool) { end(c); }
uint64_t gr_cache_drop_reserve(struct cache *c, unsigned class, bool) {
    if (class == 1)
        touch(c);
    return 0;
}
void gr_cache_drop_empties(struct cache *) {}
void gr_cache_tick(struct cache *c, uint64_t) {
    if (c)
        touch(c);
}
uint32_t gr_cache_clock(uint64_t) { return 0; }
void gr_bin_return(unsigned, void *const *, unsigned, const char *) {}
uint64_t gr_bin_activity(unsigned) { return 0; }
bool gr_bin_was_returned_to(unsigned) { return false; }
uint64_t gr_depot_activity(unsigned) { return 0; }
void gr_depot_drain(unsigned, bool) {}
void gr_depot_dissolve(unsigned) {}
void gr_bin_gather(unsigned, unsigned) {}
void gr_bin_gathered(unsigned) {}
void gr_bin_judge(unsigned) {}
void gr_depots_tick(uint32_t) { note(); }
uint64_t gr_caches_reclaim(bool) { /* there may be something to do, of all times when it has just fallen asleep */
    return work && model::final_value(&gr_keeper) == KEEPER_ASLEEP && rl::rand(2) && work--;
}
bool gr_purge_poll(uint64_t) { return false; }
void gr_purge_poll_sparse(void) {}
uint64_t gr_vacant_dirty(void) { return 0; }
uint64_t gr_granules_mapped(void) { return granules; }
struct arena_totals gr_arena_totals(void) {
    return arena_totals{small && rl::thread_index() == KEEPER ? 0u : granules, 0, 0};
}
const struct size_class gr_classes[CLASS_SLOTS] = {};
struct half gr_repair_pending;
void gr_repair_deferred(void) {}
void gr_salvage(struct cache *c) {
    end(c);
    gr_thread_bury(c);
}
void gr_check_failed(const char *what, const char *, int) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}

/* ---- the model ---- */

struct thread_model : model::suite<thread_model, THREADS, 2 + 1 + 5 * ALL, 5> {
    rl::var<unsigned> contents[ALL + 1]; /* of the records */
    rl::var<unsigned> made[ALL + 1];     /* what their thread initialised */
    bool live[ALL + 1];                  /* somebody's, between birth and end */
    unsigned ended;                      /* users */

    /* The keeper: notes of its turns, its thread's number, and what pthread orders. */
    rl::var<unsigned> notes, number;
    rl::atomic<uint32_t> born, gone;
    void (*body)(void);
    unsigned started, joined;
    bool runs, waits, idle, joins[THREADS];

    static bool is_keeper_program() { return model::program >= 5; }
    static struct cache *record(unsigned i) { return (struct cache *)(chunk + i * CACHE_BYTES); }
    static unsigned number_of(struct cache *c) { return (unsigned)(((char *)c - chunk) / CACHE_BYTES); }

    void set_up() {
        memset(chunk, 0, sizeof chunk);
        running = 0;
        for (auto &o : own)
            o.self = &gr_nobody, o.inside = 0;
        gr_self = &gr_nobody;
        gr_inside = 0;
        no_hooks = model::program == 3;
        no_threads = model::program == 9;
        small = model::program == 8;
        clock_ms = 0;
        work = model::program == 7 ? 2 : 0;
        started = joined = ended = 0;
        body = nullptr;
        runs = waits = idle = false;
        for (auto &j : joins)
            j = false;
        notes($) = 0;
        number($) = 0;
        born.store(0, rl::mo_relaxed, $);
        gone.store(0, rl::mo_relaxed, $);
        keeper.thread = 0;
        keeper.seen[1] = 0;
        keeper.done[1] = false;
        keeper.turns = 0;
        granules = 0;
        gr_keeper_forget();
        granules = KEEPER_FROM_GRANULES;
        now = this;
        if (is_keeper_program()) {
            ref_store_relaxed(&caches.first, chunk);
            half_store_relaxed(&caches.fresh, 1);
            bind(&gr_keeper, KEEPER_ABSENT);
            bind(&living, 0);
        } else {
            bind(&caches.first, chunk);
            bind(&caches.fresh, 1);
            bind(&buried.head, 0);
            bind(&alive, 0);
            for (unsigned i = 1; i <= ALL; i++) {
                bind(&record(i)->next, 0);
                bind(&record(i)->state, CACHE_UNUSED);
                bind(&record(i)->gate, GATE_OPEN);
                bind(&record(i)->inside, 0);
            }
        }
        for (unsigned i = 1; i <= ALL; i++) {
            contents[i]($) = 0;
            made[i]($) = 0;
            live[i] = false;
        }
        half_store_relaxed(&gr_forks, 0);
        half_store_relaxed(&orphans, 0);
        if (is_child())
            leave_orphan();
    }

    static bool is_child() { return model::program == 4; }

    /* A record of a thread that vanished. The heap has grown since, so that whoever comes by looks for it. */
    void leave_orphan() {
        bind(&orphans, 0);
        for (unsigned i = 1; i <= ALL; i++)
            bind(&record(i)->forks, 0);
        half_store_relaxed(&gr_forks, 1);
        half_store_relaxed(&caches.fresh, 2);
        half_store_relaxed(&record(1)->state, CACHE_LIVE);
        record(1)->index = 1;
        word_store_relaxed(&alive, 1);
        live[1] = true;
    }

    /* ---- what users do ---- */

    /* The survivor's last step at the orphan, which it was in when the fork came. */
    void survive() {
        touch(record(1));
        gr_orphans_show();
        granules++;
    }

    void birth() { slow_path(); }
    void slow_path() {
        slow_enter();
        if (struct cache *c = thread_cache()) {
            RL_ASSERT(live[number_of(c)]);
            touch(c);
        }
        slow_leave();
    }
    void depart() {
        if (gr_self->index)
            hook(gr_self);
    }
    void poll() { keeper_poll(); }
    void tick() {
        slow_enter();
        gr_slow_tick();
        slow_leave();
    }
    static void look(struct cache *c, void *) { now->made[number_of(c)]($).load(); }

    /* ---- programs ---- */

    void run(unsigned t) {
        if (is_keeper_program() && t == KEEPER)
            return keep_thread();
        switch (model::program) {
        case 0: /* births and ends, of three */
            birth();
            depart();
            break;
        case 1: /* births beside a census, which waits for no end */
            if (t == 2) {
                gr_each_cache(look, nullptr);
                break;
            }
            birth();
            break;
        case 2: /* a taker */
            if (t == 2) {
                gr_caches_reclaim_all(false);
                break;
            }
            birth();
            depart();
            break;
        case 3: /* no hook to be had */
            if (t == 2) {
                gr_caches_reclaim_all(false);
                break;
            }
            birth();
            break;
        case 4: /* an orphan is brought home, by one, while others take what is idle; who finds it in the pool uses it */
            if (t == 0)
                survive();
            if (t == 2) {
                gr_caches_reclaim_all(false);
                tick();
                break;
            }
            birth();
            tick();
            depart();
            break;
        case 5: /* two that may be last, and may start it */
            birth();
            if (t == 0)
                poll();
            else
                poll();
            depart();
            break;
        case 6: /* the last one ends as another begins */
            if (t == 1)
                poll(); /* it has no cache yet */
            else
                birth();
            depart();
            break;
        case 7: /* asleep and woken, and the end meanwhile; the fewer, the deeper */
            if (t == 1)
                break;
            birth();
            poll();
            tick();
            depart();
            break;
        case 8: /* ended, and started anew beside the end of the process */
            birth();
            poll();
            if (t == 0)
                poll();
            else
                gr_keeper_reap();
            depart();
            break;
        default: /* no thread to be had */
            birth();
            poll();
            depart();
        }
        if (is_keeper_program() && ++ended == USERS) {
            RL_ASSERT(!runs); /* the last thread has stopped it */
            if (idle)
                rl::ctx().unpark_thread(KEEPER, false, $);
            idle = false;
        }
    }

    /* ---- the system's threads ---- */

    void park() {
        rl::ctx().park_current_thread(false, false, false, $);
        switch_over();
    }
    void keep_thread() {
        while (ended < USERS) {
            if (!body) {
                idle = true;
                park();
                continue;
            }
            born.fetch_add(0, rl::mo_acquire, $);
            switch_over();
            void (*now_runs)(void) = body;
            body = nullptr;
            now_runs();
            runs = false;
            gone.store(started, rl::mo_release, $);
            switch_over();
            for (unsigned t = 0; t < USERS; t++)
                if (joins[t]) {
                    joins[t] = false;
                    rl::ctx().unpark_thread((rl::thread_id_t)t, false, $);
                }
        }
    }
    bool start(void (*what)(void), uint64_t *thread) {
        if (no_threads)
            return false;
        RL_ASSERT(!runs && joined == started); /* one at a time */
        runs = true;
        started++;
        born.store(started, rl::mo_release, $);
        switch_over();
        body = what;
        if (idle)
            rl::ctx().unpark_thread(KEEPER, false, $);
        idle = false;
        number($) = started;
        *thread = started;
        return true;
    }
    void join(uint64_t thread) {
        RL_ASSERT((unsigned)number($) == thread && thread == started && joined < started); /* once */
        joined++;
        for (;;) {
            uint32_t seen = gone.fetch_add(0, rl::mo_acquire, $);
            switch_over();
            if (seen == thread)
                return;
            joins[rl::thread_index()] = true;
            park();
        }
    }
    void wait(const struct half *w, uint32_t seen, unsigned most_ms) {
        uint32_t value = seam::find_cell(w)->narrow->fetch_add(0, rl::mo_relaxed, $);
        switch_over();
        if (value != seen)
            return;
        if (most_ms) {
            if (seen == KEEPER_STARTING) { /* a loop that others end */
                rl::yield(1, $);
                switch_over();
            }
            return;
        }
        waits = true;
        park();
    }
    void wake(const struct half *) {
        if (waits)
            rl::ctx().unpark_thread(KEEPER, false, $);
        waits = false;
    }

    /* ---- in the end ---- */

    void check() {
        if (is_keeper_program()) {
            uint64_t state = model::final_value(&gr_keeper);
            RL_ASSERT(joined == started && model::final_value(&living) == 0);
            RL_ASSERT(state == KEEPER_ABSENT || (no_threads && state == KEEPER_REFUSED));
            return;
        }
        unsigned waiting[ALL + 1] = {0}, all = (unsigned)model::final_value(&caches.fresh) - 1, lives = 0;
        RL_ASSERT(all <= ALL);
        for (uint32_t i = stack_top(model::final_value(&buried.head)), n = 0; i;
             i = (uint32_t)model::final_value(&record(i)->next)) {
            RL_ASSERT(i <= all && ++n <= all);
            waiting[i]++;
        }
        for (unsigned i = 1; i <= all; i++) {
            RL_ASSERT(waiting[i] + live[i] == 1);
            RL_ASSERT((model::final_value(&record(i)->state) == CACHE_LIVE) == live[i]);
            RL_ASSERT(model::final_value(&record(i)->gate) == GATE_OPEN);
            RL_ASSERT(model::final_value(&record(i)->inside) == 0);
            lives += live[i];
        }
        RL_ASSERT(model::final_value(&alive) == lives && lives == (model::program == 1 ? USERS : 0));
    }
};

static void touch(struct cache *c) {
    if (!thread_model::is_keeper_program()) /* there the pool is no step */
        now->contents[thread_model::number_of(c)]($) = 1 + rl::thread_index();
}
static void begin(struct cache *c) {
    unsigned i = thread_model::number_of(c);
    RL_ASSERT(!now->live[i]);
    now->live[i] = true;
    if (!thread_model::is_keeper_program())
        now->made[i]($) = 1;
    touch(c);
}
static void end(struct cache *c) {
    unsigned i = thread_model::number_of(c);
    RL_ASSERT(now->live[i]);
    now->live[i] = false;
    touch(c);
}
static void note() { now->notes($) = 1; }
static bool start_keeper(void (*body)(void), uint64_t *thread) { return now->start(body, thread); }
static void join_keeper(uint64_t thread) { now->join(thread); }
static void wait_at(const struct half *w, uint32_t seen, unsigned most_ms) { now->wait(w, seen, most_ms); }
static void wake_at(const struct half *w) { now->wake(w); }

int main(int argc, char **argv) {
    seam::on_return = switch_over;
    return model::main_of<thread_model>(
        argc, argv,
        {"thread",
         {"births", "census", "taker", "hookless", "child", "start", "late", "asleep", "again", "refused"},
         {},
         {"cache/thread.c", "cache/keeper.c", "cache/keeper.h"},
         {1, 2, 1, 1, 1, 2, 2, 2, 2, 2}});
}
