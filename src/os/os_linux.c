/* os/os_linux.c -- the port to Linux with glibc or musl. */
#include "os/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/check.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif
#ifndef MADV_HUGEPAGE
#define MADV_HUGEPAGE   14
#define MADV_NOHUGEPAGE 15
#endif

enum { PROT_RW = PROT_READ | PROT_WRITE, MAP_FRESH = MAP_PRIVATE | MAP_ANONYMOUS };

enum os_result os_map_at(void *at, size_t bytes) {
    int saved = errno;
    void *got = mmap(at, bytes, PROT_RW, MAP_FRESH | MAP_FIXED_NOREPLACE, -1, 0);
    enum os_result result = OS_OK;
    if (got == MAP_FAILED) {
        /* Only a mapping in the way is final; whatever else is refused now may be granted later. */
        result = errno == EEXIST ? OS_TAKEN : OS_NO_MEMORY;
    } else if (got != at) { /* a kernel that reads the flag as a hint */
        munmap(got, bytes);
        result = OS_TAKEN;
    }
    errno = saved;
    return result;
}

void *os_map(size_t bytes) {
    int saved = errno;
    void *got = mmap(NULL, bytes, PROT_RW, MAP_FRESH, -1, 0);
    errno = saved;
    return got == MAP_FAILED ? NULL : got;
}

bool os_unmap(void *at, size_t bytes) {
    int saved = errno;
    bool gone = munmap(at, bytes) == 0;
    if (!gone)
        madvise(at, bytes, MADV_DONTNEED);
    errno = saved;
    return gone;
}

bool os_purge(void *at, size_t bytes) {
    int saved = errno;
    bool purged = madvise(at, bytes, MADV_DONTNEED) == 0;
    errno = saved;
    return purged;
}

bool os_residence(void *at, size_t bytes, uint8_t *there) {
    int saved = errno;
    bool known = mincore(at, bytes, there) == 0;
    errno = saved;
    for (size_t i = 0; known && i < bytes / os_page_bytes(); i++)
        there[i] &= 1;
    return known;
}

bool os_resize(void *at, size_t old_bytes, size_t new_bytes) {
    int saved = errno;
    bool done = mremap(at, old_bytes, new_bytes, 0) != MAP_FAILED;
    errno = saved;
    return done;
}

bool os_move(void *at, size_t old_bytes, void *over, size_t new_bytes) {
    int saved = errno;
    bool done = mremap(at, old_bytes, new_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, over) != MAP_FAILED;
    errno = saved;
    return done;
}

GR_COLD void *os_detach(void *at, size_t bytes, size_t new_bytes) {
    int saved = errno;
    const int over = MREMAP_MAYMOVE | MREMAP_FIXED;
    char *to = mmap(NULL, new_bytes, PROT_RW, MAP_FRESH, -1, 0);
    if (to != MAP_FAILED && mremap(at, bytes, bytes, over | MREMAP_DONTUNMAP, to) == MAP_FAILED) {
        munmap(to, new_bytes);
        to = MAP_FAILED;
    }
    if (to != MAP_FAILED && new_bytes > bytes) {
        /* The moved pages are a mapping by themselves: it has to grow into the room that was found for it. */
        munmap(to + bytes, new_bytes - bytes);
        void *grown = mremap(to, bytes, new_bytes, MREMAP_MAYMOVE);
        if (grown == MAP_FAILED) { /* nothing that may fail is left to undo it: the old pages are there, and zero */
            memcpy(at, to, bytes);
            munmap(to, bytes);
        }
        to = grown;
    }
    errno = saved;
    return to == MAP_FAILED ? NULL : to;
}

void os_want_huge_pages(void *at, size_t bytes, bool wanted) {
    int saved = errno;
    madvise(at, bytes, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    errno = saved;
}

size_t os_page_bytes(void) {
    static struct word known; /* whoever asks first is told the same: in any order */
    size_t bytes = word_load_relaxed(&known);
    if (!bytes) {
        bytes = getauxval(AT_PAGESZ);
        if (!bytes)
            bytes = 4096;
        word_store_relaxed(&known, bytes);
    }
    return bytes;
}

static struct timespec clock_now(clockid_t which) {
    struct timespec now = {0, 0};
    int saved = errno;
    clock_gettime(which, &now);
    errno = saved;
    return now;
}

uint64_t os_clock_ms(void) {
    struct timespec now = clock_now(CLOCK_MONOTONIC_COARSE);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t microseconds(clockid_t which) {
    struct timespec now = clock_now(which);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t os_clock_us(void) { return microseconds(CLOCK_MONOTONIC); }

uint64_t os_thread_us(void) { return microseconds(CLOCK_THREAD_CPUTIME_ID); }

uint64_t os_random(void) {
    uint64_t seed[2] = {0x9e3779b97f4a7c15ull, 0};
    const void *given = (const void *)getauxval(AT_RANDOM);
    if (given)
        memcpy(seed, given, sizeof seed);
    uint64_t mixed = seed[0] ^ (seed[1] * 0xbf58476d1ce4e5b9ull);
    mixed ^= mixed >> 31;
    return mixed * 0x94d049bb133111ebull;
}

uint64_t os_secret(void) {
    static struct word drawn;
    uint64_t secret;
    int saved = errno;
    if (syscall(SYS_getrandom, &secret, sizeof secret, 1 /* GRND_NONBLOCK */) != sizeof secret)
        secret = (os_random() ^ word_add_relaxed(&drawn, 1)) * 0xd6e8feb86659fd93ull;
    errno = saved;
    return secret;
}

enum { GUARDS_UNKNOWN, GUARDS_MARK, GUARDS_SPLIT };

/* Asked of the kernel once, or by a few at the same time, who are told the same: Linux 6.13 has MADV_GUARD_INSTALL. */
static uint32_t guards(void) {
    static struct half known;
    uint32_t kind = half_load_relaxed(&known);
    if (!kind) {
        void *page = os_map(os_page_bytes());
        kind = page && madvise(page, os_page_bytes(), MADV_GUARD_INSTALL) == 0 ? GUARDS_MARK : GUARDS_SPLIT;
        if (page)
            munmap(page, os_page_bytes());
        half_store_relaxed(&known, kind);
    }
    return kind;
}

bool os_guards_split(void) {
    int saved = errno;
    bool split = guards() == GUARDS_SPLIT;
    errno = saved;
    return split;
}

bool os_guard(void *at, size_t bytes, bool split) {
    int saved = errno;
    bool done = split ? madvise(at, bytes, MADV_DONTNEED) == 0 && mprotect(at, bytes, PROT_NONE) == 0
                      : madvise(at, bytes, MADV_GUARD_INSTALL) ==
                            0; /* pages that are there cost more to protect than to purge */
    errno = saved;
    return done;
}

bool os_unguard(void *at, size_t bytes, bool split) {
    int saved = errno;
    bool done = (!split || mprotect(at, bytes, PROT_RW) == 0) &&
                (guards() == GUARDS_SPLIT || madvise(at, bytes, MADV_GUARD_REMOVE) == 0);
    errno = saved;
    return done;
}

bool os_is_secure(void) { return getauxval(AT_SECURE) != 0; }

extern GR_WEAK void __tsan_init(void);
bool os_has_thread_sanitizer(void) { return GR_TSAN || __tsan_init != NULL; }

/* membarrier, private expedited: the commands' numbers are the kernel's. A process says once that it wants it; a forked child
 * may have to say it again. */
bool os_heavy_fence(void) {
    enum { EXPEDITED = 1 << 3, REGISTER = 1 << 4 };
    int saved = errno;
    bool done = syscall(SYS_membarrier, EXPEDITED, 0, 0) == 0 ||
                (syscall(SYS_membarrier, REGISTER, 0, 0) == 0 && syscall(SYS_membarrier, EXPEDITED, 0, 0) == 0);
    errno = saved;
    return done;
}

static void *run(void *body) {
    union {
        void *arg;
        void (*body)(void);
    } of = {.arg = body};
    of.body();
    return NULL;
}

/* An entry in libc's list of what a thread has to do if it ends here. What pthread_cleanup_push enters elsewhere, longjmp would leave
 * there; this list it shortens. */
struct listed {
    void (*routine)(void *);
    void *arg;
#ifdef __GLIBC__
    int cancel_type;
#endif
    struct listed *next;
};
_Static_assert(sizeof(struct listed) <= sizeof(struct os_stretch), "an entry is kept in a stretch");
void list_push(struct listed *l, void (*routine)(void *), void *arg) GR_ASM_NAME("_pthread_cleanup_push");
void list_pop(struct listed *l, int run) GR_ASM_NAME("_pthread_cleanup_pop");

/* By it a stretch is known; there is nothing to do. */
static void stretch_left(void *arg) { (void)arg; }

bool os_stretch_begin(struct os_stretch *s) {
    struct listed *l = (struct listed *)s;
    list_push(l, stretch_left, NULL);
    for (const struct listed *outer = l->next; outer; outer = outer->next)
        if (outer->routine == stretch_left)
            return false;
    return true;
}

void os_stretch_end(struct os_stretch *s) { list_pop((struct listed *)s, 0); }

GR_COLD bool os_start_thread(void (*body)(void), uint64_t *started_thread) {
    enum { STACK_BYTES = 64 * 1024 };
    union {
        void (*body)(void);
        void *arg;
    } of = {.body = body};
    int saved = errno;
    struct os_stretch stretch;
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    long least = sysconf(_SC_THREAD_STACK_MIN);
    sigfillset(&all);
    bool started = false;
    if (!pthread_attr_init(&attr)) {
        pthread_attr_setstacksize(&attr, STACK_BYTES + (least > 0 ? (size_t)least : 0));
        pthread_sigmask(SIG_SETMASK, &all, &before);
        os_stretch_begin(&stretch);
        started = pthread_create(&thread, &attr, run, of.arg) == 0;
        os_stretch_end(&stretch);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attr);
    }
    if (started)
        *started_thread = (uint64_t)thread;
    errno = saved;
    return started;
}

void os_join_thread(uint64_t thread) {
    int saved = errno;
    pthread_join((pthread_t)thread, NULL);
    errno = saved;
}

/* FUTEX_WAIT and FUTEX_WAKE, private; the numbers are the kernel's. */
void os_wait(const struct half *word, uint32_t seen, unsigned most_ms) {
    struct timespec most = {most_ms / 1000, (long)(most_ms % 1000) * 1000000};
    int saved = errno;
    syscall(SYS_futex, word, 0 | 128, seen, most_ms ? &most : NULL, NULL, 0);
    errno = saved;
}

void os_wake(const struct half *word) {
    int saved = errno;
    syscall(SYS_futex, word, 1 | 128, 1, NULL, NULL, 0);
    errno = saved;
}

uint32_t os_process(void) { return (uint32_t)syscall(SYS_getpid); }
uint32_t os_thread(void) { return (uint32_t)syscall(SYS_gettid); }

/* The key exists once per process, its number kept plus one: zero means "none yet". */
static struct half exit_key;

bool os_at_thread_exit(void (*hook)(void *), void *arg) {
    int saved = errno;
    uint32_t have = half_load_acquire(&exit_key); /* [acquire exit-key] */
    if (!have) {
        pthread_key_t fresh;
        if (pthread_key_create(&fresh, hook)) {
            errno = saved;
            return false;
        }
        uint32_t mine = (uint32_t)fresh + 1;
        if (half_cas_strong_acq_rel(&exit_key, &have, mine)) /* [release exit-key] [acquire exit-key] */
            have = mine;
        else
            pthread_key_delete(fresh);
    }
    bool placed = pthread_setspecific((pthread_key_t)(have - 1), arg) == 0;
    errno = saved;
    return placed;
}

void os_at_fork_child(void (*child)(void)) {
    int saved = errno;
    pthread_atfork(NULL, NULL, child);
    errno = saved;
}

#pragma weak dlsym

void *os_next_symbol(const char *name) { return dlsym ? dlsym(RTLD_NEXT, name) : NULL; }

/* ---- for reports ---- */

bool os_is_readable(const void *p) {
    uint64_t copy;
    int saved = errno;
    struct iovec to = {&copy, sizeof copy}, from = {(void *)(uintptr_t)p, sizeof copy};
    bool readable = syscall(SYS_process_vm_readv, syscall(SYS_getpid), &to, 1L, &from, 1L, 0L) == sizeof copy;
    errno = saved;
    return readable;
}

/* What glibc's _dl_find_object, since 2.35, says of an address. */
struct found_object {
    unsigned long long flags;
    void *start, *end;
    const struct link_map *map;
    void *eh_frame;
    uint64_t reserved[8];
};

/* constant after os_at_fault */
static struct {
    void (*hook)(const struct os_fault *);
    struct sigaction before;
    union {
        void *symbol;
        int (*call)(const void *, struct found_object *);
    } find_object;
} faults;

bool os_file_of(const void *at, const char **file, uintptr_t *inside) {
    struct found_object found;
    if (!faults.find_object.symbol || faults.find_object.call(at, &found))
        return false;
    *file = found.map->l_name;
    *inside = (uintptr_t)at - found.map->l_addr;
    return true;
}

static struct os_fault fault_of(const siginfo_t *info, const void *context) {
    const mcontext_t *m = &((const ucontext_t *)context)->uc_mcontext;
    struct os_fault f = {.at = info->si_addr, .verb = "access"};
#if defined(__x86_64__)
    f.verb = m->gregs[REG_ERR] & 2 ? "write" : "read";
    f.code = (const void *)m->gregs[REG_RIP];
    f.frame = (const void *)m->gregs[REG_RBP];
#elif defined(__aarch64__)
    f.code = (const void *)m->pc;
    f.frame = (const void *)m->regs[29];
#else
    (void)m;
#endif
    return f;
}

/* Without a handler before us the access is made again, without one at all: the core has it as it was. What was sent by kill is
 * sent again. */
GR_COLD static void on_fault(int number, siginfo_t *info, void *context) {
    int saved = errno;
    bool sent = info->si_code <= 0;
    if (!sent) {
        struct os_fault f = fault_of(info, context);
        faults.hook(&f);
    }
    if (faults.before.sa_flags & SA_SIGINFO) {
        faults.before.sa_sigaction(number, info, context);
    } else if (faults.before.sa_handler != SIG_DFL && faults.before.sa_handler != SIG_IGN) {
        faults.before.sa_handler(number);
    } else if (!sent || faults.before.sa_handler == SIG_DFL) {
        sigaction(number, &faults.before, NULL);
        if (sent)
            syscall(SYS_tgkill, syscall(SYS_getpid), syscall(SYS_gettid), number);
    }
    errno = saved;
}

GR_COLD void os_at_fault(void (*hook)(const struct os_fault *)) {
    int saved = errno;
    faults.hook = hook;
    faults.find_object.symbol = os_next_symbol("_dl_find_object");
    if (sigaction(SIGSEGV, NULL, &faults.before) == 0) {
        struct sigaction ours = {.sa_mask = faults.before.sa_mask};
        ours.sa_sigaction = on_fault;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | (faults.before.sa_flags & (SA_NODEFER | SA_RESTART));
        sigaction(SIGSEGV, &ours, NULL);
    }
    errno = saved;
}

void os_write(int fd, const char *text, size_t bytes) {
    int saved = errno;
    while (bytes) {
        long done = syscall(SYS_write, fd, text, bytes);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            break;
        text += done;
        bytes -= (size_t)done;
    }
    errno = saved;
}

GR_COLD bool os_read_file(const char *path, char *text, size_t size) {
    int saved = errno;
    size_t used = 0;
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0), got = -1;
    while (fd >= 0 && used + 1 < size) {
        got = syscall(SYS_read, fd, text + used, size - 1 - used);
        if (got > 0)
            used += (size_t)got;
        else if (got == 0 || errno != EINTR)
            break;
    }
    if (fd >= 0)
        syscall(SYS_close, fd);
    text[used] = 0;
    errno = saved;
    return fd >= 0 && got >= 0;
}
