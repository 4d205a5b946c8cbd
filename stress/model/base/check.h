/* base/check.h, the models' -- ASSERT and INVARIANT hold in a model too, without what a debug build does beside them: its
 * checks of whole records read shared words, and so would put in edges that the shipped code does not have.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include "base/compiler.h"

#define GRANARY_DEBUG 0

GR_COLD GR_NORETURN void gr_check_failed(const char *what, const char *file, int line);

#define CHECK(cond)           ((cond) ? (void)0 : gr_check_failed(#cond, __FILE__, __LINE__))
#define ASSERT(cond)          CHECK(cond)
#define INVARIANT(name, cond) CHECK(cond)

#endif
