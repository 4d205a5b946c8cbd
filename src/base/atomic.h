/* base/atomic.h -- the only door to <stdatomic.h>.
 *
 * PURPOSE     Each shared word is a struct, so that a plain access does not compile, and every access names its order.
 *             byte 8 bits, half 32, word 64, ref a pointer. No stand-alone fence: the sanitizer does not follow them.
 *             A new ordering is a new line here and a new edge in a protocol's header.
 *
 * GRANARY_POINTS=1 (a test build) calls gr_test_point() before each step, where a test parks or forks the thread.
 */
#ifndef BASE_ATOMIC_H
#define BASE_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#if defined(GRANARY_POINTS) && GRANARY_POINTS
extern void gr_test_point(void);
#define GR_POINT() gr_test_point()
#else
#define GR_POINT() ((void)0)
#endif

/* What every shared word offers. */
#define GR_ATOMIC(noun, type)                                                                                          \
    struct noun {                                                                                                      \
        _Atomic(type) value;                                                                                           \
    };                                                                                                                 \
    GR_INLINE type noun##_load_relaxed(const struct noun *w) {                                                         \
        GR_POINT();                                                                                                    \
        return atomic_load_explicit(&w->value, memory_order_relaxed);                                                  \
    }                                                                                                                  \
    GR_INLINE type noun##_load_acquire(const struct noun *w) {                                                         \
        GR_POINT();                                                                                                    \
        return atomic_load_explicit(&w->value, memory_order_acquire);                                                  \
    }                                                                                                                  \
    GR_INLINE void noun##_store_relaxed(struct noun *w, type v) {                                                      \
        GR_POINT();                                                                                                    \
        atomic_store_explicit(&w->value, v, memory_order_relaxed);                                                     \
    }                                                                                                                  \
    GR_INLINE void noun##_store_release(struct noun *w, type v) {                                                      \
        GR_POINT();                                                                                                    \
        atomic_store_explicit(&w->value, v, memory_order_release);                                                     \
    }                                                                                                                  \
    GR_INLINE type noun##_swap_relaxed(struct noun *w, type v) {                                                       \
        GR_POINT();                                                                                                    \
        return atomic_exchange_explicit(&w->value, v, memory_order_relaxed);                                           \
    }                                                                                                                  \
    GR_INLINE type noun##_swap_acquire(struct noun *w, type v) {                                                       \
        GR_POINT();                                                                                                    \
        return atomic_exchange_explicit(&w->value, v, memory_order_acquire);                                           \
    }                                                                                                                  \
    GR_INLINE type noun##_swap_acq_rel(struct noun *w, type v) {                                                       \
        GR_POINT();                                                                                                    \
        return atomic_exchange_explicit(&w->value, v, memory_order_acq_rel);                                           \
    }                                                                                                                  \
    GR_INLINE bool noun##_cas_release(struct noun *w, type *seen, type v) {                                            \
        GR_POINT();                                                                                                    \
        return atomic_compare_exchange_weak_explicit(&w->value, seen, v, memory_order_release, memory_order_relaxed);  \
    }                                                                                                                  \
    GR_INLINE bool noun##_cas_acquire(struct noun *w, type *seen, type v) {                                            \
        GR_POINT();                                                                                                    \
        return atomic_compare_exchange_weak_explicit(&w->value, seen, v, memory_order_acquire, memory_order_acquire);  \
    }                                                                                                                  \
    GR_INLINE bool noun##_cas_strong_relaxed(struct noun *w, type *seen, type v) {                                     \
        GR_POINT();                                                                                                    \
        return atomic_compare_exchange_strong_explicit(&w->value, seen, v, memory_order_relaxed,                       \
                                                       memory_order_relaxed);                                          \
    }                                                                                                                  \
    GR_INLINE bool noun##_cas_strong_acq_rel(struct noun *w, type *seen, type v) {                                     \
        GR_POINT();                                                                                                    \
        return atomic_compare_exchange_strong_explicit(&w->value, seen, v, memory_order_acq_rel,                       \
                                                       memory_order_acquire);                                          \
    }

/* What words of numbers and bits offer beside. Each returns the value before. */
#define GR_ATOMIC_NUMBER(noun, type)                                                                                   \
    GR_INLINE type noun##_add_relaxed(struct noun *w, type v) {                                                        \
        GR_POINT();                                                                                                    \
        return atomic_fetch_add_explicit(&w->value, v, memory_order_relaxed);                                          \
    }                                                                                                                  \
    GR_INLINE type noun##_add_acq_rel(struct noun *w, type v) {                                                        \
        GR_POINT();                                                                                                    \
        return atomic_fetch_add_explicit(&w->value, v, memory_order_acq_rel);                                          \
    }                                                                                                                  \
    GR_INLINE type noun##_or_relaxed(struct noun *w, type v) {                                                         \
        GR_POINT();                                                                                                    \
        return atomic_fetch_or_explicit(&w->value, v, memory_order_relaxed);                                           \
    }                                                                                                                  \
    GR_INLINE type noun##_or_acquire(struct noun *w, type v) {                                                         \
        GR_POINT();                                                                                                    \
        return atomic_fetch_or_explicit(&w->value, v, memory_order_acquire);                                           \
    }                                                                                                                  \
    GR_INLINE type noun##_or_release(struct noun *w, type v) {                                                         \
        GR_POINT();                                                                                                    \
        return atomic_fetch_or_explicit(&w->value, v, memory_order_release);                                           \
    }                                                                                                                  \
    GR_INLINE type noun##_and_relaxed(struct noun *w, type v) {                                                        \
        GR_POINT();                                                                                                    \
        return atomic_fetch_and_explicit(&w->value, v, memory_order_relaxed);                                          \
    }                                                                                                                  \
    GR_INLINE type noun##_and_acquire(struct noun *w, type v) {                                                        \
        GR_POINT();                                                                                                    \
        return atomic_fetch_and_explicit(&w->value, v, memory_order_acquire);                                          \
    }                                                                                                                  \
    GR_INLINE type noun##_and_release(struct noun *w, type v) {                                                        \
        GR_POINT();                                                                                                    \
        return atomic_fetch_and_explicit(&w->value, v, memory_order_release);                                          \
    }

GR_ATOMIC(byte, uint8_t)
GR_ATOMIC(half, uint32_t)
GR_ATOMIC_NUMBER(half, uint32_t)
GR_ATOMIC(word, uint64_t)
GR_ATOMIC_NUMBER(word, uint64_t)
GR_ATOMIC(ref, void *)

/* at[0 .. n - 1] = v, as relaxed stores in any order. */
GR_INLINE void bytes_fill_relaxed(struct byte *at, size_t n, uint8_t v) {
#if GR_TSAN
    for (size_t i = 0; i < n; i++)
        byte_store_relaxed(&at[i], v);
#else
    GR_POINT();
    __builtin_memset(at, v, n); /* no machine tears a byte */
#endif
}

/* The rounds of a thread's magazine, and its top: the thread moves them by plain accesses, others look and may take. */
#if GR_TSAN
GR_INLINE void *slot_load_owner(void *const *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
GR_INLINE void slot_store_owner(void **at, void *v) { __atomic_store_n(at, v, __ATOMIC_RELEASE); }
#else
GR_INLINE void *slot_load_owner(void *const *at) { return *at; }
GR_INLINE void slot_store_owner(void **at, void *v) { *at = v; }
#endif
GR_INLINE void *slot_load_relaxed(void *const *at) {
    GR_POINT();
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}
GR_INLINE void *slot_swap_relaxed(void **at, void *v) {
    GR_POINT();
    return __atomic_exchange_n(at, v, __ATOMIC_RELAXED);
}
GR_INLINE bool slot_cas_strong_relaxed(void **at, void **seen, void *v) {
    GR_POINT();
    return __atomic_compare_exchange_n(at, seen, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
GR_INLINE void **top_load_owner(void **const *at) { return *at; }
GR_INLINE void top_move_release(void ***at, int slots) { GR_COMMIT_MOVE(at, slots * (int)sizeof(void *)); }
GR_INLINE void **top_load_relaxed(void **const *at) {
    GR_POINT();
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}
GR_INLINE void **top_load_acquire(void **const *at) {
    GR_POINT();
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

/* What the fast paths read that others may write: no step of a protocol, so no test point, and a plain load, which the
 * compiler can fold into the instruction that uses it. A word this narrow is read whole. */
#if GR_TSAN
GR_INLINE uint8_t byte_peek(const struct byte *w) { return atomic_load_explicit(&w->value, memory_order_relaxed); }
GR_INLINE uint64_t word_peek(const struct word *w) { return atomic_load_explicit(&w->value, memory_order_relaxed); }
#else
GR_INLINE uint8_t byte_peek(const struct byte *w) { return *(const uint8_t *)&w->value; }
GR_INLINE uint64_t word_peek(const struct word *w) { return *(const uint64_t *)&w->value; }
#endif

#endif
