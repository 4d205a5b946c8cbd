/* unit_fatal.c -- os/fatal.h: the exact line of each way to end, by write(2) and abort, in a child each. */
#include "test.h"

#include "base/check.h"
#include "os/fatal.h"

#define LONG_TEXT                                                                                                      \
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"             \
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"

static const struct ending_case {
    const char *name, *text;
} cases[] = {
    {"pointer", "granary: FATAL foreign pointer: free(0x1234abcd) was not allocated here\n"},
    {"null", "granary: FATAL invalid free: free(0x0) is nowhere\n"},
    {"highest", "granary: FATAL invalid free: free(0xffffffffffffffff) is nowhere\n"},
    {"block", "granary: FATAL double free: free(0x1000) of a 64-byte block\n"},
    {"inside", "granary: FATAL invalid free: realloc(0x1008) is not the start of a block (48-byte blocks)\n"},
    {"size", "granary: FATAL wrong size: free_sized(0x1000, 100) of a 64-byte block\n"},
    {"size_most",
     "granary: FATAL wrong size: free_sized(0x1000, 18446744073709551615) of a 18446744073709551615-byte block\n"},
    {"text", "granary: FATAL something\n"},
};

static int end_as(void *argument) {
    switch ((int)((const struct ending_case *)argument - cases)) {
    case 0:
        gr_fatal_pointer("foreign pointer", "free", (void *)0x1234abcd, "was not allocated here");
    case 1:
        gr_fatal_pointer("invalid free", "free", NULL, "is nowhere");
    case 2:
        gr_fatal_pointer("invalid free", "free", (void *)UINTPTR_MAX, "is nowhere");
    case 3:
        gr_fatal_block("double free", "free", (void *)0x1000, 64);
    case 4:
        gr_fatal_inside("realloc", (void *)0x1008, 48);
    case 5:
        gr_fatal_size("free_sized", (void *)0x1000, 100, 64);
    case 6:
        gr_fatal_size("free_sized", (void *)0x1000, SIZE_MAX, SIZE_MAX);
    case 7:
        gr_fatal("something");
    }
    return 0;
}

static void fatal_lines_read_as_promised(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct ending ending = in_child(end_as, (void *)&cases[i], 20);
        assert_string_equal(ending.text, cases[i].text);
        assert_int_equal(ending.signal, SIGABRT);
    }
}

static int end_long(void *unused) {
    (void)unused;
    gr_fatal(LONG_TEXT LONG_TEXT);
}

static void fatal_long_line_is_cut_and_ends(void **state) {
    (void)state;
    struct ending ending = in_child(end_long, NULL, 20);
    struct line l;
    assert_int_equal(ending.length, sizeof l.text);
    assert_memory_equal(ending.text, "granary: FATAL 0123456789", 25);
    assert_int_equal(ending.text[ending.length - 1], '\n');
    assert_int_equal(ending.signal, SIGABRT);
}

static int fail_check(void *unused) {
    (void)unused;
    CHECK(1 + 1 == 3);
    return 0;
}

static void fatal_check_names_condition_and_place(void **state) {
    (void)state;
    struct ending ending = in_child(fail_check, NULL, 20);
    assert_non_null(strstr(ending.text, "granary: FATAL check failed: 1 + 1 == 3 at "));
    assert_non_null(strstr(ending.text, "unit_fatal.c:"));
    assert_int_equal(ending.signal, SIGABRT);
}

static int fail_assert(void *unused) {
    (void)unused;
    ASSERT(false);
    return 0;
}

static int fail_invariant(void *unused) {
    (void)unused;
    INVARIANT(whole, false);
    return 0;
}

static void fatal_assert_and_invariant_hold_in_debug_builds(void **state) {
    (void)state;
    struct ending ending = in_child(fail_assert, NULL, 20);
    assert_int_equal(ending.signal, GRANARY_DEBUG ? SIGABRT : 0);
    ending = in_child(fail_invariant, NULL, 20);
    assert_int_equal(ending.signal, GRANARY_DEBUG ? SIGABRT : 0);
    if (GRANARY_DEBUG)
        assert_non_null(strstr(ending.text, "whole: false"));
}

static int warn(void *unused) {
    (void)unused;
    errno = 77;
    gr_warn("so many: ", "12345", 3);
    return errno;
}

static void fatal_warning_goes_on_and_keeps_errno(void **state) {
    (void)state;
    struct ending ending = in_child(warn, NULL, 20);
    assert_string_equal(ending.text, "granary: warning: so many: 123\n");
    assert_int_equal(ending.exit_code, 77);
}

static void handler(int signal_number) {
    (void)signal_number;
    void *p = malloc(1000); /* the program's handler may do as it likes: no lock of ours is held */
    _exit(p ? 42 : 43);
}

static int end_in_handler(void *unused) {
    (void)unused;
    signal(SIGABRT, handler);
    gr_fatal("something");
}

static void fatal_117_handler_of_abort_may_work(void **state) {
    (void)state;
    struct ending ending = in_child(end_in_handler, NULL, 20);
    assert_int_equal(ending.exit_code, 42);
    assert_string_equal(ending.text, "granary: FATAL something\n");
}

static void fatal_line_numbers(void **state) {
    (void)state;
    static const uint64_t numbers[] = {0, 1, 9, 10, 99, 100, 4294967295, 4294967296, UINT64_MAX};
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        struct line l = {.used = 0};
        char want[64];
        line_number(&l, numbers[i]);
        line_text(&l, " ");
        line_pointer(&l, (void *)numbers[i]);
        int length = snprintf(want, sizeof want, "%" PRIu64 " 0x%" PRIx64, numbers[i], numbers[i]);
        assert_int_equal(l.used, length);
        assert_memory_equal(l.text, want, (size_t)length);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fatal_lines_read_as_promised),
        cmocka_unit_test(fatal_long_line_is_cut_and_ends),
        cmocka_unit_test(fatal_check_names_condition_and_place),
        cmocka_unit_test(fatal_assert_and_invariant_hold_in_debug_builds),
        cmocka_unit_test(fatal_warning_goes_on_and_keeps_errno),
        cmocka_unit_test(fatal_117_handler_of_abort_may_work),
        cmocka_unit_test(fatal_line_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
