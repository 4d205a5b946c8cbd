/* page/slack.h -- what the hardened build keeps between a block's last byte and what follows it.
 *
 * PURPOSE     SLACK_MARK, then zero. A write past the end changes it, a single NUL too; free looks.
 */
#ifndef PAGE_SLACK_H
#define PAGE_SLACK_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/limits.h"

/* Is the slack before the word boundary `end` as malloc left it? */
GR_INLINE bool slack_is_whole(const void *end, uint64_t slack) {
    const uint64_t *word = end;
    if (!slack)
        return true;
    for (; slack > 8; slack -= 8)
        if (*--word)
            return false;
    /* the slack's first byte is the lowest of the word's last `slack` */
    return *--word >> (64 - 8 * slack) == SLACK_MARK;
}

#endif
