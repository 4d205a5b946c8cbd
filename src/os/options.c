/* os/options.c -- see `os/options.h`. */
#include "os/options.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/atomic.h"
#include "os/fatal.h"
#include "os/os.h"

enum kind { KIND_NUMBER, KIND_BYTES, KIND_WORD };

/* A word, and what it stands for. */
struct name {
    const char *word;
    uint64_t value;
};

static const struct {
    const char *key;
    enum kind kind;
    uint64_t most;
    struct name names[3];
} known[OPTION_COUNT] = {
    [OPTION_PURGE_MS] = {"purge_ms", KIND_NUMBER, 25000, {{"never", OPTION_NEVER}}},
    [OPTION_THREAD_CACHE] = {"thread_cache", KIND_BYTES, 1ull << 40, {{NULL, 0}}},
    [OPTION_TOTAL_CACHE] = {"total_cache", KIND_BYTES, 1ull << 40, {{NULL, 0}}},
    [OPTION_THP] = {"thp", KIND_WORD, 0, {{"auto", THP_AUTO}, {"never", THP_NEVER}, {"always", THP_ALWAYS}}},
    [OPTION_HOUSEKEEPING] = {"housekeeping", KIND_NUMBER, 1, {{NULL, 0}}},
    [OPTION_LIMIT_SOFT] = {"limit_soft", KIND_BYTES, 1ull << 47, {{"auto", OPTION_AUTO}, {"never", OPTION_NEVER}}},
    [OPTION_LIMIT_HARD] = {"limit_hard", KIND_BYTES, 1ull << 47, {{"never", OPTION_NEVER}}},
    [OPTION_OOM] = {"oom", KIND_WORD, 0, {{"null", OOM_NULL}, {"abort", OOM_ABORT}}},
    [OPTION_STATS] = {"stats", KIND_NUMBER, 1, {{NULL, 0}}},
    [OPTION_GUARDS] = {"guards", KIND_NUMBER, 1000000000, {{NULL, 0}}},
};

/* Each is one word that says all: whoever reads it before or while the options are read has the default. */
static struct word values[OPTION_COUNT] = {
    [OPTION_PURGE_MS] = {1000},
    [OPTION_THREAD_CACHE] = {8 << 20},
    [OPTION_TOTAL_CACHE] = {64 << 20},
    [OPTION_THP] = {THP_AUTO},
    [OPTION_HOUSEKEEPING] = {1},
    [OPTION_LIMIT_SOFT] = {OPTION_AUTO},
    [OPTION_LIMIT_HARD] = {OPTION_NEVER},
    [OPTION_OOM] = {OOM_NULL},
    [OPTION_STATS] = {0},
    [OPTION_GUARDS] = {0},
};

extern GR_WEAK const char *granary_conf;
extern char **environ;

uint64_t option_get(enum option which) { return word_peek(&values[which]); }

/* A piece of text that need not end in NUL. */
struct span {
    const char *at;
    size_t bytes;
};

static bool span_is(struct span s, const char *text) { return s.bytes == strlen(text) && !memcmp(s.at, text, s.bytes); }

static struct span span_until(const char *at, const char *stops) { return (struct span){at, strcspn(at, stops)}; }

static bool parse_number(struct span s, bool suffix_ok, uint64_t *out) {
    unsigned shift = 0;
    if (suffix_ok && s.bytes > 1) {
        const char *units = "kKmMgG", *unit = strchr(units, s.at[s.bytes - 1]);
        if (unit) {
            shift = 10u * (unsigned)((unit - units) / 2 + 1);
            s.bytes--;
        }
    }
    if (!s.bytes || s.bytes > 15)
        return false;
    uint64_t n = 0;
    for (size_t i = 0; i < s.bytes; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(s.at[i] - '0');
    }
    if (n > UINT64_MAX >> shift)
        return false;
    *out = n << shift;
    return true;
}

GR_COLD static bool parse_value(enum option which, struct span s, uint64_t *out) {
    const struct name *names = known[which].names;
    enum kind kind = known[which].kind;
    for (unsigned i = 0; i < 3 && names[i].word; i++)
        if (span_is(s, names[i].word)) {
            *out = names[i].value;
            return true;
        }
    return kind != KIND_WORD && parse_number(s, kind == KIND_BYTES, out) && *out <= known[which].most;
}

static void set(struct span key, struct span value, struct span whole, const char *source) {
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        uint64_t n;
        if (!span_is(key, known[i].key))
            continue;
        if (parse_value((enum option)i, value, &n))
            word_store_relaxed(&values[i], n);
        else
            gr_warn(source, whole.at, whole.bytes);
        return;
    }
    gr_warn(source, whole.at, whole.bytes);
}

void gr_options_parse(const char *list, const char *source) {
    while (*list) {
        struct span whole = span_until(list, ",");
        struct span key = span_until(list, ":,");
        struct span value = {key.at + key.bytes, 0};
        if (key.bytes < whole.bytes) {
            value.at++;
            value.bytes = whole.bytes - key.bytes - 1;
        }
        if (whole.bytes)
            set(key, value, whole, source);
        list += whole.bytes;
        list += *list == ',';
    }
}

/* Does `entry` read GRANARY_<KEY>=...? Then where its value begins. */
static const char *variable_value(const char *entry, const char *key) {
    for (; *key; key++, entry++) {
        char upper = *key >= 'a' && *key <= 'z' ? (char)(*key - 'a' + 'A') : *key;
        if (*entry != upper)
            return NULL;
    }
    return *entry == '=' ? entry + 1 : NULL;
}

static void read_variable(const char *entry) {
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        const char *text = variable_value(entry, known[i].key);
        uint64_t n;
        if (!text)
            continue;
        if (parse_value((enum option)i, (struct span){text, strlen(text)}, &n))
            word_store_relaxed(&values[i], n);
        else
            gr_warn("ignored, not a value for this option: GRANARY_", entry, strlen(entry));
        return;
    }
    gr_warn("ignored, no such option: GRANARY_", entry, strlen(entry));
}

void gr_options_read(void) {
    static const char prefix[] = "GRANARY_";
    const size_t skip = sizeof prefix - 1;
    if (&granary_conf && granary_conf)
        gr_options_parse(granary_conf, "ignored, bad option in granary_conf: ");
    if (!environ || os_is_secure())
        return;
    for (char **e = environ; *e; e++)
        if (!strncmp(*e, prefix, skip) && variable_value(*e + skip, "conf"))
            gr_options_parse(variable_value(*e + skip, "conf"), "ignored, bad option in GRANARY_CONF: ");
    for (char **e = environ; *e; e++)
        if (!strncmp(*e, prefix, skip) && !variable_value(*e + skip, "conf"))
            read_variable(*e + skip);
}
