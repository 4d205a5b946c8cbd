/* model_depot.cc -- central/depot.c, central/magazine.c and page/meta.c as shipped: magazines between threads and the pool, their
 * slots as plain memory, from one home and from two; the first record of a pool, whose chunk two threads map at once.
 *
 * covers: S125 C2 C3
 */
#include "model/c.h"

#include "base/bits.h"
#include "base/limits.h"
#include "base/stack.h"

#include "os/os.h"
#include "slab/size_class.h"

#define uint16_t seam::watched16
#include "central/magazine.h"
#undef uint16_t

enum { THREADS = 3, MAGAZINES = 4, ROUNDS = 2 };

/* ---- the system: chunks of records, each mapped once ---- */

struct depot_model;
static depot_model *now;
alignas(4096) static char chunk_memory[THREADS][META_CHUNK_BYTES];

void gr_check_failed(const char *what, const char *, int) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}

#include "page/meta.c"
#define link_of link_of_magazine
#define chunks  chunks
#include "central/magazine.c"
#undef link_of
#define link_of link_of_full
#include "central/bin.h"
#include "central/depot.c"
#undef link_of

/* What the depot asks of its neighbours: a class of two rounds, any number of slabs. */
const struct size_class gr_classes[CLASS_SLOTS] = {
    {}, {.bytes = 16, .capacity = 4, .threshold = 1, .inverse = 0, .granules = 1, .words = 1, .rounds = ROUNDS}};
size_t gr_bin_granules(unsigned) { return 1000; }
void gr_bin_tick(unsigned) {}
bool gr_bin_is_sparse(unsigned) { return false; }
unsigned gr_bin_trim(unsigned, unsigned, bool) { return 0; }
static void return_blocks(void *const *blocks, unsigned n);
void gr_bin_return(unsigned, void *const *blocks, unsigned n, const char *) { return_blocks(blocks, n); }

/* ---- the model ---- */

enum { CLASS = 1 };

struct depot_model : model::suite<depot_model, THREADS, THREADS * MAGAZINES + 3, 5, THREADS * MAGAZINES> {
    rl::var<unsigned> slot[MAGAZINES + 1][ROUNDS]; /* what the blocks in a magazine are called; 0: none */
    rl::var<unsigned> chunk_is_there[THREADS];     /* written by who maps it */
    bool holder[MAGAZINES + 1];
    unsigned homes, maps_made, maps_kept;

    static char *record(unsigned chunk, unsigned number) {
        return chunk_memory[chunk] + number * pools[0].record_bytes;
    }
    static struct magazine *magazine(unsigned number) { return (struct magazine *)record(0, number); }

    /* Magazines 1 .. full wait in the depot with two blocks each, full + 1 .. all in the pool. */
    void start(unsigned full, unsigned all, unsigned in_homes) {
        homes = in_homes;
        for (unsigned chunk = 0; chunk < THREADS; chunk++)
            for (unsigned i = 1; i <= MAGAZINES; i++)
                bind((struct half *)record(chunk, i), 0);
        for (unsigned i = 1; i <= MAGAZINES; i++) {
            for (unsigned r = 0; r < ROUNDS; r++)
                slot[i][r]($) = i <= full ? 2 * i + r : 0;
            holder[i] = false;
        }
        for (unsigned i = 0; i < THREADS; i++)
            chunk_is_there[i]($) = 0;
        for (unsigned home = 0; home < homes; home++) {
            bind(&heads[home].of_class[CLASS].full.head, 0);
            bind(&unused[home].of_kind[0].head, 0);
        }
        bind(&learned[CLASS].used, 0);
        bind(&pools[0].used, 0);
        bind(&pools[0].fresh, all ? all + 1 : 0);
        bind(&pools[0].first, all ? chunk_memory[0] : nullptr);
        half_store_relaxed(&learned[CLASS].bound, MAGAZINES);
        maps_made = maps_kept = all != 0;
        now = this;
        if (all)
            chunk_is_there[0]($) = 1;
        for (unsigned i = all; i >= 1; i--) {
            struct magazine *m = magazine(i);
            watch(&m->count);
            watch(&m->rounds);
            m->id = i << 2;
            m->rounds = ROUNDS;
            m->count = (uint16_t)(i <= full ? ROUNDS : 0);
            if (i <= full)
                RL_ASSERT(gr_depot_push(i % homes, CLASS, m));
            else
                gr_magazine_free(i % homes, m);
        }
    }

    unsigned take(struct magazine *m) {
        unsigned number = m->id >> 2;
        RL_ASSERT(number >= 1 && number <= MAGAZINES && !holder[number]);
        chunk_is_there[((char *)m - chunk_memory[0]) / META_CHUNK_BYTES]($).load();
        holder[number] = true;
        return number;
    }
    struct magazine *pop(unsigned t) {
        struct magazine *m = gr_depot_pop(t % homes, CLASS);
        if (m) {
            unsigned number = take(m);
            RL_ASSERT(m->count == ROUNDS && m->rounds == ROUNDS);
            for (unsigned r = 0; r < ROUNDS; r++)
                RL_ASSERT(slot[number][r]($) != 0);
        }
        return m;
    }
    struct magazine *fresh(unsigned t) {
        struct magazine *m = gr_magazine_new(t % homes, ROUNDS);
        if (m) {
            take(m);
            RL_ASSERT(m->count == 0 && m->rounds == ROUNDS);
        }
        return m;
    }
    void fill(struct magazine *m, unsigned name) {
        for (unsigned r = 0; r < ROUNDS; r++)
            slot[m->id >> 2][r]($) = name;
        m->count = ROUNDS;
    }
    void put(unsigned t, struct magazine *m) { /* in the depot, or if that is full in the pool */
        holder[m->id >> 2] = false;
        if (!gr_depot_push(t % homes, CLASS, m)) {
            holder[m->id >> 2] = true;
            drop(t, m);
        }
    }
    void drop(unsigned t, struct magazine *m) {
        for (unsigned r = 0; r < ROUNDS; r++)
            slot[m->id >> 2][r]($) = 0;
        m->count = 0;
        holder[m->id >> 2] = false;
        gr_magazine_free(t % homes, m);
    }

    void exchange(unsigned t) { /* full ones go out, are emptied and filled again */
        struct magazine *m = pop(t), *e = nullptr;
        if (m)
            drop(t, m);
        if (t != 2)
            e = fresh(t);
        if (e) {
            fill(e, t + 1);
            put(t, e);
        }
    }
    void turn(unsigned t) {
        if (t == 0) { /* two in hand, put back the other way round */
            struct magazine *a = pop(t), *b = pop(t);
            if (a)
                put(t, a);
            if (b)
                put(t, b);
        } else if (struct magazine *m = pop(t)) {
            if (t == 1)
                put(t, m);
            else
                drop(t, m);
        }
    }
    void born(unsigned t) { /* the first magazines of all; the last thread only looks, without an edge of its own */
        if (t == 2) {
            walk();
            if (gr_depot_depth(CLASS))
                walk();
            return;
        }
        struct magazine *m = fresh(t);
        RL_ASSERT(m);
        fill(m, t + 1);
        if (t == 0) {
            put(t, m);
            pop(t);
        } else {
            pop(t);
            drop(t, m);
        }
    }
    /* Whoever knows how many records there are may look at each: what the registry of caches does. */
    void walk() {
        uint32_t count = gr_meta_count(&pools[0]);
        for (uint32_t i = 1; i <= count; i++) {
            char *r = (char *)meta_at(&pools[0], i);
            RL_ASSERT(r >= chunk_memory[0]);
            chunk_is_there[(r - chunk_memory[0]) / META_CHUNK_BYTES]($).load();
        }
    }

    void apart(unsigned t) { /* two homes, none pushed to yet: what the other's has is found */
        struct magazine *m = pop(t);
        if (m && t != 2)
            put(t, m);
        else if (m)
            drop(t, m);
        else if ((m = fresh(t)) != nullptr) {
            fill(m, t + 1);
            put(t, m);
        }
    }

    void set_up() {
        if (model::program == 2)
            start(0, 0, 1);
        else if (model::program == 3)
            start(0, 2, 2);
        else
            start(model::program == 0 ? 1 : 3, 3, 1);
    }
    void run(unsigned t) {
        if (model::program == 0)
            exchange(t);
        else if (model::program == 1)
            turn(t);
        else if (model::program == 2)
            born(t);
        else
            apart(t);
    }

    void check() {
        char *chunk = (char *)model::final_value(&pools[0].first);
        unsigned seen[MAGAZINES + 1] = {0}, all = (unsigned)model::final_value(&pools[0].fresh) - 1;
        RL_ASSERT(chunk && all <= MAGAZINES && maps_kept == 1);
        for (unsigned home = 0; home < homes; home++) {
            walk_stack(&heads[home].of_class[CLASS].full, chunk, 2, true, seen);
            walk_stack(&unused[home].of_kind[0], chunk, 0, false, seen);
            must_be_marked(&heads[home].of_class[CLASS].full, &learned[CLASS].used, home);
            must_be_marked(&unused[home].of_kind[0], &pools[0].used, home);
        }
        for (unsigned i = 1; i <= all; i++)
            RL_ASSERT(seen[i] + holder[i] == 1);
    }
    void must_be_marked(const struct stack *s, const struct half *mask, unsigned home) { /* else nobody would find it */
        RL_ASSERT(!stack_top(model::final_value(&s->head)) || model::final_value(mask) >> home & 1);
    }
    void walk_stack(const struct stack *s, char *chunk, unsigned shift, bool full, unsigned *seen) {
        for (uint32_t id = stack_top(model::final_value(&s->head)), n = 0; id;) {
            unsigned number = id >> shift;
            RL_ASSERT(number >= 1 && number <= MAGAZINES && ++n <= MAGAZINES);
            seen[number]++;
            for (unsigned r = 0; r < ROUNDS; r++)
                RL_ASSERT((slot[number][r]($) != 0) == full);
            id = (uint32_t)model::final_value((struct half *)(chunk + number * pools[0].record_bytes));
        }
    }
};

void *os_map(size_t) {
    unsigned i = now->maps_made++;
    now->maps_kept++;
    RL_ASSERT(i < THREADS);
    now->chunk_is_there[i]($) = 1;
    return chunk_memory[i];
}
bool os_unmap(void *, size_t) {
    now->maps_kept--;
    return true;
}
static void return_blocks(void *const *, unsigned) {}

int main(int argc, char **argv) {
    return model::main_of<depot_model>(argc, argv,
                                       {"depot",
                                        {"exchange", "turn", "born", "apart"},
                                        {},
                                        {"central/depot.c", "page/meta.c", "page/meta.h", "base/stack.h"},
                                        {1, 1, 1, {1, 2}}});
}
