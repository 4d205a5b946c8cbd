/* model/seam.h -- shared words over Relacy's atomics, found by address, and the places where mutants act.
 *
 * PURPOSE     A word keeps its shape and its place in memory (`struct word { uint64_t value; }`), so the shipped files compile
 *             unchanged, static words included. What a model binds in its before() is simulated: each access is a scheduling
 *             point, and loads may read old values. All else is plain memory: hints and counters that decide nothing.
 *
 * INVARIANTS
 *   bound-before   Words are bound before the threads run, so that their first value happens before everything.
 *   runs-repeat    Plain words that a run wrote read as before it when the next one begins.
 *
 * A *site* is a verb at a place in the code. What may be done to a site, one at a time:
 *     relaxed, acquire, release    the order is weaker; `failure` is that of a failing compare-and-swap
 *     split                        a load, then a store: not atomic any more
 *     drop                         not done at all, though the caller is told that it was
 *     late                         done after the thread's next step
 * and what a model makes itself: see `model/run.h`.
 */
#ifndef MODEL_SEAM_H
#define MODEL_SEAM_H

#include <cstdint>
#include <type_traits>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#include <relacy/relacy.hpp>
#pragma GCC diagnostic pop

/* Relacy's names for what it replaces; the shipped code has none of them, but words like it. */
#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno
#undef VAR

namespace seam {

enum change_kind { SWAP, ADD, OR, AND };
enum deed { NOTHING, ORDER, FAILURE, SPLIT, DROP, LATE };

/* What can be done to a site follows from its kind. */
enum site_kind { LOAD, STORE, CHANGE, CAS, FENCE };

struct site {
    const char *function, *verb, *file;
    unsigned line;
    site_kind kind;
    rl::memory_order order;
    bool simulated; /* it met a bound word */
};

enum { MOST_SITES = 512, MOST_BOUND = 1024, MOST_WRITTEN = 4096, MOST_THREADS = 8 };

inline struct {
    site table[MOST_SITES];
    unsigned count;
    bool watched; /* sites are told apart: a mutant is at work, or they are being listed */
    bool quiet;   /* not now: the model sets up its words */
} sites;

/* The mutation in force. */
inline struct {
    deed what;
    const site *where;
    rl::memory_order order;
    const char *name; /* one of the model's own */
} mutant;

/* Is the model's own mutant `name` in force? */
inline bool mutant_is(const char *name) { return mutant.name && !strcmp(mutant.name, name); }

/* Hooks of a model's own mutants: the value that an access is about to store, and the one that it returns. The first may
 * withhold the access. */
inline bool withheld;
/* Called at each access to a bound word. */
inline void (*on_access)(const void *at);
/* Called when one is over: other threads may have run meanwhile. */
inline void (*on_return)();

inline uint64_t (*alter_operand)(const site &s, const void *at, uint64_t value);
inline uint64_t (*alter_answer)(const site &s, const void *at, uint64_t value);

inline site *find_site(const char *function, const char *file, unsigned line, const char *verb, site_kind kind,
                       rl::memory_order order) {
    for (unsigned i = 0; i < sites.count; i++) {
        site &s = sites.table[i];
        if (s.line == line && s.kind == kind && !strcmp(s.function, function) && !strcmp(s.verb, verb))
            return &s;
    }
    if (sites.count == MOST_SITES)
        abort();
    sites.table[sites.count] = site{function, verb, file, line, kind, order, false};
    return &sites.table[sites.count++];
}

/* ---- bound words ---- */

struct cell {
    const void *address;
    rl::atomic<uint64_t> *wide;
    rl::atomic<uint32_t> *narrow;
    rl::var<uint32_t> *plain;
};

inline struct {
    cell table[MOST_BOUND]; /* open addressing */
    unsigned used[MOST_BOUND], count;
} bound;

inline unsigned hash_of(const void *address) {
    return static_cast<unsigned>((reinterpret_cast<uintptr_t>(address) >> 1) * 0x9e3779b97f4a7c15ull >> 48) %
           MOST_BOUND;
}

inline cell *find_cell(const void *address) {
    unsigned h = hash_of(address);
    while (bound.table[h].address && bound.table[h].address != address)
        h = (h + 1) % MOST_BOUND;
    return &bound.table[h];
}

inline cell *new_cell(const void *address) {
    cell *c = find_cell(address);
    if (c->address || bound.count == MOST_BOUND / 2)
        abort();
    c->address = address;
    bound.used[bound.count++] = static_cast<unsigned>(c - bound.table);
    return c;
}

/* ---- plain words that were written ---- */

inline struct {
    struct {
        void *at;
        uint64_t old;
        unsigned bytes;
    } log[MOST_WRITTEN];
    unsigned count;
} written;

template <class T> void write_plain(T *at, T value) {
    if (written.count == MOST_WRITTEN)
        abort();
    auto &entry = written.log[written.count++];
    entry.at = at;
    entry.bytes = sizeof(T);
    memcpy(&entry.old, at, sizeof(T));
    *at = value;
}

/* Nothing is bound and nothing was written. */
inline void reset() {
    while (bound.count)
        bound.table[bound.used[--bound.count]] = cell{};
    while (written.count) {
        auto &entry = written.log[--written.count];
        memcpy(entry.at, &entry.old, entry.bytes);
    }
}

/* ---- the accesses ---- */

inline rl::debug_info info_of(const char *function, const char *file, unsigned line) {
    return rl::debug_info(function, file, line);
}

template <class T> constexpr bool is_wide = sizeof(T) == 8;
template <class T> using cell_type = std::conditional_t<is_wide<T>, uint64_t, uint32_t>;

template <class T> cell_type<T> to_cell(T v) {
    if constexpr (std::is_pointer_v<T>)
        return reinterpret_cast<uint64_t>(v);
    else
        return v;
}
template <class T> T from_cell(cell_type<T> v) {
    if constexpr (std::is_pointer_v<T>)
        return reinterpret_cast<T>(v);
    else
        return static_cast<T>(v);
}
template <class T> auto *atomic_of(cell *c) {
    if constexpr (is_wide<T>)
        return c->wide;
    else
        return c->narrow;
}

/* A step that was put off, one a thread. */
struct late_step {
    bool waits;
    bool narrow;
    void *atomic;
    change_kind how;
    uint64_t value;
    rl::debug_info info;
};
inline late_step late[MOST_THREADS];

template <class C>
C change_atomic(change_kind how, rl::atomic<C> *a, C v, rl::memory_order order, rl::debug_info_param info) {
    switch (how) {
    case SWAP:
        return a->exchange(v, order, info);
    case ADD:
        return a->fetch_add(v, order, info);
    case OR:
        return a->fetch_or(v, order, info);
    default:
        return a->fetch_and(v, order, info);
    }
}

inline void catch_up() {
    if (on_return)
        on_return();
    late_step &l = late[rl::thread_index()];
    if (!l.waits)
        return;
    l.waits = false;
    if (l.narrow)
        change_atomic(l.how, static_cast<rl::atomic<uint32_t> *>(l.atomic), static_cast<uint32_t>(l.value),
                      rl::mo_acq_rel, l.info);
    else
        change_atomic(l.how, static_cast<rl::atomic<uint64_t> *>(l.atomic), l.value, rl::mo_acq_rel, l.info);
}

template <class C> C combine(change_kind how, C old, C v) {
    switch (how) {
    case SWAP:
        return v;
    case ADD:
        return static_cast<C>(old + v);
    case OR:
        return old | v;
    default:
        return old & v;
    }
}

/* One access: finds its cell and its site, and what is to be done to it. */
template <class T> struct access {
    using C = cell_type<T>;
    cell *c;
    site *s = nullptr;
    deed what = NOTHING;
    rl::memory_order order;
    rl::debug_info info;

    access(const T *at, site_kind kind, rl::memory_order usual, const char *verb, const char *function,
           const char *file, unsigned line)
        : c(find_cell(at)), order(usual), info(function, file, line) {
        if (!c->address) {
            c = nullptr;
            return;
        }
        if (on_access && !sites.quiet)
            on_access(at);
        if (sites.watched && !sites.quiet) {
            s = find_site(function, file, line, verb, kind, usual);
            s->simulated = true;
            if (mutant.where == s) {
                what = mutant.what;
                if (what == ORDER)
                    order = mutant.order;
            }
        }
    }
    rl::atomic<C> *atomic() const { return atomic_of<T>(c); }
    C operand(C v) {
        if (!s || !alter_operand)
            return v;
        withheld = false;
        v = static_cast<C>(alter_operand(*s, c->address, v));
        if (withheld)
            what = DROP;
        return v;
    }
    C answer(C v) const { return s && alter_answer ? static_cast<C>(alter_answer(*s, c->address, v)) : v; }
    /* Puts the step off; what it would have returned. */
    C put_off(change_kind how, C v) const {
        catch_up();
        late[rl::thread_index()] = late_step{true, !is_wide<T>, atomic(), how, v, info};
        return atomic()->debug_value();
    }
};

#define SEAM_WHERE        const char *verb, const char *function, const char *file, unsigned line
#define SEAM_ACCESS(kind) access<T> a(at, kind, order, verb, function, file, line)

template <class T> T load(const T *at, rl::memory_order order, SEAM_WHERE) {
    SEAM_ACCESS(LOAD);
    if (!a.c)
        return *at;
    T v = from_cell<T>(a.answer(a.atomic()->load(a.order, a.info)));
    catch_up();
    return v;
}

template <class T> void store(T *at, T v, rl::memory_order order, SEAM_WHERE) {
    SEAM_ACCESS(STORE);
    if (!a.c)
        return write_plain(at, v);
    auto value = a.operand(to_cell(v));
    if (a.what == DROP)
        return;
    if (a.what == LATE)
        return static_cast<void>(a.put_off(SWAP, value));
    a.atomic()->store(value, a.order, a.info);
    catch_up();
}

template <class T> T change(change_kind how, T *at, T v, rl::memory_order order, SEAM_WHERE) {
    SEAM_ACCESS(CHANGE);
    if (!a.c) {
        T old = *at;
        write_plain(at, from_cell<T>(combine(how, to_cell(old), to_cell(v))));
        return old;
    }
    auto value = a.operand(to_cell(v)), old = value;
    switch (a.what) {
    case DROP:
        old = a.atomic()->load(rl::mo_acquire, a.info);
        break;
    case LATE:
        return from_cell<T>(a.put_off(how, value));
    case SPLIT:
        old = a.atomic()->load(rl::mo_acquire, a.info);
        a.atomic()->store(combine(how, old, value), rl::mo_release, a.info);
        break;
    default:
        old = change_atomic(how, a.atomic(), value, a.order, a.info);
    }
    catch_up();
    return from_cell<T>(a.answer(old));
}

/* What the calling thread stored last in a word that it alone writes: no step. */
template <class T> T own_value(const T *at) {
    cell *c = find_cell(at);
    return c->address ? from_cell<T>(atomic_of<T>(c)->debug_value()) : *at;
}

/* A fence of sequential consistency, a site as the others. Relacy's also orders what came before one before what comes after a
 * later one, plain accesses included: the machine's does so too, C11's does not. */
inline void fence(SEAM_WHERE) {
    if (sites.quiet)
        return;
    rl::memory_order order = rl::mo_seq_cst;
    if (sites.watched) {
        site *s = find_site(function, file, line, verb, FENCE, order);
        s->simulated = true;
        if (mutant.where == s) {
            if (mutant.what == DROP)
                return;
            order = mutant.order;
        }
    }
    rl::atomic_thread_fence(order, info_of(function, file, line));
    catch_up();
}

/* Orders on failure: acquire if the order has any of it. */
inline rl::memory_order failing(rl::memory_order order) {
    return order == rl::mo_acquire || order == rl::mo_acq_rel ? rl::mo_acquire : rl::mo_relaxed;
}

template <class T> bool cas(bool weak, T *at, T *seen, T v, rl::memory_order order, SEAM_WHERE) {
    SEAM_ACCESS(CAS);
    if (!a.c) {
        bool same = *at == *seen;
        if (same)
            write_plain(at, v);
        else
            *seen = *at;
        return same;
    }
    auto value = a.operand(to_cell(v)), expected = to_cell(*seen);
    bool done;
    if (a.what == SPLIT || a.what == DROP) {
        auto now = a.atomic()->load(rl::mo_acquire, a.info);
        done = now == expected;
        expected = now;
        if (done && a.what == SPLIT)
            a.atomic()->store(value, rl::mo_release, a.info);
    } else {
        rl::memory_order fails = a.what == FAILURE ? rl::mo_relaxed : failing(a.order);
        done = weak ? a.atomic()->compare_exchange_weak(expected, value, a.order, a.info, fails, a.info)
                    : a.atomic()->compare_exchange_strong(expected, value, a.order, a.info, fails, a.info);
    }
    if (!done)
        *seen = from_cell<T>(expected);
    catch_up();
    return done;
}

/* ---- plain fields ---- */

/* What `uint16_t` is in a struct whose plain fields a model watches: two threads at one without an edge between them are a
 * data race, if the model binds it. */
struct watched16 {
    uint16_t value;
    operator uint16_t() const {
        cell *c = find_cell(this);
        return c->address ? static_cast<uint16_t>((*c->plain)($).load()) : value;
    }
    watched16 &operator=(uint16_t v) {
        cell *c = find_cell(this);
        if (c->address)
            (*c->plain)($).store(v);
        else
            write_plain(&value, v);
        return *this;
    }
};

} // namespace seam

#endif
