/* base/check.h -- our own mistakes and the system's surprises.
 *
 * PURPOSE     CHECK holds in every build: what the system told us cannot be. ASSERT and INVARIANT hold in debug
 *             builds and are compiled in all of them, so that they cannot rot.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include "base/compiler.h"

#ifndef GRANARY_DEBUG
#define GRANARY_DEBUG 0
#endif

GR_COLD GR_NORETURN void gr_check_failed(const char *what, const char *file, int line);

#define CHECK(cond)  ((void)(GR_LIKELY(cond) || (gr_check_failed(#cond, __FILE__, __LINE__), 0)))
#define ASSERT(cond) ((void)(!GRANARY_DEBUG || GR_LIKELY(cond) || (gr_check_failed(#cond, __FILE__, __LINE__), 0)))
#define INVARIANT(name, cond)                                                                                          \
    ((void)(!GRANARY_DEBUG || GR_LIKELY(cond) || (gr_check_failed(#name ": " #cond, __FILE__, __LINE__), 0)))

#endif
