/* oom_fault.h -- makes the N-th system call of a kind fail, for tests linked with wrap=mmap,munmap,madvise,mremap,mprotect.
 *
 * PURPOSE     A system that says no at a chosen moment. The library calls these five by their libc names, so the
 *             linker's --wrap catches them in the library and in the test; libc's own calls (thread stacks) go through.
 *
 * INVARIANTS  Nothing fails unless fault_arm() was called; fault_disarm() ends it. Counters are atomic: threads
 *             may allocate while a fault is armed. fault_arm() and fault_disarm() are for one thread.
 */
#ifndef STRESS_OOM_FAULT_H
#define STRESS_OOM_FAULT_H

#include "test.h"

#include <stdatomic.h>

enum fault_kind {
    FAULT_MMAP = 1,
    FAULT_MUNMAP = 2,
    FAULT_MADVISE = 4,
    FAULT_MREMAP = 8,
    FAULT_MPROTECT = 16,
    FAULT_ANY = 31
};

static struct {
    atomic_uint kinds; /* a set; 0: none fails */
    atomic_int error;
    atomic_bool from_then_on; /* false: one call fails; true: that one and all later ones */
    atomic_long calls_to_go;
    atomic_long fired;
} fault;

/* Calls that this thread made, armed or not. */
static _Thread_local unsigned long fault_seen_here;

/* Lets the nth (1, 2, ...) call of these kinds fail with `error`. */
static inline void fault_arm(unsigned kinds, long nth, bool from_then_on, int error) {
    atomic_store(&fault.kinds, 0);
    atomic_store(&fault.error, error);
    atomic_store(&fault.from_then_on, from_then_on);
    atomic_store(&fault.calls_to_go, nth);
    atomic_store(&fault.fired, 0);
    atomic_store(&fault.kinds, kinds);
}

/* Returns how many calls were made to fail. */
static inline long fault_disarm(void) {
    atomic_store(&fault.kinds, 0);
    return atomic_load(&fault.fired);
}

static inline bool fault_hits(enum fault_kind kind) {
    fault_seen_here++;
    if (!(atomic_load(&fault.kinds) & kind)) {
        return false;
    }
    long left = atomic_fetch_sub(&fault.calls_to_go, 1);
    if (left > 1 || (left < 1 && !atomic_load(&fault.from_then_on))) {
        return false;
    }
    atomic_fetch_add(&fault.fired, 1);
    errno = atomic_load(&fault.error);
    return true;
}

void *__real_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *addr, size_t size);
int __wrap_munmap(void *addr, size_t size);
int __real_madvise(void *addr, size_t size, int advice);
int __wrap_madvise(void *addr, size_t size, int advice);
int __real_mprotect(void *addr, size_t size, int prot);
int __wrap_mprotect(void *addr, size_t size, int prot);
void *__real_mremap(void *addr, size_t size, size_t new_size, int flags, ...);
void *__wrap_mremap(void *addr, size_t size, size_t new_size, int flags, ...);

void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset) {
    return fault_hits(FAULT_MMAP) ? MAP_FAILED : __real_mmap(addr, size, prot, flags, fd, offset);
}

int __wrap_munmap(void *addr, size_t size) { return fault_hits(FAULT_MUNMAP) ? -1 : __real_munmap(addr, size); }

int __wrap_madvise(void *addr, size_t size, int advice) {
    return fault_hits(FAULT_MADVISE) ? -1 : __real_madvise(addr, size, advice);
}

int __wrap_mprotect(void *addr, size_t size, int prot) {
    return fault_hits(FAULT_MPROTECT) ? -1 : __real_mprotect(addr, size, prot);
}

void *__wrap_mremap(void *addr, size_t size, size_t new_size, int flags, ...) {
    void *target = NULL;
    if (flags & MREMAP_FIXED) {
        va_list rest;
        va_start(rest, flags);
        target = va_arg(rest, void *);
        va_end(rest);
    }
    return fault_hits(FAULT_MREMAP) ? MAP_FAILED : __real_mremap(addr, size, new_size, flags, target);
}

#endif
