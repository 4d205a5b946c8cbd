/* count/count.c -- see `count/count.h`. Uses the compiler's atomics: those of base/ would count themselves. */
#include "count/count.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LINES = 1 << 17, FUNCTIONS = 1 << 10, THREADS = 256, LINE_SHIFT = 6 };

/* A line's state as in a protocol of modified and shared copies. The fields change one by one: where two threads race, a
 * count may be off by one. */
struct line {
    uintptr_t key;           /* address >> LINE_SHIFT; 0: free entry */
    struct count_site *site; /* the last one outside base/: says what the line is */
    uint32_t owner;          /* who wrote it last */
    uint64_t copy[THREADS / 64], users[THREADS / 64];
    uint64_t changes, failed, stores, moved_write, moved_read;
} GR_LINE;

static struct line lines[LINES];
static struct line overflow; /* for those beyond the table */

static struct function {
    uintptr_t address;
    uint64_t entries;
} functions[FUNCTIONS];

enum { BATCH = 64 };

static uint32_t threads;
static GR_TLS uint32_t self;  /* from 1 */
static GR_TLS uint32_t calls; /* allocations not yet in the sum */
static uint64_t allocations, from, to;
static bool counting, turns;
static const char *path;
static pid_t process;

#define ADD(at, n)    __atomic_fetch_add((at), (n), __ATOMIC_RELAXED)
#define LOAD(at)      __atomic_load_n((at), __ATOMIC_RELAXED)
#define STORE(at, v)  __atomic_store_n((at), (v), __ATOMIC_RELAXED)
#define BIT(set, who) (&(set)[(who) % THREADS / 64])
#define ONE(who)      (1ull << (who) % 64)

static uint32_t me(void) {
    if (GR_UNLIKELY(!self))
        self = ADD(&threads, 1) + 1;
    return self;
}

/* The entry of a key in an open table, made if it is new; NULL: the table is full. */
#define FIND(table, size, member, wanted)                                                                              \
    for (size_t at = (wanted)*0x9e3779b97f4a7c15ull >> 40, n = 0; n < (size); at++, n++) {                             \
        __typeof__(&(table)[0]) entry = &(table)[at % (size)];                                                         \
        uintptr_t seen = LOAD(&entry->member);                                                                         \
        if (seen == (wanted) || (!seen && (__atomic_compare_exchange_n(&entry->member, &seen, (wanted), false,         \
                                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED) ||          \
                                           seen == (wanted))))                                                         \
            return entry;                                                                                              \
    }

static struct line *line_at(uintptr_t key) {
    FIND(lines, LINES, key, key)
    return &overflow;
}

static struct function *function_at(uintptr_t address) {
    FIND(functions, FUNCTIONS, address, address)
    return &functions[0];
}

static bool set_has(const uint64_t *set, uint32_t who) { return LOAD(BIT(set, who)) & ONE(who); }
static void set_add(uint64_t *set, uint32_t who) {
    if (!set_has(set, who))
        __atomic_fetch_or(BIT(set, who), ONE(who), __ATOMIC_RELAXED);
}

static void used(struct line *l, struct count_site *site, uint32_t who) {
    set_add(l->users, who);
    for (const char *c = site->file; *c; c++)
        if (c[0] == 'b' && c[1] == 'a' && c[2] == 's' && c[3] == 'e' && c[4] == '/')
            return;
    STORE(&l->site, site);
}

/* The caller is to have the only copy. Did it have to come? */
static bool fetch_alone(struct line *l, uint32_t who) {
    bool alone = __atomic_exchange_n(&l->owner, who, __ATOMIC_RELAXED) == who;
    for (unsigned i = 0; i < THREADS / 64; i++) {
        uint64_t mine = who % THREADS / 64 == i ? ONE(who) : 0, seen = LOAD(&l->copy[i]);
        if (seen & ~mine)
            alone = false;
        if (seen != mine)
            STORE(&l->copy[i], mine);
    }
    return !alone;
}

static void written(struct line *l, struct count_site *site, uint32_t who) {
    bool first = !LOAD(&l->owner); /* nobody's yet */
    if (fetch_alone(l, who) && !first) {
        ADD(&l->moved_write, 1);
        ADD(&site->moved, 1);
    }
    used(l, site, who);
}

void gr_count_load(struct count_site *site, const volatile void *at) {
    if (GR_UNLIKELY(!counting))
        return;
    uint32_t who = me(), owner;
    struct line *l = line_at((uintptr_t)at >> LINE_SHIFT);
    if (set_has(l->copy, who))
        return;
    set_add(l->copy, who);
    owner = LOAD(&l->owner);
    if (owner && owner != who) {
        ADD(&l->moved_read, 1);
        ADD(&site->moved, 1);
    }
    used(l, site, who);
}

void gr_count_store(struct count_site *site, const volatile void *at, size_t bytes) {
    if (GR_UNLIKELY(!counting) || !bytes)
        return;
    uintptr_t first = (uintptr_t)at >> LINE_SHIFT, last = ((uintptr_t)at + bytes - 1) >> LINE_SHIFT;
    ADD(&site->steps, 1);
    for (uintptr_t key = first; key <= last; key++) {
        struct line *l = line_at(key);
        ADD(&l->stores, 1);
        written(l, site, me());
    }
}

void gr_count_change(struct count_site *site, const volatile void *at, bool done) {
    if (GR_UNLIKELY(!counting))
        return;
    struct line *l = line_at((uintptr_t)at >> LINE_SHIFT);
    ADD(&site->steps, 1);
    ADD(&l->changes, 1);
    written(l, site, me());
    if (!done) {
        ADD(&site->failed, 1);
        ADD(&l->failed, 1);
    } else if (turns) {
        sched_yield();
    }
}

/* The compiler calls these around every function that stands in a .c file. */
void __cyg_profile_func_enter(void *function, void *caller);
void __cyg_profile_func_exit(void *function, void *caller);

static void allocation(void) {
    if (++calls < BATCH)
        return;
    uint64_t sum = ADD(&allocations, calls) + calls;
    calls = 0;
    STORE(&counting, sum >= from && sum < to);
}

void __cyg_profile_func_enter(void *function, void *caller) {
    (void)caller;
    if (function == (void *)malloc || function == (void *)calloc || function == (void *)realloc)
        allocation();
    if (counting)
        ADD(&function_at((uintptr_t)function)->entries, 1);
}
void __cyg_profile_func_exit(void *function, void *caller) {
    (void)function;
    (void)caller;
}

/* ---- the report ---- */

extern struct count_site count_sites_from[] __asm__("__start_count_sites") GR_HIDDEN;
extern struct count_site count_sites_to[] __asm__("__stop_count_sites") GR_HIDDEN;

/* Of an address in the library, as nm prints them; -1 of others. */
static long long offset_of(uintptr_t address) {
    Dl_info its, ours;
    bool found = dladdr((void *)address, &its) && dladdr(&counting, &ours) && its.dli_fbase == ours.dli_fbase;
    return found ? (long long)(address - (uintptr_t)ours.dli_fbase) : -1;
}

static unsigned members(const uint64_t *set) {
    unsigned n = 0;
    for (unsigned i = 0; i < THREADS / 64; i++)
        n += (unsigned)__builtin_popcountll(set[i]);
    return n;
}

static void report_line(int fd, const struct line *l) {
    if (l->changes + l->stores + l->moved_read == 0)
        return;
    dprintf(fd, ",\n[%lld,%td,%u,%ju,%ju,%ju,%ju,%ju]", offset_of(l->key << LINE_SHIFT),
            l->site ? l->site - count_sites_from : -1, members(l->users), (uintmax_t)l->changes, (uintmax_t)l->failed,
            (uintmax_t)l->stores, (uintmax_t)l->moved_write, (uintmax_t)l->moved_read);
}

static void report(int fd) {
    dprintf(fd, "{\"threads\":%u,\"sites\":[[\"file\",\"function\",\"word\",\"line\",\"steps\",\"failed\",\"moved\"]",
            threads);
    for (struct count_site *s = count_sites_from; s < count_sites_to; s++)
        dprintf(fd, ",\n[\"%s\",\"%s\",\"%s\",%ju,%ju,%ju,%ju]", s->file, s->function, s->word, (uintmax_t)s->line,
                (uintmax_t)s->steps, (uintmax_t)s->failed, (uintmax_t)s->moved);
    dprintf(fd, "],\n\"functions\":[[\"offset\",\"entries\"]");
    for (unsigned i = 0; i < FUNCTIONS; i++)
        if (functions[i].address)
            dprintf(fd, ",\n[%lld,%ju]", offset_of(functions[i].address), (uintmax_t)functions[i].entries);
    dprintf(fd, "],\n\"lines\":[[\"offset\",\"site\",\"users\",\"changes\",\"failed\",\"stores\",\"moved_write\","
                "\"moved_read\"]");
    for (unsigned i = 0; i < LINES; i++)
        report_line(fd, &lines[i]);
    report_line(fd, &overflow);
    dprintf(fd, "]}\n");
}

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
    path = getenv("COUNT_FILE");
    turns = getenv("COUNT_TURNS") != NULL;
    process = getpid();
    from = number("COUNT_FROM", 0);
    to = path ? number("COUNT_TO", UINT64_MAX) : 0;
    counting = from < to && !from;
}

__attribute__((destructor)) static void end(void) {
    counting = false;
    to = 0;
    int fd = path && getpid() == process ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (fd < 0)
        return;
    report(fd);
    close(fd);
}
