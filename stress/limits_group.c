/* limits_group.c -- in a control group with a memory limit, version 1 or 2: a process whose dirty memory and live blocks together
 * pass the limit goes on, since the former goes back first; the same process is killed where it has been told to look at no limit.
 *
 * STRESS_GROUP names a group's directory in which groups may be made: a group belongs to whoever made it, and nobody
 * else's is changed here. stress/contained makes one, in a system of its own.
 *
 * covers: S97
 */
/* test: sanitize=off timeout=120 wrap=os_clock_ms */
#include "semantics_calls.h"

#include <sys/stat.h>

#define option library_option /* <getopt.h> has one, too */
#include "os/options.h"
#include "page/limit.h"

enum { LIMIT_MIB = 48, BLOCKS = 360 };

/* The test lets time pass. */
static uint64_t later_ms;
uint64_t __real_os_clock_ms(void);
uint64_t __wrap_os_clock_ms(void);
uint64_t __wrap_os_clock_ms(void) { return __real_os_clock_ms() + later_ms; }

static char group[512];
static bool version_2;

static void put(const char *file, const char *text) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", group, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static void set_limit(const char *bytes) { put(version_2 ? "memory.max" : "memory.limit_in_bytes", bytes); }

static size_t limit_in_force(void) {
    struct granary_stats s;
    granary_get_stats(&s);
    return s.limit_soft_bytes;
}

static void enter(const char *limit, const char *options) {
    set_limit(limit);
    put("cgroup.procs", "0");
    gr_options_parse("purge_ms:25000,housekeeping:0", "enter: "); /* nothing goes back by time */
    gr_options_parse(options, "enter: ");
    gr_limit_start();
}

/* 34 MiB in blocks that are freed, then as much touched of one with a mapping of its own, which cannot lie where they were. */
static void burst_and_another(void) {
    static void *blocks[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = granary_malloc(100000);
        must(blocks[i] != NULL);
        memset(blocks[i], 1, 100000);
    }
    for (size_t i = 0; i < BLOCKS; i++)
        granary_free(blocks[i]);
    void *p = granary_malloc(66 * MIB);
    must(p != NULL);
    memset(p, 1, 34 * MIB);
    opaque(p); /* else nobody would read what was written */
}

static int contained(void *unused) {
    (void)unused;
    enter("50331648", "limit_soft:auto");
    burst_and_another();
    must(limit_in_force() == (size_t)LIMIT_MIB * MIB / 16 * 15);
    return 0;
}

static int unaware(void *unused) {
    (void)unused;
    enter("50331648", "limit_soft:never");
    burst_and_another();
    return 0;
}

static int limited_later(void *unused) {
    (void)unused;
    enter(version_2 ? "max" : "-1", "limit_soft:auto");
    granary_free(granary_malloc(33 * MIB));
    void *first = granary_malloc(33 * MIB);
    must(first != NULL);
    granary_free(first);
    set_limit("50331648");
    later_ms += LIMIT_ASK_MS;
    burst_and_another();
    must(limit_in_force() == (size_t)LIMIT_MIB * MIB / 16 * 15);
    return 0;
}

static int in_group(void **state) {
    (void)state;
    struct stat file;
    snprintf(group, sizeof group, "%s/granary-%d", getenv("STRESS_GROUP"), getpid());
    assert_int_equal(mkdir(group, 0755), 0);
    char path[600];
    snprintf(path, sizeof path, "%s/memory.max", group);
    version_2 = stat(path, &file) == 0;
    return 0;
}

static int out_of_group(void **state) {
    (void)state;
    return rmdir(group);
}

static void semantics_097_what_is_idle_goes_before_the_group_is_full(void **state) {
    (void)state;
    struct ending ending = in_child(contained, NULL, 60);
    must_end_well(ending, "memory limit");
    assert_string_equal(ending.text, "");
}

static void semantics_097_a_limit_set_later(void **state) {
    (void)state;
    struct ending ending = in_child(limited_later, NULL, 60);
    must_end_well(ending, "memory limit, set later");
    assert_string_equal(ending.text, "");
}

/* Else the tests above would prove nothing. */
static void semantics_097_who_does_not_look_is_killed(void **state) {
    (void)state;
    struct ending ending = in_child(unaware, NULL, 60);
    assert_int_equal(ending.signal, SIGKILL);
    assert_false(ending.timed_out);
}

int main(void) {
    if (!getenv("STRESS_GROUP")) {
        puts("STRESS_GROUP names no control group in which groups may be made: not tested here");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(semantics_097_what_is_idle_goes_before_the_group_is_full, in_group,
                                        out_of_group),
        cmocka_unit_test_setup_teardown(semantics_097_a_limit_set_later, in_group, out_of_group),
        cmocka_unit_test_setup_teardown(semantics_097_who_does_not_look_is_killed, in_group, out_of_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
