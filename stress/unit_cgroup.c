/* unit_cgroup.c -- os/cgroup.h: the memory limit of the process's control group, read from trees that are made up, and on the
 * machine as it is.
 *
 * covers: S97
 */
#include "test.h"

#include <ftw.h>
#include <sys/stat.h>

#include "os/cgroup.h"

enum { MARK = 4711 };

static char root[64];

static void file(const char *path, const char *text) {
    char whole[2048];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    for (char *at = whole + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = 0;
        mkdir(whole, 0700);
        *at = '/';
    }
    FILE *f = fopen(whole, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int new_tree(void **state) {
    (void)state;
    strcpy(root, "/tmp/granary-cgroup-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *ftw) {
    (void)s, (void)type, (void)ftw;
    return remove(path);
}

static int remove_tree(void **state) {
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void must_be(uint64_t want) {
    uint64_t got = 1;
    errno = MARK;
    assert_true(gr_cgroup_limit(root, &got));
    assert_int_equal(errno, MARK);
    assert_int_equal(got, want);
}

static void must_be_unknown(void) {
    uint64_t got = 1;
    errno = MARK;
    assert_false(gr_cgroup_limit(root, &got));
    assert_int_equal(errno, MARK);
    assert_int_equal(got, 1);
}

#define GROUPS "/proc/self/cgroup"
#define V1     "/sys/fs/cgroup/memory"
#define V2     "/sys/fs/cgroup"

static void no_tree_at_all(void **state) {
    (void)state;
    must_be_unknown();
    file(GROUPS, "");
    must_be_unknown();
    file(GROUPS, "garbage\n\n::\n7\n7:cpu\n:");
    must_be(CGROUP_NO_LIMIT); /* "::" is a group of version 2 without a name */
    file(GROUPS, "4:cpu,cpuacct:/a\n");
    must_be_unknown();
}

static void version_2(void **state) {
    (void)state;
    file(GROUPS, "0::/a/b\n");
    must_be(CGROUP_NO_LIMIT); /* no file is there */
    file(V2 "/a/b/memory.max", "max\n");
    must_be(CGROUP_NO_LIMIT);
    file(V2 "/a/b/memory.max", "1073741824\n");
    must_be(GIB);
    file(V2 "/a/b/memory.high", "max\n");
    must_be(GIB);
    file(V2 "/a/b/memory.high", "536870912\n");
    must_be(GIB / 2);
    file(V2 "/a/memory.max", "268435456\n");
    must_be(GIB / 4);
    file(V2 "/memory.high", "4096");
    must_be(4096);
    file(V2 "/memory.high", "0\n");
    must_be(0);
}

static void version_2_as_the_container_sees_it(void **state) {
    (void)state;
    file(GROUPS, "0::/\n");
    file(V2 "/memory.max", "123456789\n");
    must_be(123456789);
    file(GROUPS, "0::/../elsewhere\n");
    must_be(123456789);
    file(GROUPS, "0::/gone (deleted)\n");
    must_be(123456789);
    file(GROUPS, "0::/a:b\n"); /* a name may hold a colon */
    file(V2 "/a:b/memory.max", "99\n");
    must_be(99);
}

static void version_1(void **state) {
    (void)state;
    file(GROUPS, "9:name=systemd:/\n4:memory:/docker/0123\n3:cpuset:/\n1:cpu,cpuacct:/x\n");
    must_be(CGROUP_NO_LIMIT);
    file(V1 "/docker/0123/memory.limit_in_bytes", "9223372036854771712\n");
    must_be(CGROUP_NO_LIMIT);
    file(V1 "/docker/0123/memory.limit_in_bytes", "104857600\n");
    must_be(100 * MIB);
    file(V1 "/memory.limit_in_bytes", "9223372036854771712\n");
    must_be(100 * MIB);
    file(V1 "/docker/memory.limit_in_bytes", "52428800\n");
    must_be(50 * MIB);
}

static void version_1_mounted_from_its_own_group(void **state) {
    (void)state;
    file(GROUPS, "4:hugetlb,memory:/docker/0123/inner\n");
    file(V1 "/memory.limit_in_bytes", "104857600\n");
    must_be(100 * MIB);
}

static void both_versions(void **state) {
    (void)state;
    file(GROUPS, "5:memory:/a\n0::/b\n");
    file(V1 "/a/memory.limit_in_bytes", "1000\n");
    file(V2 "/b/memory.max", "10\n"); /* not a controller there */
    must_be(1000);
    file(GROUPS, "0::/b\n5:memory:/a\n");
    must_be(1000);
    file(GROUPS, "0::/b\n5:memory2,xmemory:/a\n");
    must_be(10);
}

static void numbers_that_are_none(void **state) {
    (void)state;
    static const char *const none[] = {"",
                                       "\n",
                                       "-1\n",
                                       " 5\n",
                                       "5 \n",
                                       "5k\n",
                                       "0x5\n",
                                       "99999999999999999999999999999999999999999\n",
                                       "1000000000000000\n",
                                       "max"};
    file(GROUPS, "0::/a\n");
    for (size_t i = 0; i < COUNT_OF(none); i++) {
        file(V2 "/a/memory.max", none[i]);
        must_be(CGROUP_NO_LIMIT);
    }
    file(V2 "/a/memory.max", "999999999999999\n");
    must_be(999999999999999);
}

/* What does not fit is left out, and nothing is written past an end. */
static void names_that_are_too_long(void **state) {
    (void)state;
    static char text[3][6000];
    for (size_t i = 0; i < COUNT_OF(text); i++) {
        strcpy(text[i], "0::");
        size_t length = i == 0 ? 900 : i == 1 ? 1100 : 5000;
        for (size_t at = 3; at < length; at++)
            text[i][at] = at % 100 == 3 ? '/' : 'a';
        file(GROUPS, text[i]);
        must_be(CGROUP_NO_LIMIT);
    }
    file(V2 "/memory.max", "77\n");
    for (size_t i = 0; i < COUNT_OF(text); i++) {
        file(GROUPS, text[i]);
        must_be(77);
    }
}

/* No descriptor stays open, and none to be had is no limit known. */
static void descriptors(void **state) {
    (void)state;
    struct rlimit before, none;
    file(GROUPS, "0::/a/b/c\n");
    file(V2 "/a/memory.max", "55\n");
    int first = dup(2);
    close(first);
    must_be(55);
    assert_int_equal(dup(2), first);
    close(first);
    getrlimit(RLIMIT_NOFILE, &before);
    none = (struct rlimit){(rlim_t)first, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    must_be_unknown();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* As another reader of the same files would say; nothing is changed. */
static void this_machine(void **state) {
    (void)state;
    char text[4096], path[4096], *group;
    uint64_t got = 1;
    if (!read_file("/proc/self/cgroup", text, sizeof text) || !gr_cgroup_limit("", &got))
        skip();
    bool first = (group = strstr(text, ":memory:")) != NULL;
    group = first ? group + 8 : strstr(text, "0::") + 3;
    group[strcspn(group, "\n")] = 0;
    snprintf(path, sizeof path, first ? V1 "%s/memory.limit_in_bytes" : V2 "%s/memory.max", group);
    uint64_t mine = read_file(path, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
    printf("control group %s: %" PRIu64 ", read as %" PRIu64 "\n", path, mine, got);
    assert_true(got == CGROUP_NO_LIMIT || mine == 0 || got <= mine);
    if (mine && mine < GIB * 1024 * 512)
        assert_true(got <= mine);
}

#define IN_A_TREE(test) cmocka_unit_test_setup_teardown(test, new_tree, remove_tree)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_A_TREE(no_tree_at_all),
        IN_A_TREE(version_2),
        IN_A_TREE(version_2_as_the_container_sees_it),
        IN_A_TREE(version_1),
        IN_A_TREE(version_1_mounted_from_its_own_group),
        IN_A_TREE(both_versions),
        IN_A_TREE(numbers_that_are_none),
        IN_A_TREE(names_that_are_too_long),
        IN_A_TREE(descriptors),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
