/* limits_syscalls.c -- under a filter that ends a process for any system call that is not expected: the library makes few, and
 * those that only save memory may be refused.
 *
 * covers: S87
 */
/* test: sanitize=off timeout=120 */
#include "storm_block.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

static const unsigned expected[] = {
    /* the library's */
    __NR_mmap,
    __NR_munmap,
    __NR_write, /* figures and reports */
    __NR_clock_gettime,
    __NR_getrandom, /* hardened: secrets */
    /* libc's, where a thread or a process begins and ends */
    __NR_rt_sigaction,
    __NR_rt_sigprocmask,
    __NR_mprotect,
    __NR_clone,
    __NR_clone3,
    __NR_set_robust_list,
    __NR_rseq,
    __NR_futex,
    __NR_exit,
    __NR_exit_group,
};

/* Without these memory goes back later, realloc copies, and the control group's limit is not known. */
static const unsigned optional[] = {__NR_madvise, __NR_mremap, __NR_mincore, __NR_membarrier,
                                    __NR_openat,  __NR_read,   __NR_close};

static void filter_calls(unsigned verdict_on_optional) {
    struct sock_filter program[2 * (COUNT_OF(expected) + COUNT_OF(optional)) + 8];
    unsigned short n = 0;
    program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, expected[i], 0, 1);
        program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    for (size_t i = 0; i < COUNT_OF(optional); i++) {
        program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, optional[i], 0, 1);
        program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict_on_optional);
    }
    program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    struct sock_fprog filter = {n, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        _exit(storm_exit_skipped);
}

static int work_under(void *verdict) {
    filter_calls(*(const unsigned *)verdict);
    for (uint64_t seed = 1; seed <= 5; seed++)
        storm_workload(seed, 3);
    granary_print_stats(2);
    return 0;
}

static void must_work_under(unsigned verdict, const char *what) {
    struct ending ending = in_child(work_under, &verdict, 60);
    if (ending.exit_code == storm_exit_skipped)
        skip();
    must_end_well(ending, what);
    assert_non_null(strstr(ending.text, "used_bytes"));
}

static void syscalls_are_few(void **state) {
    (void)state;
    must_work_under(SECCOMP_RET_ALLOW, "all allowed");
}

static void syscalls_that_save_memory_may_be_forbidden(void **state) {
    (void)state;
    must_work_under(SECCOMP_RET_ERRNO | EPERM, "madvise, mremap, mincore: EPERM");
    must_work_under(SECCOMP_RET_ERRNO | ENOSYS, "madvise, mremap, mincore: ENOSYS");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syscalls_are_few),
        cmocka_unit_test(syscalls_that_save_memory_may_be_forbidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
