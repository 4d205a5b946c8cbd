/* base/atomic.h, the models' -- found before src/base/atomic.h on the include path of a model.
 *
 * PURPOSE     The same words and the same verbs as src/base/atomic.h, over Relacy's atomics, so that the shipped headers and
 *             files compile unchanged and run under its scheduler, weak orders included. Each verb knows the function and line that
 *             called it, its site, where a mutant may weaken or break it: `model/seam.h`.
 */
#ifndef BASE_ATOMIC_H
#define BASE_ATOMIC_H

#include "model/seam.h"

/* An asymmetric pair of fences guarantees what two fences of sequential consistency do (P1202). */
#define GR_LIGHT_FENCE() seam::fence("light_fence", __builtin_FUNCTION(), __builtin_FILE(), __builtin_LINE())
#include "base/compiler.h"

#define GR_POINT() ((void)0)

/* The site: given by default, at the call. */
#define SEAM_HERE                                                                                                      \
    const char *function = __builtin_FUNCTION(), const char *file = __builtin_FILE(), unsigned line = __builtin_LINE()
#define SEAM_SITE(verb) verb, function, file, line

#define GR_ATOMIC(noun, type)                                                                                          \
    struct noun {                                                                                                      \
        type value;                                                                                                    \
    };                                                                                                                 \
    inline type noun##_load_relaxed(const struct noun *w, SEAM_HERE) {                                                 \
        return seam::load(&w->value, rl::mo_relaxed, SEAM_SITE(#noun "_load_relaxed"));                                \
    }                                                                                                                  \
    inline type noun##_load_acquire(const struct noun *w, SEAM_HERE) {                                                 \
        return seam::load(&w->value, rl::mo_acquire, SEAM_SITE(#noun "_load_acquire"));                                \
    }                                                                                                                  \
    inline void noun##_store_relaxed(struct noun *w, type v, SEAM_HERE) {                                              \
        seam::store(&w->value, v, rl::mo_relaxed, SEAM_SITE(#noun "_store_relaxed"));                                  \
    }                                                                                                                  \
    inline void noun##_store_release(struct noun *w, type v, SEAM_HERE) {                                              \
        seam::store(&w->value, v, rl::mo_release, SEAM_SITE(#noun "_store_release"));                                  \
    }                                                                                                                  \
    inline type noun##_swap_relaxed(struct noun *w, type v, SEAM_HERE) {                                               \
        return seam::change(seam::SWAP, &w->value, v, rl::mo_relaxed, SEAM_SITE(#noun "_swap_relaxed"));               \
    }                                                                                                                  \
    inline type noun##_swap_acquire(struct noun *w, type v, SEAM_HERE) {                                               \
        return seam::change(seam::SWAP, &w->value, v, rl::mo_acquire, SEAM_SITE(#noun "_swap_acquire"));               \
    }                                                                                                                  \
    inline type noun##_swap_acq_rel(struct noun *w, type v, SEAM_HERE) {                                               \
        return seam::change(seam::SWAP, &w->value, v, rl::mo_acq_rel, SEAM_SITE(#noun "_swap_acq_rel"));               \
    }                                                                                                                  \
    inline bool noun##_cas_release(struct noun *w, type *seen, type v, SEAM_HERE) {                                    \
        return seam::cas(true, &w->value, seen, v, rl::mo_release, SEAM_SITE(#noun "_cas_release"));                   \
    }                                                                                                                  \
    inline bool noun##_cas_acquire(struct noun *w, type *seen, type v, SEAM_HERE) {                                    \
        return seam::cas(true, &w->value, seen, v, rl::mo_acquire, SEAM_SITE(#noun "_cas_acquire"));                   \
    }                                                                                                                  \
    inline bool noun##_cas_strong_relaxed(struct noun *w, type *seen, type v, SEAM_HERE) {                             \
        return seam::cas(false, &w->value, seen, v, rl::mo_relaxed, SEAM_SITE(#noun "_cas_strong_relaxed"));           \
    }                                                                                                                  \
    inline bool noun##_cas_strong_acq_rel(struct noun *w, type *seen, type v, SEAM_HERE) {                             \
        return seam::cas(false, &w->value, seen, v, rl::mo_acq_rel, SEAM_SITE(#noun "_cas_strong_acq_rel"));           \
    }

#define SEAM_CHANGE(noun, type, verb, how, order)                                                                      \
    inline type noun##_##verb(struct noun *w, type v, SEAM_HERE) {                                                     \
        return seam::change(seam::how, &w->value, v, rl::order, SEAM_SITE(#noun "_" #verb));                           \
    }
#define GR_ATOMIC_NUMBER(noun, type)                                                                                   \
    SEAM_CHANGE(noun, type, add_relaxed, ADD, mo_relaxed)                                                              \
    SEAM_CHANGE(noun, type, add_acq_rel, ADD, mo_acq_rel)                                                              \
    SEAM_CHANGE(noun, type, or_relaxed, OR, mo_relaxed)                                                                \
    SEAM_CHANGE(noun, type, or_acquire, OR, mo_acquire)                                                                \
    SEAM_CHANGE(noun, type, or_release, OR, mo_release)                                                                \
    SEAM_CHANGE(noun, type, and_relaxed, AND, mo_relaxed)                                                              \
    SEAM_CHANGE(noun, type, and_acquire, AND, mo_acquire)                                                              \
    SEAM_CHANGE(noun, type, and_release, AND, mo_release)

GR_ATOMIC(byte, uint8_t)
GR_ATOMIC(half, uint32_t)
GR_ATOMIC_NUMBER(half, uint32_t)
GR_ATOMIC(word, uint64_t)
GR_ATOMIC_NUMBER(word, uint64_t)
GR_ATOMIC(ref, void *)

inline void bytes_fill_relaxed(struct byte *at, size_t n, uint8_t v, SEAM_HERE) {
    for (size_t i = 0; i < n; i++)
        seam::store(&at[i].value, v, rl::mo_relaxed, SEAM_SITE("bytes_fill_relaxed"));
}
/* The rounds of a magazine and its top. What its thread does by plain accesses is relaxed here; it alone moves the top. */
inline void *slot_load_owner(void *const *at, SEAM_HERE) {
    return seam::load(at, rl::mo_relaxed, SEAM_SITE("slot_load_owner"));
}
inline void slot_store_owner(void **at, void *v, SEAM_HERE) {
    seam::store(at, v, rl::mo_relaxed, SEAM_SITE("slot_store_owner"));
}
inline void *slot_load_relaxed(void *const *at, SEAM_HERE) {
    return seam::load(at, rl::mo_relaxed, SEAM_SITE("slot_load_relaxed"));
}
inline void *slot_swap_relaxed(void **at, void *v, SEAM_HERE) {
    return seam::change(seam::SWAP, at, v, rl::mo_relaxed, SEAM_SITE("slot_swap_relaxed"));
}
inline bool slot_cas_strong_relaxed(void **at, void **seen, void *v, SEAM_HERE) {
    return seam::cas(false, at, seen, v, rl::mo_relaxed, SEAM_SITE("slot_cas_strong_relaxed"));
}
inline void **top_load_owner(void **const *at, SEAM_HERE) {
    return seam::load(at, rl::mo_relaxed, SEAM_SITE("top_load_owner"));
}
inline void top_move_release(void ***at, int slots, SEAM_HERE) {
    void **to = seam::own_value(at) + slots;
    seam::store(at, to, rl::mo_release, SEAM_SITE("top_move_release"));
}
inline void **top_load_relaxed(void **const *at, SEAM_HERE) {
    return seam::load(at, rl::mo_relaxed, SEAM_SITE("top_load_relaxed"));
}
inline void **top_load_acquire(void **const *at, SEAM_HERE) {
    return seam::load(at, rl::mo_acquire, SEAM_SITE("top_load_acquire"));
}

inline uint8_t byte_peek(const struct byte *w, SEAM_HERE) {
    return seam::load(&w->value, rl::mo_relaxed, SEAM_SITE("byte_peek"));
}
inline uint64_t word_peek(const struct word *w, SEAM_HERE) {
    return seam::load(&w->value, rl::mo_relaxed, SEAM_SITE("word_peek"));
}

#endif
