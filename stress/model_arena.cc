/* model_arena.cc -- page/arena.c, page/purge.c and page/large.c as shipped: runs over a word border claimed, undone, freed and
 * purged; chunks mapped for the first time, unmapped and mapped again; the hint that an arena has room.
 *
 * A granule's memory is a plain variable: its holder writes it, the system clears it, and whoever is told that a run is clean
 * reads zero. The footprint is what is held or dirty, in the end of each run.
 *
 * covers: S125 C2 C12
 */
#include "model/c.h"

#include "base/bits.h"
#include "base/limits.h"

#include "os/options.h"
#include "os/os.h"

/* ---- the system ---- */

enum { THREADS = 3, ARENAS = 2, CHUNKS = 3 };

struct word gr_region_base = {1ull << 40};
static bool mapped[ARENAS][CHUNKS];
static bool more_memory, second_may_be_made; /* the system has some */
static void clear_memory(size_t first, size_t n);
static size_t granule_of(void *at) { return ((uintptr_t)at - gr_region_base.value) >> GRANULE_SHIFT; }

bool os_purge(void *at, size_t bytes);
uint64_t os_clock_ms(void) { return 0; }
uint64_t os_clock_us(void) { return 0; }
static uint64_t hard; /* the limit */
uint64_t option_get(enum option which) { return which == OPTION_LIMIT_HARD ? hard : OPTION_NEVER; }
bool gr_cgroup_limit(const char *, uint64_t *) { return false; }
void gr_meta_count_mapped(uint64_t) {}
void *gr_huge_adopt(void *, size_t, size_t) { return nullptr; }
void gr_check_failed(const char *what, const char *, int) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}

#include "page/limit.c"
#include "page/page_map.c"
#include "page/arena.c"
#include "page/purge.c"
#include "page/large.c"

static struct arena second_arena, spare_arenas[3]; /* the latter have no room at all */
static unsigned spares_used;
static bool mapped_second[THREADS];
static void map_second();
void *os_map(size_t) {
    if (second_may_be_made && !model::final_value(&gr_arenas[1])) {
        map_second();
        return &second_arena;
    }
    return second_may_be_made && spares_used < 3 ? &spare_arenas[spares_used++] : nullptr;
}
bool os_unmap(void *at, size_t bytes) {
    if (bytes == sizeof(struct arena))
        return true;
    size_t first = granule_of(at);
    bool &there = mapped[first / ARENA_GRANULES][first % ARENA_GRANULES / CHUNK_GRANULES];
    RL_ASSERT(bytes == CHUNK_BYTES && there);
    clear_memory(first, CHUNK_GRANULES);
    there = false;
    return true;
}
static void purge_alone();
bool os_purge(void *at, size_t bytes) {
    purge_alone();
    clear_memory(granule_of(at), bytes >> GRANULE_SHIFT);
    return true;
}
size_t os_page_bytes(void) { return 4096; }
bool os_residence(void *, size_t, uint8_t *) { return false; }
bool gr_region_boot(void) { return mapped[0][0] = true; }
bool gr_thp_may(size_t, size_t, bool) { return false; }
bool gr_thp_may_early(void) { return false; }
bool gr_thp_by_run(void) { return false; }
bool gr_thp_ask(size_t, size_t, size_t) { return true; }
void gr_thp_ask_no_more(size_t, size_t) {}
void os_want_huge_pages(void *, size_t, bool) {}
enum os_result gr_region_map(size_t first, size_t chunks) {
    for (size_t c = first; c < first + chunks; c++) {
        RL_ASSERT(c / ARENA_CHUNKS < ARENAS && c % ARENA_CHUNKS < CHUNKS &&
                  !mapped[c / ARENA_CHUNKS][c % ARENA_CHUNKS]);
        if (!more_memory)
            return OS_NO_MEMORY;
        clear_memory(c * CHUNK_GRANULES, CHUNK_GRANULES);
        mapped[c / ARENA_CHUNKS][c % ARENA_CHUNKS] = true;
    }
    return OS_OK;
}

/* ---- the model ---- */

struct arena_model;
static arena_model *now;

struct arena_model : model::suite<arena_model, THREADS, ARENAS * CHUNKS + 2, 2 * ARENAS * CHUNKS + 7> {
    enum { FIRST = 60, WATCHED = 8, NOBODY = -1 }; /* granules around the border of words 0 and 1 */
    rl::var<unsigned> memory[WATCHED];
    rl::var<unsigned> second_is_there; /* written by the system when it maps the second arena's record */
    rl::atomic<unsigned> system;       /* a step inside a system call */
    int holder[ARENAS * ARENA_GRANULES];
    uint64_t in_play[CHUNKS]; /* granules of the first arena that somebody holds or finds vacant, always */
    int purgers, freed;
    bool grows, all_served;

    void bind_arena(struct arena *a, uint32_t state) {
        for (unsigned c = 0; c < ARENA_CHUNKS; c++) {
            if (c < CHUNKS) {
                bind(&a->chunk[c], state);
                bind(&a->vacant[c], 0);
                bind(&a->dirty[c], 0);
            } else {
                half_store_relaxed(&a->chunk[c], CHUNK_FOREIGN);
            }
        }
    }
    /* The chunks of the first arena are mapped; of their granules those in `vacant` and `dirty`, from FIRST on, are so. */
    void start(uint64_t vacant, uint64_t dirty) {
        std::fill(holder, holder + ARENAS * ARENA_GRANULES, NOBODY);
        for (unsigned i = 0; i < WATCHED; i++)
            memory[i]($) = dirty >> i & 1 ? 99 : 0;
        memset(mapped, true, sizeof mapped);
        more_memory = grows = second_may_be_made = false;
        all_served = true;
        hard = OPTION_NEVER;
        purgers = freed = 0;
        second_is_there($) = 0;
        system.store(0, rl::mo_relaxed, $);
        now = this;
        bind_arena(&first_arena, CHUNK_MAPPED);
        bind(&gr_arenas[0], &first_arena);
        bind(&arenas.count, 1);
        bind(&arenas.roomy[0], 1);
        bind(&purge.busy, 0);
        memset(in_play, 0, sizeof in_play);
        set_word(0, vacant << FIRST, (dirty | ~vacant) << FIRST);
        set_word(1, vacant >> (64 - FIRST), (dirty | ~vacant) >> (64 - FIRST));
        word_store_relaxed(&arenas.vacant_dirty, bits_count(vacant & dirty));
        word_store_relaxed(&arenas.mapped, ARENAS * CHUNKS * CHUNK_GRANULES);
    }
    void set_word(unsigned w, uint64_t vacant, uint64_t dirty) {
        word_store_relaxed(&first_arena.vacant[w], vacant);
        word_store_relaxed(&first_arena.dirty[w], dirty);
        in_play[w] = vacant;
    }
    /* Elsewhere the sums are no steps. */
    void bind_sums(uint64_t vacant_dirty) {
        bind(&arenas.vacant_dirty, vacant_dirty);
        bind(&arenas.mapped, ARENAS * CHUNKS * CHUNK_GRANULES);
    }
    /* Nothing was ever mapped, and the system has so many chunks for the first arena, enough for the second. */
    void start_empty(unsigned chunks) {
        start(0, 0);
        memset(mapped, false, sizeof mapped);
        more_memory = grows = second_may_be_made = true;
        bind_arena(&second_arena, CHUNK_UNMAPPED);
        bind(&gr_arenas[1], nullptr);
        for (unsigned c = 0; c < CHUNKS; c++) {
            set_word(c, 0, 0);
            half_store_relaxed(&first_arena.chunk[c], c < chunks ? CHUNK_UNMAPPED : CHUNK_FOREIGN);
        }
        for (auto &a : spare_arenas)
            for (auto &c : a.chunk)
                half_store_relaxed(&c, CHUNK_FOREIGN);
        spares_used = 0;
        memset(mapped_second, false, sizeof mapped_second);
        ref_store_relaxed(&gr_arenas[0], nullptr);
        word_store_relaxed(&arenas.count, 0);
        word_store_relaxed(&arenas.mapped, 0);
        word_store_relaxed(&arenas.roomy[0], 0);
    }

    /* ---- what holders do ---- */

    void hold(int t, size_t first, size_t n, int before) {
        for (size_t g = first; g < first + n; g++) {
            RL_ASSERT(holder[g] == before);
            holder[g] = t;
        }
        RL_ASSERT(held() <= hard / GRANULE_BYTES);
    }
    uint64_t held() const { /* granules */
        return (uint64_t)std::count_if(std::begin(holder), std::end(holder), [](int h) { return h != NOBODY; });
    }
    void touch(int t, size_t first, size_t n, bool is_new) {
        for (size_t g = first; g < first + n; g++) {
            RL_ASSERT(holder[g] == t && mapped[g / ARENA_GRANULES][g % ARENA_GRANULES / CHUNK_GRANULES]);
            if (g < FIRST || g >= FIRST + WATCHED)
                continue;
            bool dirty = true;
            if (is_new)
                gr_run_same_dirt(g, 1, &dirty);
            RL_ASSERT(dirty || memory[g - FIRST]($) == 0);
            memory[g - FIRST]($) = (unsigned)t + 1;
        }
    }
    void begin(unsigned t, size_t first, size_t n) {
        hold((int)t, first, n, NOBODY);
        touch((int)t, first, n, true);
        gr_run_mark_dirty(first, n);
    }
    size_t claim(unsigned t, size_t n) {
        size_t first = gr_run_claim(n, 1);
        if (first)
            begin(t, first, n);
        return first;
    }
    bool claim_at(unsigned t, size_t first, size_t n) {
        bool got = gr_run_claim_at(first, n);
        if (got)
            begin(t, first, n);
        return got;
    }
    void give(unsigned t, size_t first, size_t n) {
        if (!first)
            return;
        touch((int)t, first, n, false);
        hold(NOBODY, first, n, (int)t);
        gr_run_free(first, n);
    }

    /* ---- programs ---- */

    void start_undo() { start(0b00111100, 0b00110000); } /* dirty on one side of the border */
    void undo(unsigned t) {
        if (t == 0)
            give(t, claim(t, 3), 3);
        else if (t == 1)
            give(t, claim(t, 2), 2);
        else if (claim_at(t, 64, 2))
            give(t, 64, 2);
    }

    void start_home() {
        start(0, 0);
        hold(0, 62, 4, NOBODY);
        in_play[0] = 3ull << 62;
        in_play[1] = 3;
    }
    void home(unsigned t) {
        if (t == 0) {
            give(t, 62, 4);
            claim(t, 1);
        } else if (t == 1) {
            give(t, claim(t, 4), 4);
        } else {
            claim(t, 2);
        }
    }

    void start_clean() { start(0b00111100, 0b00111100); }
    void clean(unsigned t) {
        if (t == 0) {
            gr_purge_all(0);
        } else if (t == 1) {
            give(t, claim(t, 2), 2);
            gr_purge_all(0);
        } else {
            give(t, claim(t, 3), 3);
        }
    }

    void start_clean_mixed() {
        start(0b00001111, 0b00000011);
        bind_sums(2);
    }
    void clean_mixed(unsigned t) { /* dirty bits of one word set and cleared at once */
        if (t == 0)
            gr_purge_all(0);
        else if (t == 1 && claim_at(t, 62, 2))
            give(t, 62, 2);
        else if (t == 2)
            give(t, claim(t, 2), 2);
    }

    void start_clean_room() { start(0b00011000, 0b00011000); }
    void clean_room(unsigned t) { /* the purger takes what a claimer misses */
        if (t == 0)
            gr_purge_all(0);
        else
            claim(t, 1);
    }

    void start_first() { start_empty(1); }
    void start_first_wide() {
        start_empty(3);
        bind(&arenas.mapped, 0);
    }
    void first(unsigned t) {
        if (!claim(t, t == 2 ? 2 : 1))
            all_served = false;
    }

    void look(unsigned t) { /* arenas are born while somebody goes through them all */
        if (t != 2) {
            first(t);
            return;
        }
        gr_purge_all(0);
        gr_arenas_unmap_vacant();
        gr_arena_totals();
    }

    void start_room() { start(0b00011000, 0b00011000); }
    void room(unsigned t) { /* claims that empty the arena against frees */
        size_t first = claim(t, 1);
        if (t != 2)
            give(t, first, 1);
    }

    void start_limit() {
        start(0b00111100, 0b00001100);
        hard = 3 * GRANULE_BYTES;
    }
    void limit(unsigned t) { /* two dirty granules are paid for, two clean ones are one too many */
        if (t == 1)
            gr_purge_all(0);
        else if (t == 0)
            give(t, claim(t, 2), 2);
        claim(t, t == 2 ? 2 : 1);
    }

    void start_unmap() {
        start(0, 0);
        set_word(1, ~0ull, 3);
        word_store_relaxed(&arenas.vacant_dirty, 2);
        memory[4]($) = memory[5]($) = 99;
        in_play[1] = 0;
        more_memory = true;
    }
    void start_unmap_sums() {
        start_unmap();
        set_word(2, ~0ull, 1);
        in_play[2] = 0;
        bind_sums(3);
    }
    void unmap(unsigned t) { /* a chunk goes while others want it; they may map it again */
        if (t == 0) {
            gr_arenas_unmap_vacant();
        } else if (t == 1) {
            give(t, claim(t, 2), 2);
            gr_arenas_unmap_vacant();
        } else {
            claim(t, 1); /* may fail: while a chunk is on its way out there is no other */
        }
    }

    void start_free_twice() {
        start(0b01000000, 0);
        hold(0, 62, 2, NOBODY);
        in_play[0] |= 3ull << 62;
        bind(&first_arena.run[62], 2);
        gr_page_map_set(63, 1, CLASS_INSIDE);
        gr_page_map_set(62, 1, CLASS_LARGE);
    }
    void free_twice(unsigned t) {
        if (t == 2) {
            claim(t, 1);
            return;
        }
        if (holder[62] == 0)
            hold(NOBODY, 62, 2, 0);
        freed += gr_large_free(region_address(62));
    }

    static const struct program {
        const char *name;
        void (arena_model::*start)(), (arena_model::*run)(unsigned);
        model::bound bound = 1;
    } programs[];

    void set_up() {
        (this->*programs[model::program].start)();
        word_store_relaxed(&gr_limit.footprint, (held() + model::final_value(&arenas.vacant_dirty)) * GRANULE_BYTES);
    }
    void run(unsigned t) { (this->*programs[model::program].run)(t); }

    /* ---- in the end ---- */

    void check() {
        RL_ASSERT(all_served);
        RL_ASSERT(!strcmp(programs[model::program].name, "free-twice") == (freed == 1));
        RL_ASSERT(model::final_value(&purge.busy) == 0);
        uint64_t vacant_dirty = check_arena(0, &first_arena);
        if (grows)
            vacant_dirty += check_arena(1, &second_arena);
        RL_ASSERT(model::final_value(&arenas.vacant_dirty) == vacant_dirty);
        uint64_t chunks = 0;
        for (auto &a : mapped)
            chunks += (uint64_t)std::count(a, a + CHUNKS, true);
        RL_ASSERT(model::final_value(&arenas.mapped) == chunks * CHUNK_GRANULES);
        RL_ASSERT(gr_limit.footprint.value == (held() + vacant_dirty) * GRANULE_BYTES);
    }
    unsigned check_arena(size_t index, const struct arena *a) {
        uint64_t any = 0;
        unsigned vacant_dirty = 0;
        for (unsigned c = 0; c < CHUNKS; c++) {
            uint64_t vacant = model::final_value(&a->vacant[c]), held = 0;
            for (unsigned b = 0; b < 64; b++)
                held |= (uint64_t)(holder[index * ARENA_GRANULES + c * 64 + b] != NOBODY) << b;
            RL_ASSERT(!(vacant & held));
            if (vacant)
                RL_ASSERT(mapped[index][c] && model::final_value(&a->chunk[c]) == CHUNK_MAPPED); /* vacant-mapped */
            if (grows && mapped[index][c]) {
                RL_ASSERT((vacant | held) == (index + c ? ~0ull : ~1ull)); /* nothing is lost */
                RL_ASSERT(index < model::final_value(&arenas.count));
            }
            if (index == 0)
                RL_ASSERT(((vacant | held) & in_play[c]) == in_play[c]);
            RL_ASSERT(model::final_value(&a->chunk[c]) != CHUNK_GROWING);
            any |= vacant;
            vacant_dirty += bits_count(vacant & model::final_value(&a->dirty[c]));
        }
        if (any)
            RL_ASSERT(model::final_value(&arenas.roomy[0]) >> index & 1);
        for (size_t g = FIRST; g < FIRST + WATCHED && index == 0; g++) /* dirty-known */
            if (model::final_value(&a->vacant[g / 64]) >> g % 64 & 1)
                RL_ASSERT(model::final_value(&a->dirty[g / 64]) >> g % 64 & 1 || memory[g - FIRST]($) == 0);
        return vacant_dirty;
    }
};

const arena_model::program arena_model::programs[] = {
    {"undo", &arena_model::start_undo, &arena_model::undo},
    {"home", &arena_model::start_home, &arena_model::home},
    {"clean", &arena_model::start_clean, &arena_model::clean},
    {"clean-mixed", &arena_model::start_clean_mixed, &arena_model::clean_mixed},
    {"clean-room", &arena_model::start_clean_room, &arena_model::clean_room},
    {"first", &arena_model::start_first, &arena_model::first, {1, 3}},
    {"first-wide", &arena_model::start_first_wide, &arena_model::first, {1, 3}},
    {"look", &arena_model::start_first, &arena_model::look, {1, 3}},
    {"room", &arena_model::start_room, &arena_model::room},
    {"limit", &arena_model::start_limit, &arena_model::limit},
    {"unmap", &arena_model::start_unmap, &arena_model::unmap},
    {"unmap-sums", &arena_model::start_unmap_sums, &arena_model::unmap, {1, 3}},
    {"free-twice", &arena_model::start_free_twice, &arena_model::free_twice},
};

/* one-purger */
static void purge_alone() {
    RL_ASSERT(now->purgers++ == 0);
    now->system.fetch_add(1, rl::mo_relaxed, $);
    now->purgers--;
}

/* Two threads that map it at once get the same one: whose is kept does not matter. */
static void map_second() {
    if (!std::count(mapped_second, mapped_second + THREADS, true))
        now->second_is_there($) = 1;
    mapped_second[rl::thread_index()] = true;
}

/* Nobody looks into the second arena's record who does not know that it is mapped. */
static void look_into(const void *at) {
    if (at >= &second_arena && at < &second_arena + 1 && !mapped_second[rl::thread_index()])
        now->second_is_there($).load();
}

/* By a purge, by unmapping, by mapping. */
static void clear_memory(size_t first, size_t n) {
    for (size_t g = first; g < first + n; g++) {
        RL_ASSERT(now->holder[g] == arena_model::NOBODY);
        if (g >= arena_model::FIRST && g < arena_model::FIRST + arena_model::WATCHED)
            now->memory[g - arena_model::FIRST]($) = 0;
    }
}

int main(int argc, char **argv) {
    seam::on_access = look_into;
    model::description d = {"arena", {}, {}, {"page/arena.c", "page/arena.h", "page/purge.c", "page/large.c"}};
    for (auto &p : arena_model::programs) {
        d.programs.push_back(p.name);
        d.bounds.push_back(p.bound);
    }
    return model::main_of<arena_model>(argc, argv, d);
}
