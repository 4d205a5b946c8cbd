/* load.h -- what every load shape shares: arguments, threads, blocks that verify themselves, the result line.
 *
 * PURPOSE     A load program is one shape of use, written against plain malloc and free, so that whatever
 *             allocator is preloaded is the one that runs. The work of a run is fixed by its arguments and
 *             does not depend on the number of threads: ops and live are totals that the threads share out.
 *             So CPU seconds compare, between allocators and between thread counts.
 *
 * OWNS        All memory of the harness comes from mmap and is resident before the clock starts. One thread
 *             runs in main, so that an allocator that is quicker in a single-threaded process may be so.
 *
 * INVARIANTS
 *   no-sharing  Workers write nothing that another worker reads until they are joined; each has its lines.
 *   signed      The first word of a block holds its size mixed with its address, the last word the
 *               complement, and the check before the free wipes the first. A block that was written by
 *               another's owner, moved, or handed out twice is seen when it is dropped.
 *   balance     Sizes and count of the blocks made equal those of the blocks dropped, over all workers.
 *
 * ELSEWHERE   bench/race runs the programs and compares; bench/README.md says what each shape is.
 */
#ifndef LOAD_H
#define LOAD_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    LOAD_MODES = 8,
    LOAD_NOTES = 12,
    LOAD_SIZES = 512,      /* a power of two: an index is a mask away */
    LOAD_LINE_BYTES = 128, /* two lines: the adjacent-line prefetcher makes neighbours of pairs */
    LOAD_PAGE_BYTES = 4096,
    LOAD_MAX_THREADS = 4096,
};

#define LOAD_WIPED UINT64_C(0x5717ed5717ed5717) /* the first word of a block after its check */

struct load_mode {
    const char *name;
    uint64_t ops;         /* default, for all threads together: half a second to a second on glibc */
    unsigned min_threads; /* 0 is 1 */
};

/* What a program says of itself. */
struct load_shape {
    const char *name;
    struct load_mode modes[LOAD_MODES]; /* the first is the default; the last has no name */
    uint64_t live;                      /* default number of blocks alive, all threads together */
    size_t min_size, max_size;
};

struct worker {
    /* constant after start */
    void (*body)(struct worker *);
    unsigned id;
    uint64_t ops, live; /* this worker's share */
    void **slots;       /* zeroed memory for the shape's own use */
    pthread_t thread;
    /* owner only */
    _Alignas(LOAD_LINE_BYTES) uint64_t rng;
    uint64_t made, dropped; /* sums of block_sum() */
    uint64_t bad;           /* checks that failed */
    _Alignas(LOAD_LINE_BYTES) char end[LOAD_LINE_BYTES];
};

/* The run: constant once the workers start, but for notes and peak_kib, which only main writes. */
static struct load {
    const struct load_shape *shape;
    unsigned mode, threads;
    uint64_t ops, live, seed;
    size_t min_size, max_size;
    double scale, rest_seconds;
    bool rested;           /* the shape did it by itself, while its workers lived */
    bool count_children;   /* CPU and faults of child processes belong to the run */
    uint64_t peak_kib;     /* not zero: the shape measured it by itself */
    void (*summary)(void); /* called in main after the measured part: the place for load_note() */
    struct worker *workers;
    pthread_barrier_t start;
    unsigned notes;
    struct {
        const char *name;
        uint64_t value;
        const uint64_t *list; /* not NULL: `value` numbers instead of one */
    } note[LOAD_NOTES];
    uint32_t sizes[LOAD_SIZES];
} load;

static inline _Noreturn void load_die(const char *what) {
    fprintf(stderr, "load_%s: %s\n", load.shape ? load.shape->name : "?", what);
    _exit(3);
}

/* Zeroed memory that no allocator under test has seen, resident. Never given back. */
static inline void *load_pages(size_t bytes) {
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED)
        load_die("no memory for the harness");
    return p;
}

/* Numbers that the result line carries as a list, without the zeros at its end; they stay the caller's. Main
 * only. */
static inline void load_note_list(const char *name, const uint64_t *list, uint64_t count) {
    while (list && count > 0 && list[count - 1] == 0)
        count--;
    if (load.notes < LOAD_NOTES) {
        load.note[load.notes].name = name;
        load.note[load.notes].list = list;
        load.note[load.notes++].value = count;
    }
}

/* A number that the result line carries beside the usual ones. Main, or one worker while all others wait for it. */
static inline void load_note(const char *name, uint64_t value) { load_note_list(name, NULL, value); }

static inline bool load_mode_is(const char *name) { return strcmp(load.shape->modes[load.mode].name, name) == 0; }

static inline double load_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- random numbers and sizes ---- */

static inline uint64_t load_rand(struct worker *w) {
    uint64_t x = w->rng;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return w->rng = x;
}

/* 0 .. n - 1, for n below 2^32. */
static inline uint64_t load_below(struct worker *w, uint64_t n) { return ((load_rand(w) >> 32) * n) >> 32; }

/* A size of the run's distribution: log-uniform from min_size to max_size. */
static inline size_t load_size(struct worker *w) { return load.sizes[(load_rand(w) >> 20) % LOAD_SIZES]; }

/* Size number i of n that divide the range evenly on a log scale. */
static inline size_t load_size_step(size_t min, size_t max, double i, double n) {
    return (size_t)((double)min * pow((double)max / (double)min, i / n));
}

/* The distribution anew between other bounds. Main only, before the workers start. */
static inline void load_set_sizes(size_t min, size_t max) {
    for (unsigned i = 0; i < LOAD_SIZES; i++)
        load.sizes[i] = (uint32_t)load_size_step(min, max, i + (min == max ? 0.0 : 0.5), LOAD_SIZES);
}

/* ---- blocks ---- */

static inline uint64_t block_key(const void *p) { return (uint64_t)(uintptr_t)p * UINT64_C(0x9e3779b97f4a7c15); }

static inline uint64_t block_sum(size_t size) { return (UINT64_C(1) << 40) + size; }

static inline void block_store(void *p, uint64_t word) { memcpy(p, &word, sizeof word); }

static inline uint64_t block_load(const void *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Takes note of a fresh block of at least 8 bytes and writes its first and last word. */
static inline void *block_sign(struct worker *w, void *p, size_t size) {
    if (__builtin_expect(p == NULL, 0))
        load_die("out of memory");
    uint64_t head = block_key(p) ^ size;
    block_store(p, head);
    if (size >= 16)
        block_store((char *)p + size - 8, ~head);
    w->made += block_sum(size);
    return p;
}

static inline void *block_make(struct worker *w, size_t size) { return block_sign(w, malloc(size), size); }

/* Takes leave of a block: its size, or 0 if it is not what block_sign() wrote. It may be freed or resized. */
static inline size_t block_check(struct worker *w, void *p) {
    uint64_t head = block_load(p);
    uint64_t size = head ^ block_key(p);
    if (__builtin_expect(size - 8 > UINT32_MAX, 0)) {
        w->bad++;
        return 0;
    }
    if (size >= 16 && block_load((const char *)p + size - 8) != ~head)
        w->bad++;
    w->dropped += block_sum(size);
    block_store(p, LOAD_WIPED);
    return size;
}

static inline void block_drop(struct worker *w, void *p) {
    block_check(w, p);
    free(p);
}

/* Drops what a slot holds and leaves it empty. */
static inline void block_clear(struct worker *w, void **slot) {
    if (*slot)
        block_drop(w, *slot);
    *slot = NULL;
}

/* Writes one byte of each page from byte `from` on, beside the signed words. */
static inline void block_touch(void *p, size_t from, size_t size) {
    volatile char *bytes = p;
    for (size_t i = from; i + 24 < size; i += LOAD_PAGE_BYTES)
        bytes[i + 8] = 1;
}

/* ---- arguments ---- */

static inline void load_describe(const struct load_shape *shape) {
    printf("{\"shape\":\"%s\",\"modes\":[", shape->name);
    for (const struct load_mode *mode = shape->modes; mode->name; mode++)
        printf("%s{\"name\":\"%s\",\"ops\":%" PRIu64 ",\"min_threads\":%u}", mode == shape->modes ? "" : ",",
               mode->name, mode->ops, mode->min_threads);
    printf("]}\n");
}

static inline _Noreturn void load_help(const struct load_shape *shape, int status) {
    fprintf(stderr,
            "usage: load_%s [--threads N] [--ops M] [--seed S] [--mode NAME] [--scale F] [--live N]\n"
            "       [--min-size B] [--max-size B] [--rest SECONDS] [--describe]\n"
            "ops and live are totals that the threads share. modes:",
            shape->name);
    for (const struct load_mode *mode = shape->modes; mode->name; mode++)
        fprintf(stderr, " %s", mode->name);
    fprintf(stderr, "\n");
    exit(status);
}

static inline void load_parse(int argc, char **argv, const struct load_shape *shape) {
    static const struct option options[] = {
        {"threads", required_argument, NULL, 't'},  {"ops", required_argument, NULL, 'o'},
        {"seed", required_argument, NULL, 's'},     {"mode", required_argument, NULL, 'm'},
        {"scale", required_argument, NULL, 'f'},    {"live", required_argument, NULL, 'l'},
        {"min-size", required_argument, NULL, 'a'}, {"max-size", required_argument, NULL, 'b'},
        {"rest", required_argument, NULL, 'r'},     {"describe", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0},
    };
    load = (struct load){.shape = shape, .threads = 1, .seed = 1, .scale = 1.0, .live = shape->live};
    load.min_size = shape->min_size;
    load.max_size = shape->max_size;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 't':
            load.threads = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'o':
            load.ops = strtoull(optarg, NULL, 0);
            break;
        case 's':
            load.seed = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            load.scale = strtod(optarg, NULL);
            break;
        case 'l':
            load.live = strtoull(optarg, NULL, 0);
            break;
        case 'a':
            load.min_size = strtoull(optarg, NULL, 0);
            break;
        case 'b':
            load.max_size = strtoull(optarg, NULL, 0);
            break;
        case 'r':
            load.rest_seconds = strtod(optarg, NULL);
            break;
        case 'd':
            load_describe(shape);
            exit(0);
        case 'm':
            load.mode = 0;
            while (shape->modes[load.mode].name && !load_mode_is(optarg))
                load.mode++;
            if (!shape->modes[load.mode].name)
                load_help(shape, 2);
            break;
        default:
            load_help(shape, c == 'h' ? 0 : 2);
        }
    }
    if (load.ops == 0)
        load.ops = (uint64_t)((double)shape->modes[load.mode].ops * load.scale);
    if (load.ops == 0)
        load.ops = 1;
    if (optind != argc || load.threads < 1 || load.threads < shape->modes[load.mode].min_threads ||
        load.threads > LOAD_MAX_THREADS || load.min_size < 8 || load.max_size < load.min_size ||
        load.max_size > UINT32_MAX)
        load_help(shape, 2);
    load_set_sizes(load.min_size, load.max_size);
}

/* ---- the run ---- */

static inline void *load_thread(void *arg) {
    struct worker *w = arg;
    pthread_barrier_wait(&load.start);
    w->body(w);
    return NULL;
}

/* A line of /proc/self/status in KiB; reads without stdio, which would allocate. */
static inline uint64_t load_status_kib(const char *field) {
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[n < 0 ? 0 : n] = '\0';
    const char *line = strstr(text, field);
    return line ? strtoull(line + strlen(field) + 1, NULL, 10) : 0;
}

struct load_usage {
    double wall, user, sys;
    long minor_faults;
};

static inline struct load_usage load_usage_now(void) {
    struct load_usage sum = {.wall = load_clock()};
    for (int i = 0; i < (load.count_children ? 2 : 1); i++) {
        struct rusage u;
        getrusage(i ? RUSAGE_CHILDREN : RUSAGE_SELF, &u);
        sum.user += (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec * 1e-6;
        sum.sys += (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec * 1e-6;
        sum.minor_faults += u.ru_minflt;
    }
    return sum;
}

/* The file that malloc is called in: proof of what was measured. */
static inline const char *load_malloc_file(void) {
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, "malloc");
    if (!address || !dladdr(address, &info) || !info.dli_fname)
        return "?";
    return strpbrk(info.dli_fname, "\"\\") ? "?" : info.dli_fname;
}

/* Nothing for a while, then what is resident. By main, or by one worker while all others wait for it. */
static inline void load_rest(void) {
    load_note("idle_from_ms", (uint64_t)(load_clock() * 1e3));
    usleep((useconds_t)(load.rest_seconds * 1e6));
    load_note("rest_kib", load_status_kib("VmRSS"));
    load.rested = true;
}

/* Runs the body in every worker, each with `slots` words of its own, and prints the result line. Returns
 * main's status. */
static inline int load_run(void (*body)(struct worker *), uint64_t slots) {
    load.workers = load_pages(load.threads * sizeof(struct worker));
    void **slot = load_pages(load.threads * slots * sizeof *slot);
    for (unsigned i = 0; i < load.threads; i++) {
        struct worker *w = &load.workers[i];
        w->body = body;
        w->id = i;
        w->ops = load.ops / load.threads + (i < load.ops % load.threads);
        w->live = load.live / load.threads + (i < load.live % load.threads);
        w->slots = slot + i * slots;
        w->rng = (load.seed + i + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    }
    pthread_barrier_init(&load.start, NULL, load.threads);

    struct load_usage before = load_usage_now();
    if (load.threads == 1) {
        load_thread(&load.workers[0]);
    } else {
        for (unsigned i = 0; i < load.threads; i++)
            if (pthread_create(&load.workers[i].thread, NULL, load_thread, &load.workers[i]) != 0)
                load_die("cannot start a thread");
        for (unsigned i = 0; i < load.threads; i++)
            pthread_join(load.workers[i].thread, NULL);
    }
    struct load_usage after = load_usage_now();
    uint64_t peak_kib = load.peak_kib ? load.peak_kib : load_status_kib("VmHWM");

    if (load.rest_seconds > 0 && !load.rested)
        load_rest();
    if (load.summary)
        load.summary();
    uint64_t made = 0, dropped = 0, bad = 0;
    for (unsigned i = 0; i < load.threads; i++) {
        made += load.workers[i].made;
        dropped += load.workers[i].dropped;
        bad += load.workers[i].bad;
    }
    bad += made != dropped;
    printf("{\"shape\":\"%s\",\"mode\":\"%s\",\"threads\":%u,\"ops\":%" PRIu64 ",\"seed\":%" PRIu64
           ",\"wall\":%.6f,\"user\":%.6f,\"sys\":%.6f,\"peak_kib\":%" PRIu64 ",\"minor_faults\":%ld",
           load.shape->name, load.shape->modes[load.mode].name, load.threads, load.ops, load.seed,
           after.wall - before.wall, after.user - before.user, after.sys - before.sys, peak_kib,
           after.minor_faults - before.minor_faults);
    for (unsigned i = 0; i < load.notes; i++) {
        const uint64_t *list = load.note[i].list;
        printf(",\"%s\":%s", load.note[i].name, list ? "[" : "");
        for (uint64_t k = 0; list && k < load.note[i].value; k++)
            printf("%s%" PRIu64, k ? "," : "", list[k]);
        if (list)
            printf("]");
        else
            printf("%" PRIu64, load.note[i].value);
    }
    printf(",\"malloc\":\"%s\",\"checksum\":\"%016" PRIx64 "\",\"bad\":%" PRIu64 ",\"verify\":\"%s\"}\n",
           load_malloc_file(), made, bad, bad ? "bad" : "ok");
    return bad ? 1 : 0;
}

#endif
