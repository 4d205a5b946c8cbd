/* model_guard.cc -- page/guard.c and page/arena.c as the hardened build has them, with a line of one run: large blocks freed, held
 * back and flushed by all threads at once, opened by who claims them next; guards refused by the system; a chunk with guarded
 * granules unmapped and mapped again.
 *
 * A granule's memory is a plain variable: its holder writes it, and the system, which guards, opens and purges it.
 *
 * covers: S125 C2 C5
 */
#define GRANARY_HARDENED 1
#include "model/c.h"

#include "base/bits.h"
#include "base/limits.h"

#include "os/options.h"
#include "os/os.h"

#define HELD_BACK_RUNS      1
#define SPLIT_FROM_GRANULES 2 /* so both kinds of guards are there */

enum { THREADS = 3, CHUNK = 1, FIRST = CHUNK * CHUNK_GRANULES, WATCHED = 4 };

/* ---- the system ---- */

struct word gr_region_base = {1ull << 40};
static void purge_at(void *at, size_t bytes);
static bool guard_at(void *at, size_t bytes, bool split);
static bool unguard_at(void *at, size_t bytes, bool split);
static void map_chunk(size_t first, bool there);

bool os_purge(void *at, size_t bytes) {
    purge_at(at, bytes);
    return true;
}
bool os_guard(void *at, size_t bytes, bool split) { return guard_at(at, bytes, split); }
bool os_unguard(void *at, size_t bytes, bool split) { return unguard_at(at, bytes, split); }
bool os_guards_split(void) { return false; }
bool os_unmap(void *at, size_t) {
    map_chunk(((uintptr_t)at - gr_region_base.value) >> GRANULE_SHIFT, false);
    return true;
}
enum os_result gr_region_map(size_t first, size_t) {
    map_chunk(first * CHUNK_GRANULES, true);
    return OS_OK;
}
size_t os_page_bytes(void) { return 4096; }
bool os_residence(void *, size_t, uint8_t *) { return false; }
void os_want_huge_pages(void *, size_t, bool) {}
void *os_map(size_t) { return nullptr; }
bool gr_region_boot(void) { return true; }
bool gr_thp_may(size_t, size_t, bool) { return false; }
bool gr_thp_may_early(void) { return false; }
bool gr_thp_by_run(void) { return false; }
bool gr_thp_ask(size_t, size_t, size_t) { return true; }
void gr_thp_ask_no_more(size_t, size_t) {}
void gr_meta_count_mapped(uint64_t) {}
uint8_t gr_purge_tick(void) { return 0; }
uint64_t option_get(enum option) { return OPTION_NEVER; }
bool gr_cgroup_limit(const char *, uint64_t *) { return false; }
void gr_check_failed(const char *what, const char *, int) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}

#include "page/limit.c"
#include "page/page_map.c"
#include "page/arena.c"
#include "page/guard.c"

/* ---- the model ---- */

struct guard_model;
static guard_model *now;

struct guard_model : model::suite<guard_model, THREADS, 1, 7> {
    enum { LINE, TAIL, REFUSED, UNMAP };
    enum { NOBODY = -1 };
    rl::var<unsigned> memory[WATCHED];
    int holder[CHUNK_GRANULES];
    bool guarded[CHUNK_GRANULES]; /* by the system */
    bool split[CHUNK_GRANULES];   /* likewise, and by a mapping of its own */
    bool mapped;
    uint64_t in_play; /* granules that somebody holds or finds vacant, always */

    /* The first `held` granules are held by threads 0 and 1 and dirty, those in `vacant` are so and clean. */
    void start(unsigned held, uint64_t vacant) {
        for (unsigned i = 0; i < CHUNK_GRANULES; i++) {
            holder[i] = i < held ? (int)(i % 2) : NOBODY;
            guarded[i] = split[i] = false;
        }
        for (unsigned i = 0; i < WATCHED; i++)
            memory[i]($) = i < held ? 99 : 0;
        mapped = true;
        in_play = vacant | bits_span(0, held);
        ref_store_relaxed(&gr_arenas[0], &first_arena);
        word_store_relaxed(&arenas.count, 1);
        word_store_relaxed(&arenas.roomy[0], 1);
        word_store_relaxed(&gr_limit.footprint, held * GRANULE_BYTES);
        for (unsigned c = 0; c < ARENA_CHUNKS; c++)
            half_store_relaxed(&first_arena.chunk[c], CHUNK_FOREIGN);
        bind(&first_arena.chunk[CHUNK], CHUNK_MAPPED);
        bind(&first_arena.vacant[CHUNK], vacant);
        bind(&first_arena.dirty[CHUNK], bits_span(0, held));
        bind(&first_arena.guarded[CHUNK], 0);
        bind(&first_arena.split[CHUNK], 0);
        bind(&arenas.split, 0);
        bind(&guards.at, 0);
        bind(&guards.line[0], 0);
        now = this;
    }
    void set_up() {
        if (model::program == UNMAP) {
            start(0, ~0ull);
            for (unsigned i = 2; i < 4; i++) /* what left the line is guarded still */
                guarded[i] = split[i] = true;
            word_store_relaxed(&first_arena.guarded[CHUNK], 0b1100);
            word_store_relaxed(&first_arena.split[CHUNK], 0b1100);
            word_store_relaxed(&arenas.split, 2);
        } else {
            start(model::program == TAIL ? 0 : 2, model::program == TAIL ? 0b0111 : 0b0100);
        }
    }

    /* ---- what holders do ---- */

    void touch(unsigned t, size_t first, size_t n, bool is_new) {
        for (size_t g = first; g < first + n; g++) {
            size_t i = g - FIRST;
            RL_ASSERT(holder[i] == (int)t && !guarded[i] && !split[i] && mapped);
            bool dirty = true;
            if (is_new)
                gr_run_same_dirt(g, 1, &dirty);
            if (i < WATCHED) {
                RL_ASSERT(dirty || memory[i]($) == 0);
                memory[i]($) = t + 1;
            }
        }
    }
    void hold(size_t first, size_t n, int before, int after) {
        for (size_t i = first - FIRST; i < first - FIRST + n; i++) {
            RL_ASSERT(holder[i] == before);
            holder[i] = after;
        }
    }
    size_t claim(unsigned t, size_t n, size_t open) {
        size_t first = gr_run_claim(n, 1);
        if (!first)
            return 0;
        hold(first, n, NOBODY, (int)t);
        if (!gr_guard_open(first, n)) {
            hold(first, n, (int)t, NOBODY);
            gr_run_free(first, n);
            return 0;
        }
        gr_guard_tail(first, n, open * GRANULE_BYTES);
        touch(t, first, open, true);
        gr_run_mark_dirty(first, n);
        return first;
    }
    void give(unsigned t, size_t first, size_t n, size_t open) {
        if (!first)
            return;
        touch(t, first, open, false);
        hold(first, n, (int)t, NOBODY);
        gr_guard_free(first, n, open * GRANULE_BYTES);
    }

    /* ---- programs ---- */

    void line(unsigned t) { /* what one frees the other lets go, or a third */
        if (t == 2)
            gr_guard_flush();
        else
            give(t, FIRST + t, 1, 1);
        if (t != 1)
            claim(t, 1, 1);
    }
    void tail(unsigned t) {
        size_t n = t == 2 ? 1 : 2;
        give(t, claim(t, n, 1), n, 1);
        if (t == 2)
            gr_guard_flush();
    }
    void unmap(unsigned t) {
        if (t == 0) {
            gr_arenas_unmap_vacant();
        } else {
            size_t first = claim(t, 3, 3);
            if (t == 1)
                give(t, first, 3, 3);
        }
    }

    void run(unsigned t) {
        if (model::program == TAIL)
            tail(t);
        else if (model::program == UNMAP)
            unmap(t);
        else
            line(t);
    }

    /* ---- in the end ---- */

    void check() {
        uint64_t vacant = model::final_value(&first_arena.vacant[CHUNK]), held = 0, guards_known = 0, are_split = 0;
        uint64_t waits = model::final_value(&guards.line[0]), waiting = 0;
        uint64_t known = model::final_value(&first_arena.guarded[CHUNK]);
        uint64_t known_split = model::final_value(&first_arena.split[CHUNK]);
        if (waits)
            waiting = bits_span((unsigned)(waits >> 32) - FIRST, (unsigned)waits);
        for (unsigned i = 0; i < CHUNK_GRANULES; i++) {
            held |= (uint64_t)(holder[i] != NOBODY) << i;
            guards_known |= (uint64_t)guarded[i] << i;
            are_split |= (uint64_t)split[i] << i;
        }
        RL_ASSERT(!(vacant & held) && !(vacant & waiting) && !(held & waiting)); /* in one place */
        if (mapped)
            RL_ASSERT((vacant | held | waiting) == in_play);
        else
            RL_ASSERT(!(vacant | held | waiting | known | known_split));
        RL_ASSERT(((guards_known | are_split) & ~known) == 0 && (are_split & ~known_split) == 0); /* guard-known */
        RL_ASSERT(model::final_value(&arenas.split) == bits_count(known_split));
        uint64_t dirty = vacant & model::final_value(&first_arena.dirty[CHUNK]);
        RL_ASSERT(arenas.vacant_dirty.value == bits_count(dirty));
        RL_ASSERT(gr_limit.footprint.value == bits_count(held | waiting | dirty) * (uint64_t)GRANULE_BYTES);
    }
};

/* Of the granules of [at, at + bytes), a whole number of them. */
template <typename Body> static void each_granule(void *at, size_t bytes, Body body) {
    size_t from = (((uintptr_t)at - gr_region_base.value) >> GRANULE_SHIFT) - FIRST;
    for (size_t i = from; i < from + (bytes >> GRANULE_SHIFT); i++) {
        if (i < WATCHED)
            now->memory[i]($) = 0;
        body(i);
    }
}
static void purge_at(void *at, size_t bytes) {
    each_granule(at, bytes, [](size_t) {});
}
static bool refused() {
    RL_ASSERT(now->mapped);
    return model::program == guard_model::REFUSED && rl::rand(2);
}
static bool guard_at(void *at, size_t bytes, bool split) {
    if (refused())
        return false;
    each_granule(at, bytes, [=](size_t i) { (split ? now->split : now->guarded)[i] = true; });
    return true;
}
static bool unguard_at(void *at, size_t bytes, bool split) {
    if (refused())
        return false;
    each_granule(at, bytes, [=](size_t i) {
        now->guarded[i] = false;
        now->split[i] &= !split;
    });
    return true;
}
static void map_chunk(size_t first, bool there) {
    RL_ASSERT(first == FIRST && now->mapped != there);
    now->mapped = there;
    each_granule(region_address(first), CHUNK_BYTES, [](size_t i) {
        RL_ASSERT(now->holder[i] == guard_model::NOBODY);
        now->guarded[i] = now->split[i] = false;
    });
}

int main(int argc, char **argv) {
    return model::main_of<guard_model>(
        argc, argv,
        {"guard",
         {"line", "tail", "refused", "unmap"},
         {},
         {"page/guard.c", "gr_run_guarded", "gr_run_mark_guarded", "set_or_clear", "gr_run_mark_clean"},
         {2, 1, 1, 2}});
}
