/* base/atomic.h, the counting library's -- found before src/base/atomic.h on its include path.
 *
 * PURPOSE     Each verb of the real header runs, and is counted: where in the code it stands, the cache line of its word, and
 *             whether that line had to come from another thread. The shipped library knows nothing of it.
 */
#ifndef COUNT_BASE_ATOMIC_H
#define COUNT_BASE_ATOMIC_H

#include_next "base/atomic.h"

#include "count/count.h"

#pragma GCC diagnostic ignored "-Wshadow" /* a verb's argument may be another verb */

/* A verb in parentheses is the real one: a macro's name followed by none is not expanded. */
#define COUNT_LOAD(verb, w)                                                                                            \
    ({                                                                                                                 \
        COUNT_SITE(w);                                                                                                 \
        __typeof__(w) at_ = (w);                                                                                       \
        gr_count_load(&site_, at_);                                                                                    \
        (verb)(at_);                                                                                                   \
    })
#define COUNT_STORE(verb, w, v)                                                                                        \
    ({                                                                                                                 \
        COUNT_SITE(w);                                                                                                 \
        __typeof__(w) at_ = (w);                                                                                       \
        gr_count_store(&site_, at_, 1);                                                                                \
        (verb)(at_, v);                                                                                                \
    })
#define COUNT_CHANGE(verb, w, v)                                                                                       \
    ({                                                                                                                 \
        COUNT_SITE(w);                                                                                                 \
        __typeof__(w) at_ = (w);                                                                                       \
        __auto_type was_ = (verb)(at_, v);                                                                             \
        gr_count_change(&site_, at_, true);                                                                            \
        was_;                                                                                                          \
    })
#define COUNT_CAS(verb, w, seen, v)                                                                                    \
    ({                                                                                                                 \
        COUNT_SITE(w);                                                                                                 \
        __typeof__(w) at_ = (w);                                                                                       \
        bool done_ = (verb)(at_, seen, v);                                                                             \
        gr_count_change(&site_, at_, done_);                                                                           \
        done_;                                                                                                         \
    })

#define byte_load_relaxed(w)                COUNT_LOAD(byte_load_relaxed, w)
#define byte_load_acquire(w)                COUNT_LOAD(byte_load_acquire, w)
#define byte_store_relaxed(w, v)            COUNT_STORE(byte_store_relaxed, w, v)
#define byte_store_release(w, v)            COUNT_STORE(byte_store_release, w, v)
#define byte_swap_acquire(w, v)             COUNT_CHANGE(byte_swap_acquire, w, v)
#define byte_cas_release(w, seen, v)        COUNT_CAS(byte_cas_release, w, seen, v)
#define byte_cas_acquire(w, seen, v)        COUNT_CAS(byte_cas_acquire, w, seen, v)
#define byte_cas_strong_relaxed(w, seen, v) COUNT_CAS(byte_cas_strong_relaxed, w, seen, v)
#define byte_cas_strong_acq_rel(w, seen, v) COUNT_CAS(byte_cas_strong_acq_rel, w, seen, v)
#define byte_peek(w)                        COUNT_LOAD(byte_peek, w)

#define half_load_relaxed(w)                COUNT_LOAD(half_load_relaxed, w)
#define half_load_acquire(w)                COUNT_LOAD(half_load_acquire, w)
#define half_store_relaxed(w, v)            COUNT_STORE(half_store_relaxed, w, v)
#define half_store_release(w, v)            COUNT_STORE(half_store_release, w, v)
#define half_swap_acquire(w, v)             COUNT_CHANGE(half_swap_acquire, w, v)
#define half_cas_release(w, seen, v)        COUNT_CAS(half_cas_release, w, seen, v)
#define half_cas_acquire(w, seen, v)        COUNT_CAS(half_cas_acquire, w, seen, v)
#define half_cas_strong_relaxed(w, seen, v) COUNT_CAS(half_cas_strong_relaxed, w, seen, v)
#define half_cas_strong_acq_rel(w, seen, v) COUNT_CAS(half_cas_strong_acq_rel, w, seen, v)
#define half_add_relaxed(w, v)              COUNT_CHANGE(half_add_relaxed, w, v)
#define half_add_acq_rel(w, v)              COUNT_CHANGE(half_add_acq_rel, w, v)
#define half_or_relaxed(w, v)               COUNT_CHANGE(half_or_relaxed, w, v)
#define half_or_acquire(w, v)               COUNT_CHANGE(half_or_acquire, w, v)
#define half_or_release(w, v)               COUNT_CHANGE(half_or_release, w, v)
#define half_and_relaxed(w, v)              COUNT_CHANGE(half_and_relaxed, w, v)
#define half_and_acquire(w, v)              COUNT_CHANGE(half_and_acquire, w, v)
#define half_and_release(w, v)              COUNT_CHANGE(half_and_release, w, v)

#define word_load_relaxed(w)                COUNT_LOAD(word_load_relaxed, w)
#define word_load_acquire(w)                COUNT_LOAD(word_load_acquire, w)
#define word_store_relaxed(w, v)            COUNT_STORE(word_store_relaxed, w, v)
#define word_store_release(w, v)            COUNT_STORE(word_store_release, w, v)
#define word_swap_acquire(w, v)             COUNT_CHANGE(word_swap_acquire, w, v)
#define word_cas_release(w, seen, v)        COUNT_CAS(word_cas_release, w, seen, v)
#define word_cas_acquire(w, seen, v)        COUNT_CAS(word_cas_acquire, w, seen, v)
#define word_cas_strong_relaxed(w, seen, v) COUNT_CAS(word_cas_strong_relaxed, w, seen, v)
#define word_cas_strong_acq_rel(w, seen, v) COUNT_CAS(word_cas_strong_acq_rel, w, seen, v)
#define word_add_relaxed(w, v)              COUNT_CHANGE(word_add_relaxed, w, v)
#define word_add_acq_rel(w, v)              COUNT_CHANGE(word_add_acq_rel, w, v)
#define word_or_relaxed(w, v)               COUNT_CHANGE(word_or_relaxed, w, v)
#define word_or_acquire(w, v)               COUNT_CHANGE(word_or_acquire, w, v)
#define word_or_release(w, v)               COUNT_CHANGE(word_or_release, w, v)
#define word_and_relaxed(w, v)              COUNT_CHANGE(word_and_relaxed, w, v)
#define word_and_acquire(w, v)              COUNT_CHANGE(word_and_acquire, w, v)
#define word_and_release(w, v)              COUNT_CHANGE(word_and_release, w, v)
#define word_peek(w)                        COUNT_LOAD(word_peek, w)

#define ref_load_relaxed(w)                COUNT_LOAD(ref_load_relaxed, w)
#define ref_load_acquire(w)                COUNT_LOAD(ref_load_acquire, w)
#define ref_store_relaxed(w, v)            COUNT_STORE(ref_store_relaxed, w, v)
#define ref_store_release(w, v)            COUNT_STORE(ref_store_release, w, v)
#define ref_swap_acquire(w, v)             COUNT_CHANGE(ref_swap_acquire, w, v)
#define ref_cas_release(w, seen, v)        COUNT_CAS(ref_cas_release, w, seen, v)
#define ref_cas_acquire(w, seen, v)        COUNT_CAS(ref_cas_acquire, w, seen, v)
#define ref_cas_strong_relaxed(w, seen, v) COUNT_CAS(ref_cas_strong_relaxed, w, seen, v)
#define ref_cas_strong_acq_rel(w, seen, v) COUNT_CAS(ref_cas_strong_acq_rel, w, seen, v)

#define bytes_fill_relaxed(at, n, v)                                                                                   \
    do {                                                                                                               \
        COUNT_SITE(at);                                                                                                \
        gr_count_store(&site_, at, n);                                                                                 \
        (bytes_fill_relaxed)(at, n, v);                                                                                \
    } while (0)

#endif
