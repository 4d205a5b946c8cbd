/* model/run.h -- runs a model: its programs, its mutants, one of them with its history.
 *
 *   model_NAME                    every program: 300000 random runs, the same ones each time, and then all runs with at most
 *                                 so many preemptions as the model says
 *     --runs N --seed S           other ones
 *     --program P                 one program
 *     --search bound|full         instead: all runs with at most --bound K preemptions (2), whose loads go back by at most
 *                                 --old N values together (any), or simply all
 *     --mutant M [--history]      with one mutant, until it is caught; what happened, step by step
 *     --mutants [--equivalent F]  each mutant in turn, a table; fails if one is not caught, but for those that file F excuses,
 *                                 which get --few runs each (3000)
 *     --sites                     what the mutants are made from, file and line first, as .ci/models reads it
 *
 * A mutant of a site is named function.verb:deed, with #2 after the verb if the function has a second one; see `model/seam.h`.
 */
#ifndef MODEL_RUN_H
#define MODEL_RUN_H

#include <cinttypes>
#include <cstdio>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/atomic.h"

namespace model {

inline unsigned program; /* the one that runs */

/* How far an exhaustive search goes: so many preemptions; by so many values together do loads return older ones than the last. */
struct bound {
    static constexpr unsigned ANY = ~0u;
    unsigned preemptions, old;
    bound(unsigned preemptions_, unsigned old_ = ANY) : preemptions(preemptions_), old(old_) {}
};

/* What a model tells of itself. */
struct description {
    const char *name;
    std::vector<const char *> programs;
    std::vector<const char *> mutants; /* its own */
    /* Whose sites are mutated: files of src/, and functions of others, the rest of which have models of their own. */
    std::vector<std::string> covers;
    std::vector<bound> bounds = {}; /* of the exhaustive search, by program; missing: one preemption */
};

/* A test suite with words to bind. Derived has set_up(), run(thread), check(). */
template <class Derived, int THREADS, unsigned HALVES, unsigned WORDS, unsigned PLAIN = 1>
struct suite : rl::test_suite<Derived, THREADS> {
    static_assert(THREADS <= seam::MOST_THREADS);
    rl::atomic<uint32_t> halves[HALVES];
    rl::atomic<uint64_t> words[WORDS];
    rl::var<uint32_t> plain[PLAIN];
    unsigned halves_used = 0, words_used = 0, plain_used = 0;

    void bind(struct half *h, uint32_t first) { bind_narrow(h, first); }
    void bind(struct byte *b, uint8_t first) { bind_narrow(b, first); }
    void bind(struct word *w, uint64_t first) { bind_wide(w, first); }
    void bind(struct ref *r, void *first) { bind_wide(r, reinterpret_cast<uint64_t>(first)); }
    /* A plain field: two threads at it without an edge between them are a data race. */
    template <class T> void watch(T *field) {
        if (plain_used == PLAIN)
            abort();
        plain[plain_used]($).store(field->value);
        seam::new_cell(field)->plain = &plain[plain_used++];
    }

    void before() {
        seam::reset();
        for (auto &l : seam::late)
            l.waits = false;
        seam::sites.quiet = true;
        static_cast<Derived *>(this)->set_up();
        seam::sites.quiet = false;
    }
    void thread(unsigned t) {
        if (seam::on_return)
            seam::on_return();
        static_cast<Derived *>(this)->run(t);
        seam::catch_up();
    }
    void after() { static_cast<Derived *>(this)->check(); }

  private:
    void bind_narrow(void *at, uint32_t first) {
        if (halves_used == HALVES)
            abort();
        halves[halves_used].store(first, rl::mo_relaxed, $);
        seam::new_cell(at)->narrow = &halves[halves_used++];
    }
    void bind_wide(void *at, uint64_t first) {
        if (words_used == WORDS)
            abort();
        words[words_used].store(first, rl::mo_relaxed, $);
        seam::new_cell(at)->wide = &words[words_used++];
    }
};

/* The value of a word when all threads have ended. */
template <typename W> uint64_t final_value(const W *w) {
    seam::cell *c = seam::find_cell(w);
    return c->wide ? c->wide->debug_value() : c->narrow ? c->narrow->debug_value() : seam::to_cell(w->value);
}

struct options {
    uint64_t runs = 300000, seed = 0, few = 3000;
    const char *program = nullptr, *mutant = nullptr, *equivalent = nullptr;
    rl::scheduler_type_e search = rl::random_scheduler_type;
    struct bound bound = 2;
    bool mutants = false, sites = false, history = false;
};

struct verdict {
    bool caught;
    unsigned program;
    uint64_t run;
    char why[120];
};

/* What Relacy prints, kept without allocating: inside a run operator new is Relacy's. What does not fit is cut. */
struct memo : std::streambuf {
    char text[1 << 20];
    memo() { setp(text, text + sizeof text); }
    int overflow(int c) override { return c; }
    size_t size() const { return static_cast<size_t>(pptr() - pbase()); }
};

/* Relacy's search with bounded preemptions, and older values bounded as well. */
inline unsigned most_old;
template <rl::thread_id_t THREADS>
struct bounded_scheduler
    : rl::tree_search_scheduler<bounded_scheduler<THREADS>, rl::context_bound_scheduler_thread_info<THREADS>, THREADS> {
    using base = rl::tree_search_scheduler<bounded_scheduler<THREADS>, rl::context_bound_scheduler_thread_info<THREADS>,
                                           THREADS>;
    using info = typename base::thread_info_t;
    unsigned switches, old;

    bounded_scheduler(rl::test_params &p, typename base::shared_context_t &c, rl::thread_id_t dynamic)
        : base(p, c, dynamic) {}
    rl::thread_id_t iteration_begin_impl() {
        switches = this->params_.context_bound;
        old = most_old;
        return base::iteration_begin_impl();
    }
    bool can_switch(info &) const { return switches; }
    void on_switch(info &t) { switches -= t.state_ == rl::thread_state_running; }
    unsigned rand_impl(unsigned limit, rl::sched_type type) {
        if (type != rl::sched_type_atomic_load)
            return base::rand_impl(limit, type);
        unsigned older = old ? base::rand_impl(limit, type) : 0; /* than the value last looked at */
        old -= older;
        return older;
    }
    double iteration_count_approx() const { return 1; }
};

/* As rl::simulate: a run that fails is made again, with its history. */
template <class Suite> bool search(rl::test_params &p) {
    using scheduler = bounded_scheduler<Suite::params::thread_count>;
    rl::ostringstream state, again;
    *p.output_stream << "search\n";
    if (rl::run_test<Suite, scheduler>(p, state, false) == rl::test_result_success)
        return true;
    p.initial_state = p.final_state = state.str();
    p.collect_history = true;
    rl::run_test<Suite, scheduler>(p, again, true);
    return false;
}

/* One program, runs first + 1 .. last. */
template <class Suite> verdict run_program(const options &o, unsigned program, uint64_t first, uint64_t last) {
    model::program = program;
    static memo said;
    new (&said) memo;
    std::ostream out(&said), nothing(nullptr);
    rl::test_params p;
    p.search_type = o.search;
    p.context_bound = o.bound.preemptions;
    most_old = o.bound.old;
    p.iteration_count = o.seed + last;
    p.execution_depth_limit = 4000;
    rl::ostringstream start;
    start << o.seed + first + 1 << " ";
    if (o.search == rl::random_scheduler_type)
        p.initial_state = start.str();
    p.output_stream = &out;
    p.progress_stream = &nothing;
    bool passed = o.search == rl::fair_context_bound_scheduler_type ? search<Suite>(p) : rl::simulate<Suite>(p);
    verdict v = {!passed, program, p.stop_iteration, ""};
    if (!passed) { /* the second line says why */
        const char *end = said.text + said.size();
        const char *from = std::find(said.text + 0, const_cast<char *>(end), '\n') + 1;
        snprintf(v.why, sizeof v.why, "%.*s", static_cast<int>(std::find(from, end, '\n') - from), from);
        if (o.history)
            fwrite(said.text, 1, said.size(), stdout);
    }
    return v;
}

/* Which of a function's same verbs a site is: 1 for the first. */
inline unsigned ordinal_of(const seam::site &s) {
    unsigned ordinal = 1;
    for (unsigned i = 0; i < seam::sites.count; i++) {
        const seam::site &t = seam::sites.table[i];
        ordinal += !strcmp(t.function, s.function) && !strcmp(t.verb, s.verb) && t.line < s.line;
    }
    return ordinal;
}

inline std::string name_of(const seam::site &s) {
    unsigned ordinal = ordinal_of(s);
    return std::string(s.function) + "." + s.verb + (ordinal > 1 ? "#" + std::to_string(ordinal) : "");
}

struct named_mutant {
    std::string name;
    seam::deed what;
    unsigned site;
    rl::memory_order order;
    const char *own;
};

inline void list_mutants_of(unsigned index, std::vector<named_mutant> &list) {
    const seam::site &s = seam::sites.table[index];
    std::string name = name_of(s);
    auto weaker = [&](rl::memory_order order) {
        list.push_back({name + ":" + rl::format(order), seam::ORDER, index, order, nullptr});
    };
    auto deed = [&](const char *what, seam::deed d) {
        list.push_back({name + ":" + what, d, index, rl::mo_relaxed, nullptr});
    };
    if (s.kind == seam::FENCE) {
        weaker(rl::mo_acq_rel);
        return deed("drop", seam::DROP);
    }
    if (s.order == rl::mo_acq_rel) {
        weaker(rl::mo_acquire);
        weaker(rl::mo_release);
    }
    if (s.order != rl::mo_relaxed)
        weaker(rl::mo_relaxed);
    if (s.kind == seam::CAS && seam::failing(s.order) == rl::mo_acquire)
        deed("failure", seam::FAILURE);
    if (s.kind == seam::CHANGE || s.kind == seam::CAS)
        deed("split", seam::SPLIT);
    if (s.kind != seam::LOAD)
        deed("drop", seam::DROP);
    if (s.kind == seam::STORE || s.kind == seam::CHANGE)
        deed("late", seam::LATE);
}

inline void apply(const named_mutant &m) {
    seam::sites.watched = true;
    seam::mutant = {m.what, m.own ? nullptr : &seam::sites.table[m.site], m.order, m.own};
}

inline bool is_covered(const description &d, const seam::site &s) {
    std::string file = s.file, function = s.function;
    auto is_of = [&](const std::string &name) { return file.ends_with("/" + name) || function == name; };
    return std::any_of(d.covers.begin(), d.covers.end(), is_of);
}

/* Learns the sites by running the unchanged model a little; the list of all mutants, in the order of the code. */
template <class Suite> std::vector<named_mutant> list_mutants(const options &o, const description &d) {
    std::vector<named_mutant> list;
    seam::sites.watched = true;
    options quiet = o;
    quiet.history = false;
    for (unsigned p = 0; p < d.programs.size(); p++)
        run_program<Suite>(quiet, p, 0, 3000);
    std::vector<unsigned> order;
    for (unsigned i = 0; i < seam::sites.count; i++) {
        if (is_covered(d, seam::sites.table[i]))
            order.push_back(i);
    }
    std::sort(order.begin(), order.end(), [](unsigned a, unsigned b) {
        const seam::site &x = seam::sites.table[a], &y = seam::sites.table[b];
        int by_function = strcmp(x.function, y.function);
        return by_function ? by_function < 0 : x.line != y.line ? x.line < y.line : strcmp(x.verb, y.verb) < 0;
    });
    for (unsigned i : order)
        list_mutants_of(i, list);
    for (const char *own : d.mutants)
        list.push_back({own, seam::NOTHING, 0, rl::mo_relaxed, own});
    return list;
}

/* How program p is searched exhaustively. */
inline options search_of(const options &o, const description &d, unsigned p) {
    options all = o;
    all.search = rl::fair_context_bound_scheduler_type;
    all.bound = p < d.bounds.size() ? d.bounds[p] : bound(1);
    return all;
}

/* Programs in turn, a few runs each, then ten times as many; before it takes long, if so many runs were asked for, all of few
 * preemptions. */
template <class Suite> verdict hunt(const options &o, const description &d, uint64_t most) {
    verdict v = {};
    auto each = [&](auto &&run) {
        for (unsigned p = 0; p < d.programs.size() && !v.caught; p++)
            v = run(p);
    };
    for (uint64_t first = 0, last = 1000; first < most && !v.caught; first = last, last *= 10) {
        each([&](unsigned p) { return run_program<Suite>(o, p, first, std::min(last, most)); });
        if (last == 10000 && most == o.runs)
            each([&](unsigned p) { return run_program<Suite>(search_of(o, d, p), p, 0, most); });
    }
    return v;
}

/* The same in a process of its own: a caught run leaves its threads in the middle. */
template <class Suite>
verdict hunt_apart(const options &o, const description &d, const named_mutant &m, uint64_t most) {
    auto *shared = static_cast<verdict *>(
        mmap(nullptr, sizeof(verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    *shared = verdict{true, 0, 0, "a pointer to nowhere"};
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        apply(m);
        *shared = hunt<Suite>(o, d, most);
        _exit(0);
    }
    waitpid(child, nullptr, 0);
    verdict v = *shared;
    munmap(shared, sizeof(verdict));
    return v;
}

/* Excuses: lines "model mutant: argument". */
struct excuse {
    std::string mutant, argument;
    bool used;
};

inline std::vector<excuse> read_excuses(const char *path, const char *model) {
    std::vector<excuse> list;
    FILE *file = path ? fopen(path, "r") : nullptr;
    char line[1000];
    if (path && !file) {
        perror(path);
        exit(2);
    }
    std::string prefix = std::string(model) + " ";
    while (file && fgets(line, sizeof line, file)) {
        std::string text(line);
        size_t cut = text.find(": ", prefix.size());
        if (text.compare(0, prefix.size(), prefix) || cut == std::string::npos)
            continue;
        text.erase(text.find_last_not_of('\n') + 1);
        list.push_back({text.substr(prefix.size(), cut - prefix.size()), text.substr(cut + 2), false});
    }
    if (file)
        fclose(file);
    return list;
}

/* The table; returns how many rows are wrong. */
template <class Suite> int run_mutants(const options &o, const description &d) {
    std::vector<excuse> excuses = read_excuses(o.equivalent, d.name);
    int wrong = 0;
    for (const named_mutant &m : list_mutants<Suite>(o, d)) {
        excuse *excused = nullptr;
        for (excuse &e : excuses)
            if (e.mutant == m.name)
                excused = &e;
        verdict v = hunt_apart<Suite>(o, d, m, excused ? std::min(o.few, o.runs) : o.runs);
        bool bad = v.caught == (excused != nullptr);
        wrong += bad;
        printf("%-8s%-62s ", d.name, m.name.c_str());
        if (excused)
            excused->used = true;
        if (excused && !v.caught)
            printf("equivalent: %s\n", excused->argument.c_str());
        else if (v.caught)
            printf("%s %s, run %" PRIu64 ": %s\n", bad ? "EXCUSED, BUT CAUGHT by" : "caught by",
                   v.run ? d.programs[v.program] : "one of them", v.run, v.why);
        else
            printf("SURVIVES\n");
    }
    for (const excuse &e : excuses)
        if (!e.used) {
            printf("%-8s%-62s EXCUSED, BUT NO SUCH MUTANT\n", d.name, e.mutant.c_str());
            wrong++;
        }
    return wrong;
}

inline void list_sites(const description &d) {
    for (unsigned i = 0; i < seam::sites.count; i++) {
        const seam::site &s = seam::sites.table[i];
        if (s.simulated && is_covered(d, s))
            printf("%s:%u %s, %s\n", s.file, s.line, name_of(s).c_str(), rl::format(s.order));
    }
}

inline double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

/* True: something is wrong. */
template <class Suite> bool show_program(const options &o, const description &d, unsigned program) {
    double from = seconds();
    verdict v = run_program<Suite>(o, program, 0, o.runs);
    std::string old = o.bound.old == bound::ANY ? "" : " and " + std::to_string(o.bound.old) + " old values";
    printf("%s %s: ", d.name, d.programs[program]);
    if (v.caught)
        printf("run %" PRIu64 ": %s\n", v.run, v.why);
    else if (o.search == rl::random_scheduler_type)
        printf("%" PRIu64 " runs, nothing wrong, %.1f s\n", v.run - o.seed, seconds() - from);
    else if (o.search == rl::fair_context_bound_scheduler_type)
        printf("all %" PRIu64 " runs of at most %u preemption%s%s, nothing wrong, %.1f s\n", v.run, o.bound.preemptions,
               o.bound.preemptions == 1 ? "" : "s", old.c_str(), seconds() - from);
    else
        printf("all %" PRIu64 " runs, nothing wrong, %.1f s\n", v.run, seconds() - from);
    fflush(stdout);
    return v.caught;
}

template <class Suite> int run_programs(const options &o, const description &d) {
    int failed = 0;
    for (unsigned p = 0; p < d.programs.size(); p++) {
        if (o.program && strcmp(o.program, d.programs[p]))
            continue;
        options all = search_of(o, d, p);
        failed += show_program<Suite>(o, d, p);
        if (o.search == rl::random_scheduler_type)
            failed += show_program<Suite>(all, d, p);
    }
    return failed;
}

template <class Suite> int run_one_mutant(const options &o, const description &d) {
    for (const named_mutant &m : list_mutants<Suite>(o, d))
        if (m.name == o.mutant) {
            apply(m);
            return run_programs<Suite>(o, d) ? 0 : 1;
        }
    fprintf(stderr, "%s: no mutant %s\n", d.name, o.mutant);
    return 2;
}

template <class Suite> int main_of(int argc, char **argv, const description &d) {
    options o;
    for (int i = 1; i < argc; i++) {
        std::string word = argv[i];
        auto value = [&] { return i + 1 < argc ? argv[++i] : ""; };
        if (word == "--runs")
            o.runs = strtoull(value(), nullptr, 0);
        else if (word == "--few")
            o.few = strtoull(value(), nullptr, 0);
        else if (word == "--seed")
            o.seed = strtoull(value(), nullptr, 0);
        else if (word == "--program")
            o.program = value();
        else if (word == "--mutant")
            o.mutant = value();
        else if (word == "--equivalent")
            o.equivalent = value();
        else if (word == "--bound")
            o.bound.preemptions = static_cast<unsigned>(atoi(value()));
        else if (word == "--old")
            o.bound.old = static_cast<unsigned>(atoi(value()));
        else if (word == "--search")
            o.search = *value() == 'f' ? rl::fair_full_search_scheduler_type : rl::fair_context_bound_scheduler_type;
        else if (word == "--mutants")
            o.mutants = true;
        else if (word == "--sites")
            o.sites = true;
        else if (word == "--history")
            o.history = true;
        else {
            fprintf(stderr, "%s: what is %s? See model/run.h.\n", d.name, argv[i]);
            return 2;
        }
    }
    if (o.sites) {
        list_mutants<Suite>(o, d);
        list_sites(d);
        return 0;
    }
    if (o.mutant)
        return run_one_mutant<Suite>(o, d);
    return (o.mutants ? run_mutants<Suite>(o, d) : run_programs<Suite>(o, d)) != 0;
}

} // namespace model

#endif
