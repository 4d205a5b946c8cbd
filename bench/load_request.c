/* load_request.c -- a server's requests: 50 to 200 blocks of mixed sizes, some of them strings that grow by
 * realloc, freed together at the end, but for a few that replace something in the session.
 *
 * An op is a request. `live` is the number of blocks that sessions keep, shared out over the threads.
 * Modes: plain, and latency: the same, with a clock and the thread's counters read around each malloc and
 * free. It reports the calls that took longer than 10 us and 1 ms and the longest, without those in which the
 * thread was switched out or a page was touched for the first time, and how many calls took how long: malloc_ns
 * and free_ns are counts by nanoseconds, a bucket each below 8, then four to each power of two. Its seconds are
 * not the allocator's. And purge: latency, while 256 MiB that were used and freed just before, four times in
 * the run, go back to the system, if the allocator gives them back.
 */
#include "load.h"

enum { BLOCKS_MIN = 50, BLOCKS_MAX = 200, STRING_STEPS = 6, SLOW_NS = 10 * 1000, STALL_NS = 1000 * 1000 };
enum { BUCKETS = 256 }; /* of any 64-bit time */
enum { BURSTS = 4, BURST_BLOCKS = 16384, BURST_BYTES = 16 * 1024 };

static const struct load_shape shape = {
    .name = "request",
    .modes = {{"plain", 50000, 1}, {"latency", 5000, 1}, {"purge", 10000, 1}},
    .live = 20000,
    .min_size = 16,
    .max_size = 4096,
};

/* What latency mode saw; a worker's own. */
struct latency {
    uint64_t calls, slow, stalls, longest_ns;
    uint64_t malloc_ns[BUCKETS], free_ns[BUCKETS];
    _Alignas(LOAD_LINE_BYTES) char end[LOAD_LINE_BYTES];
};

static struct latency *latencies; /* NULL in plain mode */

static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Switches and faults of this thread so far: a call in which the sum moves is not counted. */
static long disturbances(void) {
    struct rusage u;
    getrusage(RUSAGE_THREAD, &u);
    return u.ru_nivcsw + u.ru_nvcsw + u.ru_minflt + u.ru_majflt;
}

static unsigned bucket_of(uint64_t ns) {
    if (ns < 8)
        return (unsigned)ns;
    unsigned shift = 61 - (unsigned)__builtin_clzll(ns); /* leaves the top three bits: 4 .. 7 */
    return shift * 4 + (unsigned)(ns >> shift);
}

static void latency_note(struct latency *l, uint64_t *buckets, uint64_t ns) {
    buckets[bucket_of(ns)]++;
    l->calls++;
    l->slow += ns > SLOW_NS;
    l->stalls += ns > STALL_NS;
    l->longest_ns = ns > l->longest_ns ? ns : l->longest_ns;
}

static void *timed_malloc(struct worker *w, size_t size) {
    struct latency *l = &latencies[w->id];
    long before = disturbances();
    uint64_t t = clock_ns();
    void *p = malloc(size);
    t = clock_ns() - t;
    if (disturbances() == before)
        latency_note(l, l->malloc_ns, t);
    return p;
}

static void timed_free(struct worker *w, void *p) {
    struct latency *l = &latencies[w->id];
    long before = disturbances();
    uint64_t t = clock_ns();
    free(p);
    t = clock_ns() - t;
    if (disturbances() == before)
        latency_note(l, l->free_ns, t);
}

static void *request_make(struct worker *w, size_t size) {
    return block_sign(w, __builtin_expect(latencies != NULL, 0) ? timed_malloc(w, size) : malloc(size), size);
}

static void request_drop(struct worker *w, void *p) {
    block_check(w, p);
    if (__builtin_expect(latencies != NULL, 0))
        timed_free(w, p);
    else
        free(p);
}

/* A string: begins small, doubles a few times, and is cut to what it needs. */
static void *make_string(struct worker *w) {
    size_t size = 32;
    void *p = request_make(w, size);
    for (uint64_t steps = load_below(w, STRING_STEPS); steps > 0; steps--) {
        block_check(w, p);
        size *= 2;
        p = block_sign(w, realloc(p, size), size);
    }
    block_check(w, p);
    size -= size / 4;
    return block_sign(w, realloc(p, size), size);
}

static void request(struct worker *w, void **session, uint64_t kept) {
    void *block[BLOCKS_MAX];
    unsigned n = BLOCKS_MIN + (unsigned)load_below(w, BLOCKS_MAX - BLOCKS_MIN + 1);
    for (unsigned i = 0; i < n; i++)
        block[i] = i % 8 == 0 ? make_string(w) : request_make(w, load_size(w));
    for (unsigned i = 0; i < n; i++) {
        if (i % 32 != 31 || kept == 0) {
            request_drop(w, block[i]);
            continue;
        }
        void **slot = &session[load_below(w, kept)];
        if (*slot)
            request_drop(w, *slot);
        *slot = block[i];
    }
}

/* Something big came and went. Not timed. */
static void burst(struct worker *w, void **block) {
    unsigned n = BURST_BLOCKS / load.threads;
    for (unsigned i = 0; i < n; i++) {
        block[i] = block_make(w, BURST_BYTES);
        block_touch(block[i], 0, BURST_BYTES);
    }
    for (unsigned i = 0; i < n; i++)
        block_clear(w, &block[i]);
}

static void serve(struct worker *w) {
    for (uint64_t i = 0; i < w->ops; i++) {
        if (load_mode_is("purge") && i % (w->ops / BURSTS + 1) == 0)
            burst(w, w->slots + w->live);
        request(w, w->slots, w->live);
    }
    for (uint64_t i = 0; i < w->live; i++)
        block_clear(w, &w->slots[i]);
}

static void summary(void) {
    static struct latency all;
    for (unsigned i = 0; i < load.threads; i++) {
        const struct latency *l = &latencies[i];
        all.calls += l->calls;
        all.slow += l->slow;
        all.stalls += l->stalls;
        all.longest_ns = l->longest_ns > all.longest_ns ? l->longest_ns : all.longest_ns;
        for (unsigned k = 0; k < BUCKETS; k++) {
            all.malloc_ns[k] += l->malloc_ns[k];
            all.free_ns[k] += l->free_ns[k];
        }
    }
    load_note("timed_calls", all.calls);
    load_note("above_10us", all.slow);
    load_note("above_1ms", all.stalls);
    load_note("longest_ns", all.longest_ns);
    load_note_list("malloc_ns", all.malloc_ns, BUCKETS);
    load_note_list("free_ns", all.free_ns, BUCKETS);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    bool purge = load_mode_is("purge");
    if (purge || load_mode_is("latency")) {
        latencies = load_pages(load.threads * sizeof *latencies);
        load.summary = summary;
    }
    return load_run(serve, load.live / load.threads + 1 + (purge ? BURST_BLOCKS / load.threads : 0));
}
