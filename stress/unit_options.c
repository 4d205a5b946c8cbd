/* unit_options.c -- os/options.h: the three sources and their order, every key's edges, and what is refused. */
#include "test.h"

#include "os/options.h"

const char *granary_conf = NULL; /* the symbol that a program may define */

static const uint64_t defaults[OPTION_COUNT] = {
    [OPTION_PURGE_MS] = 1000,
    [OPTION_THREAD_CACHE] = 8 << 20,
    [OPTION_TOTAL_CACHE] = 64 << 20,
    [OPTION_THP] = THP_AUTO,
    [OPTION_HOUSEKEEPING] = 1,
    [OPTION_LIMIT_SOFT] = OPTION_AUTO,
    [OPTION_LIMIT_HARD] = OPTION_NEVER,
    [OPTION_OOM] = OOM_NULL,
    [OPTION_STATS] = 0,
    [OPTION_GUARDS] = 0,
};

static void must_be_but(enum option changed, uint64_t value) {
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        uint64_t want = i == changed ? value : defaults[i];
        if (option_get((enum option)i) != want) {
            fprintf(stderr, "option %u is %" PRIu64 ", not %" PRIu64 "\n", i, option_get((enum option)i), want);
            _exit(1);
        }
    }
}

static void options_defaults_hold_before_anything_is_read(void **state) {
    (void)state;
    for (unsigned i = 0; i < OPTION_COUNT; i++)
        assert_int_equal(option_get((enum option)i), defaults[i]);
}

static const struct accepted {
    const char *list;
    enum option option;
    uint64_t value;
} accepted[] = {
    {"purge_ms:0", OPTION_PURGE_MS, 0},
    {"purge_ms:25000", OPTION_PURGE_MS, 25000},
    {"purge_ms:never", OPTION_PURGE_MS, OPTION_NEVER},
    {"purge_ms:007", OPTION_PURGE_MS, 7},
    {"thread_cache:0", OPTION_THREAD_CACHE, 0},
    {"thread_cache:123", OPTION_THREAD_CACHE, 123},
    {"thread_cache:5k", OPTION_THREAD_CACHE, 5 << 10},
    {"thread_cache:5K", OPTION_THREAD_CACHE, 5 << 10},
    {"total_cache:7m", OPTION_TOTAL_CACHE, 7 << 20},
    {"total_cache:7M", OPTION_TOTAL_CACHE, 7 << 20},
    {"total_cache:1024G", OPTION_TOTAL_CACHE, 1ull << 40},
    {"total_cache:3g", OPTION_TOTAL_CACHE, 3ull << 30},
    {"thp:auto", OPTION_THP, THP_AUTO},
    {"thp:never", OPTION_THP, THP_NEVER},
    {"thp:always", OPTION_THP, THP_ALWAYS},
    {"housekeeping:0", OPTION_HOUSEKEEPING, 0},
    {"limit_soft:never", OPTION_LIMIT_SOFT, OPTION_NEVER},
    {"limit_soft:0", OPTION_LIMIT_SOFT, 0},
    {"limit_soft:5,limit_soft:auto", OPTION_LIMIT_SOFT, OPTION_AUTO},
    {"limit_hard:3G", OPTION_LIMIT_HARD, 3ull << 30},
    {"limit_hard:131072G", OPTION_LIMIT_HARD, 1ull << 47},
    {"limit_hard:1,limit_hard:never", OPTION_LIMIT_HARD, OPTION_NEVER},
    {"oom:abort", OPTION_OOM, OOM_ABORT},
    {"oom:abort,oom:null", OPTION_OOM, OOM_NULL},
    {"stats:1", OPTION_STATS, 1},
    {"stats:1,stats:0,stats:1", OPTION_STATS, 1},
    {"guards:1", OPTION_GUARDS, 1},
    {"guards:1000000000", OPTION_GUARDS, 1000000000},
    {",,purge_ms:5,,", OPTION_PURGE_MS, 5},
    {"", OPTION_COUNT, 0},
    {",", OPTION_COUNT, 0},
};

static int accept(void *argument) {
    const struct accepted *a = argument;
    gr_options_parse(a->list, "refused: ");
    must_be_but(a->option, a->value);
    return 0;
}

static void options_accept(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(accepted); i++) {
        struct ending ending = in_child(accept, (void *)&accepted[i], 20);
        must_end_well(ending, accepted[i].list);
        assert_string_equal(ending.text, "");
    }
}

static const char *const refused[] = {
    "purge_ms",
    "purge_ms:",
    "purge_ms:x",
    "purge_ms:-1",
    "purge_ms: 5",
    "purge_ms:5 ",
    "purge_ms:5k",
    "purge_ms:25001",
    "purge_ms:Never",
    "thread_cache:never",
    "thread_cache:k",
    "thread_cache:1kk",
    "thread_cache:1T",
    "thread_cache:0x10",
    "thread_cache:1025G",
    "total_cache:1e6",
    "thp:1",
    "thp:",
    "thp:alway",
    "thp:alwayss",
    "limit_hard:auto",
    "limit_hard:131073G",
    "limit_hard:1GB",
    "limit_soft:",
    "limit_soft:neve",
    "oom:",
    "oom:1",
    "oom:callback",
    "oom:nullabort",
    "stats:2",
    "stats:never",
    "guards:1000000001",
    "guards:never",
    "guards:20k",
    "nothing:1",
    "purge_msx:1",
    "purge_m:1",
    "Purge_ms:1",
    ":",
    ":5",
    "purge_ms:1:2",
    "purge_ms=1",
    "thread_cache:9999999999999999999999",
    "total_cache:18446744073709551615",
    "total_cache:999999999999999G",
};

static int refuse(void *list) {
    gr_options_parse(list, "refused: ");
    must_be_but(OPTION_COUNT, 0);
    return 0;
}

static void options_refuse_in_one_line_each(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        char want[200];
        snprintf(want, sizeof want, "granary: warning: refused: %s\n", refused[i]);
        struct ending ending = in_child(refuse, (void *)refused[i], 20);
        must_end_well(ending, refused[i]);
        assert_string_equal(ending.text, want);
    }
}

static int mixed(void *unused) {
    (void)unused;
    gr_options_parse("purge_ms:1,bad,thp:never,thp:neither,stats:1", "refused: ");
    must(option_get(OPTION_PURGE_MS) == 1);
    must(option_get(OPTION_THP) == THP_NEVER);
    must(option_get(OPTION_STATS) == 1);
    return 0;
}

static void options_a_bad_key_spoils_no_other(void **state) {
    (void)state;
    struct ending ending = in_child(mixed, NULL, 20);
    must_end_well(ending, "mixed");
    assert_string_equal(ending.text, "granary: warning: refused: bad\ngranary: warning: refused: thp:neither\n");
}

static int read_all(void *unused) {
    (void)unused;
    granary_conf = "purge_ms:1,thread_cache:1k,total_cache:1k";
    setenv("GRANARY_PURGE_MS", "3", 1); /* before GRANARY_CONF in the environment: its place there does not matter */
    setenv("GRANARY_CONF", "purge_ms:2,thread_cache:2k", 1);
    setenv("GRANARY_PURGE", "9", 1);
    setenv("GRANARY_STATS", "yes", 1);
    setenv("XGRANARY_STATS", "1", 1);
    gr_options_read();
    must(option_get(OPTION_PURGE_MS) == 3);
    must(option_get(OPTION_THREAD_CACHE) == 2 << 10);
    must(option_get(OPTION_TOTAL_CACHE) == 1 << 10);
    must(option_get(OPTION_STATS) == 0);
    return 0;
}

static void options_later_sources_win(void **state) {
    (void)state;
    struct ending ending = in_child(read_all, NULL, 20);
    must_end_well(ending, "sources");
    assert_non_null(strstr(ending.text, "granary: warning: ignored, no such option: GRANARY_PURGE=9\n"));
    assert_non_null(strstr(ending.text, "granary: warning: ignored, not a value for this option: GRANARY_STATS=yes\n"));
}

static int read_bad(void *unused) {
    (void)unused;
    granary_conf = "one:1";
    setenv("GRANARY_CONF", "two:2", 1);
    gr_options_read();
    return 0;
}

static void options_a_warning_names_its_source(void **state) {
    (void)state;
    struct ending ending = in_child(read_bad, NULL, 20);
    must_end_well(ending, "sources");
    assert_string_equal(ending.text, "granary: warning: ignored, bad option in granary_conf: one:1\n"
                                     "granary: warning: ignored, bad option in GRANARY_CONF: two:2\n");
}

static int read_nothing(void *unused) {
    (void)unused;
    clearenv();
    gr_options_read();
    must_be_but(OPTION_COUNT, 0);
    return 0;
}

static void options_an_empty_environment_is_one(void **state) {
    (void)state;
    struct ending ending = in_child(read_nothing, NULL, 20);
    must_end_well(ending, "no environment");
    assert_string_equal(ending.text, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_defaults_hold_before_anything_is_read),
        cmocka_unit_test(options_accept),
        cmocka_unit_test(options_refuse_in_one_line_each),
        cmocka_unit_test(options_a_bad_key_spoils_no_other),
        cmocka_unit_test(options_later_sources_win),
        cmocka_unit_test(options_a_warning_names_its_source),
        cmocka_unit_test(options_an_empty_environment_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
