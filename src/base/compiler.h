/* base/compiler.h -- the only place that names a compiler.
 *
 * PURPOSE     Attributes and builtins under names of our own, for gcc and clang.
 */
#ifndef BASE_COMPILER_H
#define BASE_COMPILER_H

#if defined(__SANITIZE_THREAD__)
#define GR_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GR_TSAN 1
#endif
#endif
#ifndef GR_TSAN
#define GR_TSAN 0
#endif

#define GR_LIKELY(x)   __builtin_expect(!!(x), 1)
#define GR_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define GR_INLINE    static inline __attribute__((always_inline))
#define GR_NOINLINE  __attribute__((noinline))
#define GR_COLD      __attribute__((noinline, cold))
#define GR_UNCHECKED __attribute__((noinline, no_sanitize_address, no_sanitize_thread))
#define GR_NORETURN  __attribute__((noreturn))
#define GR_WEAK      __attribute__((weak))
/* A declaration without it is taken for another library's: the address comes from a table. */
#define GR_HIDDEN         __attribute__((visibility("hidden")))
#define GR_EXPORT         __attribute__((visibility("default")))
#define GR_ASM_NAME(name) __asm__(name)
#define GR_ALIAS(of)      __attribute__((alias(#of), visibility("default")))
#define GR_LINE           __attribute__((aligned(64)))
/* An array of zeros of which little is touched in most processes: apart from what is touched always (`tools/granary.ld`). */
#define GR_SPARSE __attribute__((section(".bss.sparse")))
#define GR_PAGE   __attribute__((aligned(4096)))
#define GR_CTOR   __attribute__((constructor(101)))

/* The loader gives initial-exec variables a fixed offset from the thread pointer: one load, never a call. */
#define GR_TLS _Thread_local __attribute__((tls_model("initial-exec")))

/* In a function that is between the program and a trace of its calls: it keeps a frame pointer, as if all were compiled so. */
#define GR_KEEP_FRAME() __asm__ volatile("" : : "r"(__builtin_frame_address(0)))

#define GR_PREFETCH(p) __builtin_prefetch((p), 1, 3)

/* Writes back what is there: the page comes for writing, whatever is read of it next. */
#if defined(__x86_64__)
#define GR_TOUCH(p) __asm__ volatile("orb $0, %0" : "+m"(*(char *)(p)) : : "cc")
#else
#define GR_TOUCH(p) ((void)(*(volatile char *)(p) = *(volatile char *)(p)))
#endif

/* v is the same, and the compiler does not know it. */
#define GR_OPAQUE(v) __asm__("" : "+r"(v))

/* A function with the widest vectors that the processor may have; it is for callers who asked whether it has them. To ask is dear where
 * a hypervisor answers, and the compiler's builtin would have each process ask at its start. */
#if defined(__x86_64__)
#define GR_WIDE_VECTORS __attribute__((target("avx2")))
GR_INLINE int gr_has_wide_vectors(void) {
    enum { OSXSAVE_AVX = 1 << 27 | 1 << 28, SAVES_YMM = 6, AVX2 = 1 << 5 };
    unsigned most = 0, b, c = 0, d, saved;
    __asm__("cpuid" : "+a"(most), "=b"(b), "+c"(c), "=d"(d));
    unsigned a = 1;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (most < 7 || (c & OSXSAVE_AVX) != OSXSAVE_AVX)
        return 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
    a = 7, c = 0;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (saved & SAVES_YMM) == SAVES_YMM && (b & AVX2) != 0;
}
#else
#define GR_WIDE_VECTORS
GR_INLINE int gr_has_wide_vectors(void) { return 0; }
#endif

/* What the compiler need not test. */
#define GR_ASSUME(x) ((x) ? (void)0 : __builtin_unreachable())

/* v is where a function's result is, which spares the copy. */
#if defined(__x86_64__)
#define GR_RESULT(v) __asm__("" : "+a"(v))
#else
#define GR_RESULT(v) ((void)0)
#endif

/* Orders plain accesses against a signal handler of the same thread; no instruction. */
#define GR_SIGNAL_FENCE() __atomic_signal_fence(__ATOMIC_SEQ_CST)

/* The light side of an asymmetric fence: nothing but a bound for the compiler. Against a thread that calls os_heavy_fence it is a
 * full fence: what this thread did before it is seen after that, or what that thread did before is seen after this. */
#ifndef GR_LIGHT_FENCE
#define GR_LIGHT_FENCE() GR_SIGNAL_FENCE()
#endif

/* Publishes *at = v after all that was stored before it, as a forked child sees it: stores of a running thread reach the copy
 * in program order on x86, and by a release store elsewhere. */
#if defined(__x86_64__)
#if !GR_TSAN
#define GR_COMMIT(at, v) (GR_SIGNAL_FENCE(), (void)(*(at) = (v)))
#endif
#endif
#ifndef GR_COMMIT
#define GR_COMMIT(at, v) __atomic_store_n((at), (v), __ATOMIC_RELEASE)
#endif

/* *at += bytes, for a pointer that this thread alone writes, published as by GR_COMMIT; one instruction where there is one. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !GR_TSAN
#define GR_COMMIT_MOVE(at, bytes) __asm__ volatile("addq %1, %0" : "+m"(*(at)) : "er"((long)(bytes)) : "memory", "cc")
#else
#define GR_COMMIT_MOVE(at, bytes) GR_COMMIT(at, (void *)((char *)*(at) + (bytes)))
#endif

#endif
