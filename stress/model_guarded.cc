/* model_guarded.cc -- page/guarded.c as shipped, with two slots: blocks allocated, handed to another thread and freed, freed by two
 * threads at once while their slot goes to somebody else, and the pool found while it is started.
 *
 * A slot's page is a plain variable: the system writes it when it takes access away and gives it back, and so does the block's
 * user. The memory is real.
 *
 * covers: S125 C2 C5
 */
#include "model/c.h"

#include "base/limits.h"
#include "os/fatal.h"
#include "os/os.h"
#include "os/trace.h"

#define GUARDED_SLOTS 2

enum { THREADS = 3, PAGE = 64, ONE_IN = 1000000 };

/* ---- the system ---- */

static bool guard_at(void *at, size_t bytes);
static bool unguard_at(void *at);
alignas(PAGE) static char pages[(2 * GUARDED_SLOTS + 1) * PAGE];

size_t os_page_bytes(void) { return PAGE; }
void *os_map(size_t bytes) {
    RL_ASSERT(bytes == sizeof pages);
    return pages;
}
bool os_unmap(void *, size_t) { return true; }
bool os_guard(void *at, size_t bytes, bool) { return guard_at(at, bytes); }
bool os_unguard(void *at, size_t, bool) { return unguard_at(at); }
bool os_guards_split(void) { return false; }
void os_want_huge_pages(void *, size_t, bool) {}
void os_at_fault(void (*)(const struct os_fault *)) {}

/* A report ends the program; of a second free, here, the call. */
struct report {};
static bool reports;
void gr_abort(void) {
    if (!reports)
        rl::ctx().fail_test("a report", rl::test_result_user_assert_failed, $);
    throw report();
}
void line_text(struct line *, const char *) {}
void line_number(struct line *, uint64_t) {}
void line_pointer(struct line *, const void *) {}
void line_write(struct line *, int) {}
void line_fatal(struct line *, const char *) {}
void line_call(struct line *, const char *, const char *, const void *) {}
void gr_trace(const void *, struct trace *out) { out->thread = out->depth = 0; }
void gr_trace_from(const void *, const void *, struct trace *out) { gr_trace(nullptr, out); }
void gr_trace_print(const char *, const struct trace *) {}

#include "page/guarded.c"

/* ---- the model ---- */

struct guarded_model;
static guarded_model *now;

struct guarded_model : model::suite<guarded_model, THREADS, 1, 5 + 4 * GUARDED_SLOTS> {
    enum { TWICE, REUSE, HANDED, STAMPS, REFUSED, START };
    rl::var<unsigned> page[GUARDED_SLOTS];
    rl::atomic<uint64_t> mail;      /* a block on its way from thread to thread */
    bool open[GUARDED_SLOTS];       /* has access */
    void *block[GUARDED_SLOTS];     /* in a user's hand */
    uint64_t stamps[GUARDED_SLOTS]; /* that a block had; few enough for bits */
    unsigned draws, freed;
    uint32_t drawn[THREADS];

    static unsigned slot_at(const void *at) { return (unsigned)((size_t)((const char *)at - pages) / PAGE / 2); }
    static char *page_at(unsigned slot) { return pages + (2 * slot + 1) * PAGE; }

    void set_up() {
        memset(pages, 0, sizeof pages);
        for (unsigned i = 0; i < GUARDED_SLOTS; i++) {
            bind(&states[i], CLOSED);
            bind(&records[i].start, nullptr);
            bind(&records[i].bytes, 0);
            bind(&records[i].room, 0);
            page[i]($) = 0;
            open[i] = false;
            block[i] = nullptr;
            stamps[i] = 0;
        }
        bind(&pool.stamp, 0);
        bind(&pool.drawn, 0);
        bind(&gr_guarded_one_in, model::program == START ? 0 : ONE_IN);
        if (model::program == START) { /* else they are constant */
            bind(&pool.base, nullptr);
            bind(&pool.seed, 0);
        } else {
            ref_store_relaxed(&pool.base, pages);
        }
        if (model::program == TWICE)
            start_twice();
        mail.store(0, rl::mo_relaxed, $);
        draws = freed = 0;
        reports = model::program == TWICE;
        now = this;
    }
    /* Slot 0 has a block of 16 bytes at its page's end, which two threads are about to free; slot 1 is held by one that never goes on. */
    void start_twice() {
        char *p = page_at(0) + PAGE - 16;
        memset(page_at(0), SLACK_MARK, PAGE - 16);
        open[0] = true;
        stamps[0] = 1;
        word_store_relaxed(&states[0], LIVE);
        word_store_relaxed(&states[1], HELD);
        ref_store_relaxed(&records[0].start, p);
        word_store_relaxed(&records[0].bytes, 16);
    }

    /* ---- what users do ---- */

    void *alloc(size_t n) {
        void *p = gr_guarded_alloc(n, 1, 2 * n, nullptr);
        if (!p)
            return nullptr;
        unsigned i = slot_at(p);
        uint64_t stamp = model::final_value(&states[i]) >> STATE_BITS;
        RL_ASSERT(!block[i] && stamp < 64 && !(stamps[i] >> stamp & 1)); /* once-each */
        stamps[i] |= 1ull << stamp;
        block[i] = p;
        for (size_t b = 0; b < n; b++)
            RL_ASSERT(!((char *)p)[b]);
        use(p, n);
        return p;
    }
    void use(void *p, size_t n) {
        unsigned i = slot_at(p);
        size_t room = 0;
        RL_ASSERT(block[i] == p && open[i]);
        page[i]($) = 1;
        memset(p, 7, n);
        RL_ASSERT(gr_guarded_bytes(p, &room, "", nullptr) == n && room == 2 * n);
    }
    void free_own(void *p, size_t n) {
        if (!p)
            return;
        use(p, n);
        block[slot_at(p)] = nullptr;
        RL_ASSERT(gr_guarded_free(p, "", nullptr));
    }
    void draw(unsigned t) {
        drawn[t] = gr_guarded_draw();
        for (unsigned other = 0; other < THREADS; other++)
            RL_ASSERT(other == t || !(draws >> other & 1) || drawn[other] != drawn[t]);
        draws |= 1u << t;
    }

    /* ---- programs ---- */

    void reuse(unsigned t) { /* two slots, three threads */
        if (t == 0)
            draw(t);
        void *p = alloc(16);
        if (t == 1)
            draw(t);
        free_own(p, 16);
        if (t != 2)
            free_own(alloc(20), 20);
    }
    void refused(unsigned t) {
        if (t != 2)
            free_own(alloc(16), 16);
        if (t == 0)
            free_own(alloc(20), 20);
    }
    void handed(unsigned t) {
        if (t == 0)
            mail.store((uint64_t)alloc(16), rl::mo_release, $);
        else if (t == 1)
            free_own((void *)mail.load(rl::mo_acquire, $), 16);
        if (t == 2)
            free_own(alloc(20), 20);
        else
            free_own(alloc(24), 24);
    }
    void stamps_of(unsigned t) { /* one thread goes through several while another takes one */
        for (unsigned i = 0; t == 0 && i < 2; i++)
            free_own(alloc(16), 16);
        if (t != 2)
            free_own(alloc(16), 16);
        for (unsigned i = 0; t == 0 && i < 2; i++)
            alloc(16);
    }
    /* Whatever comes into the slot meanwhile starts elsewhere: nobody may take it for the first block. */
    void twice(unsigned t) {
        if (t == 2) {
            void *p = alloc(32);
            free_own(p ? p : alloc(32), 32);
            return;
        }
        try {
            freed += gr_guarded_free(page_at(0) + PAGE - 16, "", nullptr);
        } catch (report) {
        }
    }
    void start(unsigned t) {
        if (t == 0)
            gr_guarded_start(ONE_IN, 1);
        else if (guarded_in_use())
            draw(t);
        else
            RL_ASSERT(!gr_guarded_free(&now, "", nullptr));
        free_own(alloc(16), 16);
    }

    void run(unsigned t) {
        switch (model::program) {
        case HANDED:
            return handed(t);
        case STAMPS:
            return stamps_of(t);
        case TWICE:
            return twice(t);
        case REFUSED:
            return refused(t);
        case START:
            return start(t);
        default:
            return reuse(t);
        }
    }
    void check() {
        RL_ASSERT(model::program != TWICE || freed == 1);
        RL_ASSERT(model::final_value(&gr_guarded_one_in) == ONE_IN &&
                  model::final_value(&pool.base) == (uint64_t)pages);
        RL_ASSERT(model::final_value(&pool.drawn) == bits_count(draws));
        for (unsigned i = 0; i < GUARDED_SLOTS; i++) {
            unsigned state = (unsigned)model::final_value(&states[i]) & STATE_MASK;
            RL_ASSERT(state == (block[i] ? LIVE : model::program == TWICE && i == 1 ? HELD : CLOSED));
        }
    }
};

/* The system may refuse either. */
static bool guard_at(void *at, size_t bytes) {
    bool all = bytes == sizeof pages, done = all || model::program != guarded_model::REFUSED || rl::rand(2);
    for (unsigned i = 0; i < GUARDED_SLOTS; i++)
        if (all || now->slot_at(at) == i) {
            RL_ASSERT(!now->block[i]);
            now->page[i]($) = 0;
            now->open[i] = !done;
        }
    if (done)
        memset(at, 0, bytes);
    return done;
}
static bool unguard_at(void *at) {
    unsigned i = now->slot_at(at);
    if (model::program == guarded_model::REFUSED && rl::rand(2))
        return false;
    RL_ASSERT(!now->block[i]);
    now->page[i]($) = 0;
    return now->open[i] = true;
}

int main(int argc, char **argv) {
    return model::main_of<guarded_model>(argc, argv,
                                         {"guarded",
                                          {"twice", "reuse", "handed", "stamps", "refused", "start"},
                                          {},
                                          {"page/guarded.c", "page/guarded.h"},
                                          {2, 1, 1, 1, 1, 1}});
}
