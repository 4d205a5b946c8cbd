/* fuzz_options.c -- any text as GRANARY_CONF, as the list of a program, or as a variable: what is right is taken, what is wrong
 * is reported in one line and changes nothing, and nothing else happens.
 *
 * The first byte of an input says which source the rest, up to a NUL, is. The model reads the text in another way than the
 * parser: it cuts it into items first and lets strtoull have the digits.
 */
/* test: args="--seconds 3" wrap=os_write timeout=120 */
#include "fuzz.h"

#define option library_option /* <getopt.h> has one, too */
#include "os/options.h"

extern char **environ;

/* What the library writes. */
static char said[1 << 18], expected[1 << 18];
static size_t said_bytes, expected_bytes;

void __wrap_os_write(int fd, const char *text, size_t bytes);
void __wrap_os_write(int fd, const char *text, size_t bytes) {
    REQUIRE(fd == 2 && bytes > 0 && bytes <= sizeof said - said_bytes, "%zu bytes on descriptor %d", bytes, fd);
    memcpy(said + said_bytes, text, bytes);
    said_bytes += bytes;
}

static void expect_warning(const char *source, const char *item) {
    char line[240];
    int length = snprintf(line, sizeof line, "granary: warning: %s%s", source, item);
    size_t bytes = length < (int)sizeof line ? (size_t)length : sizeof line - 1;
    line[bytes++] = '\n';
    REQUIRE(bytes <= sizeof expected - expected_bytes, "too many items");
    memcpy(expected + expected_bytes, line, bytes);
    expected_bytes += bytes;
}

static const char *const keys[OPTION_COUNT] = {"purge_ms",   "thread_cache", "total_cache", "thp",   "housekeeping",
                                               "limit_soft", "limit_hard",   "oom",         "stats", "guards"};
static uint64_t model[OPTION_COUNT];

static bool number(const char *text, bool with_unit, uint64_t most, uint64_t *out) {
    size_t digits = strspn(text, "0123456789");
    static const char units[] = "kKmMgG";
    const char *unit = text[digits] && with_unit && !text[digits + 1] ? strchr(units, text[digits]) : NULL;
    if (!digits || digits > 15 || (text[digits] && !unit))
        return false;
    unsigned __int128 value = strtoull(text, NULL, 10);
    value <<= unit ? 10 * ((unit - units) / 2 + 1) : 0;
    *out = (uint64_t)value;
    return value <= most;
}

static bool value_of(enum option which, const char *text, uint64_t *out) {
    switch (which) {
    case OPTION_PURGE_MS:
        *out = OPTION_NEVER;
        return !strcmp(text, "never") || number(text, false, 25000, out);
    case OPTION_THP:
        *out = !strcmp(text, "never") ? THP_NEVER : !strcmp(text, "always") ? THP_ALWAYS : THP_AUTO;
        return *out != THP_AUTO || !strcmp(text, "auto");
    case OPTION_OOM:
        *out = strcmp(text, "abort") ? OOM_NULL : OOM_ABORT;
        return *out != OOM_NULL || !strcmp(text, "null");
    case OPTION_LIMIT_SOFT:
    case OPTION_LIMIT_HARD:
        if (which == OPTION_LIMIT_SOFT && !strcmp(text, "auto")) {
            *out = OPTION_AUTO;
            return true;
        }
        *out = OPTION_NEVER;
        return !strcmp(text, "never") || number(text, true, (uint64_t)1 << 47, out);
    case OPTION_GUARDS:
        return number(text, false, 1000000000, out);
    case OPTION_HOUSEKEEPING:
    case OPTION_STATS:
        return number(text, false, 1, out);
    default:
        return number(text, true, (uint64_t)1 << 40, out);
    }
}

/* Takes key and value, or says false. */
static bool take(const char *key, const char *text) {
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        uint64_t value;
        if (strcmp(key, keys[i]) == 0 && value_of((enum option)i, text, &value)) {
            model[i] = value;
            return true;
        }
    }
    return false;
}

static void take_list(char *list, const char *source) {
    for (char *item; (item = strsep(&list, ",")) != NULL;) {
        char copy[fuzz_max_input];
        strcpy(copy, item);
        char *value = copy, *key = strsep(&value, ":");
        if (*item && !take(key, value ? value : ""))
            expect_warning(source, item);
    }
}

static void take_variable(char *entry) {
    char copy[fuzz_max_input];
    strcpy(copy, entry);
    char *value = copy, *name = strsep(&value, "=");
    bool known = false;
    for (unsigned i = 0; value && i < OPTION_COUNT && !known; i++) {
        char upper[20] = {0};
        for (size_t at = 0; keys[i][at]; at++)
            upper[at] = (char)(keys[i][at] == '_' ? '_' : keys[i][at] - 'a' + 'A');
        known = strcmp(name, upper) == 0;
        if (known && take(keys[i], value))
            return;
    }
    expect_warning(known ? "ignored, not a value for this option: GRANARY_" : "ignored, no such option: GRANARY_",
                   entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char text[fuzz_max_input + 16], copy[fuzz_max_input + 16];
    static const char start[] = "purge_ms:1000,thread_cache:2M,total_cache:64M,thp:auto,housekeeping:1,limit_soft:auto,"
                                "limit_hard:never,oom:null,stats:0,guards:0";
    if (size < 1 || size > fuzz_max_input - 16)
        return 0;
    said_bytes = expected_bytes = 0;
    gr_options_parse(start, "start: ");
    strcpy(copy, start);
    take_list(copy, "start: ");
    static const char *const forms[] = {"%s", "GRANARY_CONF=%s", "GRANARY_%s"};
    unsigned source = data[0] % 3;
    char body[fuzz_max_input];
    memcpy(body, data + 1, size - 1);
    body[size - 1] = 0;
    snprintf(text, sizeof text, forms[source], body);
    if (source == 2 && strncmp(text, "GRANARY_CONF=", 13) == 0)
        source = 1;
    if (source == 0) {
        gr_options_parse(text, "list: ");
        take_list(body, "list: ");
    } else {
        char *only[] = {text, NULL}, **before = environ;
        environ = only;
        gr_options_read();
        environ = before;
        strcpy(copy, text + (source == 1 ? 13 : 8));
        if (source == 1)
            take_list(copy, "ignored, bad option in GRANARY_CONF: ");
        else
            take_variable(copy);
    }
    for (unsigned i = 0; i < OPTION_COUNT; i++)
        REQUIRE(option_get((enum option)i) == model[i], "%s: %s is %llu, not %llu", text, keys[i],
                (unsigned long long)option_get((enum option)i), (unsigned long long)model[i]);
    REQUIRE(said_bytes == expected_bytes && memcmp(said, expected, said_bytes) == 0, "%s: said\n%.*sand not\n%.*s",
            text, (int)said_bytes, said, (int)expected_bytes, expected);
    return 0;
}

static size_t fuzz_draw(struct rng *rng, uint8_t *data) {
    static const char *const words[] = {"purge_ms",
                                        "thread_cache",
                                        "total_cache",
                                        "thp",
                                        "housekeeping",
                                        "limit_soft",
                                        "limit_hard",
                                        "LIMIT_SOFT",
                                        "oom",
                                        "null",
                                        "abort",
                                        "stats",
                                        "guards",
                                        "PURGE_MS",
                                        "THP",
                                        "CONF",
                                        ":",
                                        ",",
                                        "=",
                                        "never",
                                        "auto",
                                        "always",
                                        "0",
                                        "1",
                                        "25000",
                                        "64",
                                        "K",
                                        "m",
                                        "G"};
    size_t size = 0;
    data[size++] = (uint8_t)rng_below(rng, 3);
    for (size_t pieces = rng_below(rng, 30); pieces > 0; pieces--) {
        const char *word = words[rng_below(rng, COUNT_OF(words))];
        if (storm_one_in(rng, 8))
            data[size++] = (uint8_t)rng_next(rng);
        else {
            memcpy(data + size, word, strlen(word));
            size += strlen(word);
        }
    }
    return size;
}

#ifndef STRESS_LIBFUZZER
int main(int argc, char **argv) { return fuzz_main(argc, argv, STRESS_DIR "/corpus/fuzz_options"); }
#endif
