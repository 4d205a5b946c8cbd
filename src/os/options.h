/* os/options.h -- what a user may set, read once before main.
 *
 * PURPOSE     Later sources win: the weak symbol `granary_conf`, then GRANARY_CONF="key:value,...", then one variable per
 *             key (GRANARY_PURGE_MS). Parsed without any libc call that may allocate. A bad key or value is reported in
 *             one line and ignored. A setuid program reads no environment.
 *
 *   key           values                 default  meaning
 *   ------------  ---------------------  -------  ---------------------------------------------------------
 *   purge_ms      0..25000, never         1000     free memory older than this goes back to the system
 *   thread_cache  bytes, K M G suffix    8M       most bytes in a thread's magazines, one a class; spares come on top
 *   total_cache   bytes, K M G suffix    64M      the same for all threads together
 *   thp           auto, never, always    auto     huge pages: where memory is seen to be used, never, from the start
 *   housekeeping  0, 1                   1        a thread of ours gives memory back in a process that is idle
 *   limit_soft    bytes, auto, never     auto     what lies idle goes back before more is taken; 15/16 of the control group's limit
 *   limit_hard    bytes, never           never    beyond so many bytes in use nothing is granted
 *   oom           null, abort            null     what a request that cannot be met comes to
 *   stats         0, 1                   0        print the statistics on stderr when the process exits
 *   guards        0..1000000000          0        one in so many blocks of up to 4 KiB stands between guard pages; 0: none
 */
#ifndef OS_OPTIONS_H
#define OS_OPTIONS_H

#include <stdint.h>

enum option {
    OPTION_PURGE_MS,
    OPTION_THREAD_CACHE,
    OPTION_TOTAL_CACHE,
    OPTION_THP,
    OPTION_HOUSEKEEPING,
    OPTION_LIMIT_SOFT,
    OPTION_LIMIT_HARD,
    OPTION_OOM,
    OPTION_STATS,
    OPTION_GUARDS,
    OPTION_COUNT
};
enum { THP_AUTO, THP_NEVER, THP_ALWAYS };
enum { OOM_NULL, OOM_ABORT };
#define OPTION_NEVER UINT64_MAX
#define OPTION_AUTO  (UINT64_MAX - 1)

uint64_t option_get(enum option which);

/* Reads all sources. Before it has run the defaults hold. */
void gr_options_read(void);

/* The parser alone, for tests: one list of "key:value,...", named `source` in messages. */
void gr_options_parse(const char *list, const char *source);

#endif
