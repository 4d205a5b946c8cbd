/* model_huge.cc -- page/huge.c as shipped: blocks of two places in one window of records, where the system hands an address out
 * again as soon as it is unmapped. The footprint is what they have, in the end.
 *
 * covers: S125 C2 C5
 */
#include "model/c.h"

#include <string.h>

#include "base/bits.h"
#include "base/limits.h"

#include "os/options.h"
#include "os/os.h"

enum { THREADS = 3, PLACES = 3, SLOTS = 6, PAGE = 4096 };

/* ---- the system: its own lock orders what happens to a place ---- */

struct huge_model;
static huge_model *now;
static uintptr_t places[PLACES]; /* addresses with one home */

void *os_map(size_t bytes);
bool os_unmap(void *at, size_t bytes);
bool os_resize(void *at, size_t old_bytes, size_t new_bytes);
bool os_move(void *at, size_t old_bytes, void *over, size_t new_bytes);
void *os_detach(void *, size_t, size_t) { return nullptr; }
size_t os_page_bytes(void) { return PAGE; }
uint64_t option_get(enum option) { return OPTION_NEVER; }
bool gr_cgroup_limit(const char *, uint64_t *) { return false; }
void gr_check_failed(const char *what, const char *, int) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}

#include "page/limit.c"
#include "page/huge.c"

/* ---- the model ---- */

struct huge_model : model::suite<huge_model, THREADS, 1, 2 * SLOTS + 1> {
    rl::var<unsigned> memory[PLACES];
    rl::atomic<unsigned> system; /* the kernel's lock, as the edges that it makes */
    size_t mapped[PLACES];       /* bytes; 0: not mapped */
    void *block[THREADS];
    size_t size[THREADS];
    int freed;

    /* Thread 0 has a block of two pages. */
    void set_up() {
        struct huge *from = &table[home_of((void *)places[0])];
        for (unsigned i = 0; i < SLOTS; i++) { /* more are never looked at: a slot may seem taken when it is not */
            bind(&from[i].address, nullptr);
            bind(&from[i].bytes, 0);
        }
        for (unsigned i = 0; i < PLACES; i++) {
            memory[i]($) = 0;
            mapped[i] = 0;
        }
        bind(&total, 2 * PAGE);
        word_store_relaxed(&gr_limit.footprint, 2 * PAGE);
        system.store(0, rl::mo_relaxed, $);
        memset(block, 0, sizeof block);
        memset(size, 0, sizeof size);
        freed = 0;
        ref_store_relaxed(&from[0].address, (void *)places[0]);
        word_store_relaxed(&from[0].bytes, 2 * PAGE);
        mapped[0] = 2 * PAGE;
        block[0] = (void *)places[0];
        size[0] = 2 * PAGE;
        now = this;
    }

    static unsigned place_of(const void *at) {
        for (unsigned i = 0; i < PLACES; i++)
            if (places[i] == (uintptr_t)at)
                return i;
        RL_ASSERT(!"a place that the system knows");
        return 0;
    }
    void kernel() { system.fetch_add(1, rl::mo_acq_rel, $); }

    void use(unsigned t) {
        if (!block[t])
            return;
        unsigned i = place_of(block[t]);
        RL_ASSERT(mapped[i] == size[t]);
        memory[i]($) = t + 1;
        RL_ASSERT(gr_huge_bytes(block[t]) == size[t]);
    }
    void alloc(unsigned t, size_t pages) {
        RL_ASSERT(!block[t]);
        block[t] = gr_huge_alloc(pages * PAGE, 1);
        size[t] = pages * PAGE;
        if (block[t])
            RL_ASSERT(memory[place_of(block[t])]($) == 0); /* fresh memory is zero */
        use(t);
    }
    void free_own(unsigned t) {
        if (!block[t])
            return;
        use(t);
        RL_ASSERT(gr_huge_free(block[t]));
        block[t] = nullptr;
    }
    void resize(unsigned t, size_t pages) {
        if (!block[t])
            return;
        void *moved = gr_huge_resize(block[t], pages * PAGE);
        if (moved) {
            RL_ASSERT(memory[place_of(moved)]($) == t + 1); /* the contents went along */
            block[t] = moved;
            size[t] = pages * PAGE;
        }
        use(t);
    }

    void reuse(unsigned t) { /* an address goes from thread to thread, with another size each */
        if (t == 0) {
            free_own(t);
            alloc(t, 5);
        } else {
            alloc(t, 2 + t);
            free_own(t);
        }
    }
    void move(unsigned t) {
        use(t);
        if (t == 0) {
            resize(t, 7); /* where it is, or moved */
            resize(t, 1);
        } else {
            alloc(t, 2 + t);
            if (t == 2)
                free_own(t);
        }
    }
    void free_twice(unsigned t) { /* the same block by two threads */
        size_t bytes = gr_huge_bytes((void *)places[0]);
        RL_ASSERT(bytes == 0 || bytes == 2 * PAGE);
        if (t < 2 && gr_huge_free((void *)places[0])) {
            block[0] = nullptr;
            freed++;
        }
    }

    void run(unsigned t) {
        if (model::program == 0)
            reuse(t);
        else if (model::program == 1)
            move(t);
        else
            free_twice(t);
    }

    void check() {
        const struct huge *from = &table[home_of((void *)places[0])];
        size_t sum = 0;
        for (unsigned i = 0; i < PLACES; i++) {
            unsigned records = 0, blocks = 0;
            for (unsigned r = 0; r < SLOTS; r++) {
                RL_ASSERT((char *)model::final_value(&from[r].address) != &hidden_mark);
                if (model::final_value(&from[r].address) == places[i]) {
                    records++;
                    RL_ASSERT(model::final_value(&from[r].bytes) == mapped[i]);
                }
            }
            for (unsigned t = 0; t < THREADS; t++)
                blocks += (uintptr_t)block[t] == places[i];
            RL_ASSERT(records == blocks && blocks <= 1 && (mapped[i] != 0) == (blocks == 1));
            sum += mapped[i];
        }
        RL_ASSERT(model::final_value(&total) == sum && gr_limit.footprint.value == sum);
        RL_ASSERT(model::program != 2 || freed == 1);
    }
};

/* A place is vacant from the last step of its unmapping on. */
void *os_map(size_t bytes) {
    for (unsigned i = 0; i < PLACES; i++)
        if (!now->mapped[i]) {
            now->mapped[i] = bytes;
            now->kernel();
            now->memory[i]($) = 0;
            return (void *)places[i];
        }
    return nullptr;
}
bool os_unmap(void *at, size_t bytes) {
    now->kernel();
    unsigned i = huge_model::place_of(at);
    RL_ASSERT(now->mapped[i] == bytes);
    now->memory[i]($) = 0;
    now->kernel();
    now->mapped[i] = 0;
    return true;
}
bool os_resize(void *at, size_t old_bytes, size_t new_bytes) {
    now->kernel();
    unsigned i = huge_model::place_of(at);
    RL_ASSERT(now->mapped[i] == old_bytes);
    if (new_bytes > old_bytes && rl::rand(2))
        return false;
    now->mapped[i] = new_bytes;
    return true;
}
bool os_move(void *at, size_t old_bytes, void *over, size_t new_bytes) {
    now->kernel();
    unsigned from = huge_model::place_of(at), to = huge_model::place_of(over);
    RL_ASSERT(now->mapped[from] == old_bytes && now->mapped[to] == new_bytes);
    if (rl::rand(4) == 0)
        return false;
    now->memory[to]($) = (unsigned)now->memory[from]($);
    now->memory[from]($) = 0;
    now->kernel();
    now->mapped[from] = 0;
    return true;
}

int main(int argc, char **argv) {
    uintptr_t at = 1ull << 40;
    for (unsigned found = 0; found < PLACES; at += PAGE)
        if (found == 0 || home_of((void *)at) == home_of((void *)places[0]))
            places[found++] = at;
    return model::main_of<huge_model>(argc, argv, {"huge", {"reuse", "move", "free-twice"}, {}, {"page/huge.c"}});
}
