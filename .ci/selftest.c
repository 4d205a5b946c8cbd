/* selftest.c -- a toy library with a hit path, for .ci/selftest: good as it stands, wrong in one way with
 * -DWRONG_... */
#include <stddef.h>

static void *slots[64];
static void **top = slots + 32; /* a magazine that never runs dry here */

#ifdef WRONG_TLS
_Thread_local char wide[4096];
#endif
#ifdef WRONG_EXPORT
void gr_leaked(void) {}
#endif

__attribute__((noinline)) static void *leave(void *p) {
    __asm__ volatile("" : "+r"(p));
    return p;
}

void *malloc(size_t size) {
    static char memory[1 << 21];
    static size_t next;
    void *p = *top;
#ifdef WRONG_PUSH
    __asm__ volatile("sub $128, %%rsp; push %%rax; add $136, %%rsp" ::: "memory", "cc");
#endif
#ifdef WRONG_LOCK
    static int lock;
    __asm__ volatile("lock incl %0" : "+m"(lock));
#endif
#ifdef WRONG_XCHG
    static int lock, taken = 1;
    __asm__ volatile("xchg %0, %1" : "+r"(taken), "+m"(lock));
#endif
#ifdef WRONG_LONG
    __asm__ volatile(
        "nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop");
#endif
    if (p) {
        *top-- = NULL;
#ifdef WRONG_CALL
        p = (char *)leave((char *)p - 1) + 1;
#endif
        return p;
    }
    size = (size + 15) & ~(size_t)15;
    p = memory + next;
    next += size;
    return leave(p);
}

void free(void *p) { *++top = p; }
void free_sized(void *p, size_t size) {
    (void)size;
    *++top = p;
}
void *_Znwm(size_t size) { return malloc(size); }
void *_Znam(size_t size) { return malloc(size); }
void _ZdlPv(void *p) { *++top = p; }
void _ZdaPvm(void *p, size_t size) {
    (void)size;
    *++top = p;
}
