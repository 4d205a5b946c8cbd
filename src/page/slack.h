/* page/slack.h -- what the hardened build keeps between a block's last byte and what follows it.
 *
 * PURPOSE     SLACK_MARK, then zero. A write past the end changes it, a single NUL too; free looks. Of a small block's slack it looks
 *             at the first SLACK_LOOK bytes, so that the price does not grow with the block: a write that runs on from a block's
 *             last byte meets these.
 */
#ifndef PAGE_SLACK_H
#define PAGE_SLACK_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/limits.h"

enum { SLACK_LOOK = 64 };

/* Is the slack before the word boundary `end` as malloc left it, in its first `look` bytes? */
GR_INLINE bool slack_is_whole(const void *end, uint64_t slack, uint64_t look) {
    if (!slack)
        return true;
    /* the slack's first byte is the lowest of the last (slack - 1) % 8 + 1 of its word */
    const uint64_t *word = end, *first = word - (slack + 7) / 8;
    const uint64_t *to = slack > look ? first + look / 8 : word;
    uint64_t more = 0;
    for (word = first + 1; GR_UNLIKELY(word < to); word++)
        more |= *word;
    return !more && *first >> (0 - 8 * slack) % 64 == SLACK_MARK;
}

#endif
