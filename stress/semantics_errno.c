/* semantics_errno.c -- success and free leave errno alone, failure sets ENOMEM whatever the system said.
 * covers: S4 S28 S29 C13
 */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect */
#include "oom_fault.h"
#include "semantics_calls.h"

/* ---- S4: free ---- */

static void *free_keeps_errno(void *ptr) {
    errno = ERRNO_MARK;
    granary_free(ptr);
    must(errno == ERRNO_MARK);
    return NULL;
}

static void semantics_004_free_keeps_errno(void **state) {
    (void)state;
    struct grid *grid = grid_up_to(1 * GIB);
    for (size_t i = 0; i < grid->count; i++) {
        size_t n = grid->sizes[i];
        void *ptr = granary_malloc(n);
        touch_ends(ptr, n);
        free_keeps_errno(ptr);
        if (i % 3 == 1) {
            ptr = granary_malloc(n);
            touch_ends(ptr, n);
            in_thread(free_keeps_errno, ptr);
        }
    }
}

/* Enough frees at once that magazines overflow, slabs retire and runs are purged; and every system call fails. */
static void free_many(size_t size, size_t count, unsigned kinds, int error) {
    void **held = calloc(count, sizeof *held);
    must(held != NULL);
    for (size_t i = 0; i < count; i++) {
        held[i] = granary_malloc(size);
        must(held[i] != NULL);
        touch_ends(held[i], size);
    }
    fault_arm(kinds, 1, true, error);
    for (size_t i = 0; i < count; i++) {
        free_keeps_errno(held[i]);
    }
    errno = ERRNO_MARK;
    granary_trim();
    must(errno == ERRNO_MARK);
    fault_disarm();
    granary_trim();
    free(held);
}

static void semantics_004_free_keeps_errno_when_the_system_refuses(void **state) {
    (void)state;
    const int errors[] = {0, ENOMEM, EAGAIN, EINVAL, EPERM};
    for (size_t e = 0; e < COUNT_OF(errors); e++) {
        unsigned kinds = errors[e] ? FAULT_ANY : 0;
        free_many(64, 20000, kinds, errors[e]);
        free_many(1000, 4000, kinds, errors[e]);
        free_many(64 * KIB, 100, kinds, errors[e]);
        free_many(1 * MIB, 16, kinds, errors[e]);
        free_many(40 * MIB, 4, kinds, errors[e]);
    }
}

/* ---- S28: success ---- */

static void semantics_028_success_keeps_errno(void **state) {
    (void)state;
    struct grid *grid = grid_up_to(64 * MIB);
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        for (size_t i = c % 3; i < grid->count; i += 3) {
            errno = ERRNO_MARK;
            void *ptr = calls[c].alloc(grid->sizes[i]);
            must(errno == ERRNO_MARK);
            ptr = granary_realloc(ptr, grid->sizes[i] * 2 + 1);
            must(ptr != NULL && errno == ERRNO_MARK);
            must(granary_malloc_usable_size(ptr) > 0 && errno == ERRNO_MARK);
            free_keeps_errno(ptr);
        }
    }
}

static int out_fd;
static void first_free(void) { granary_free(NULL); }
static void first_usable_size(void) { must(granary_malloc_usable_size(NULL) == 0); }
static void first_huge(void) { must(granary_malloc(64 * MIB) != NULL); }
static void first_large(void) { must(granary_calloc(3, MIB) != NULL); }
static void first_trim(void) { (void)granary_trim(); }
static void first_nallocx(void) { must(granary_nallocx(10, 0) >= 10); }
static void first_print(void) { granary_print_stats(out_fd); }
static void first_sized(void) { granary_free_sized(NULL, 10); }
static void first_stats(void) {
    struct granary_stats stats;
    granary_get_stats(&stats);
}

static const struct {
    const char *name;
    void (*call)(void);
} firsts[] = {
    {"free", first_free},   {"usable_size", first_usable_size}, {"huge", first_huge},   {"large", first_large},
    {"trim", first_trim},   {"nallocx", first_nallocx},         {"print", first_print}, {"sized", first_sized},
    {"stats", first_stats},
};

/* In a new process: nothing was called before. */
static int make_first_call(const char *name) {
    out_fd = open("/dev/null", O_WRONLY);
    for (size_t i = 0; i < COUNT_OF(firsts) + COUNT_OF(calls); i++) {
        const char *own = i < COUNT_OF(firsts) ? firsts[i].name : calls[i - COUNT_OF(firsts)].name;
        if (strcmp(name, own) == 0) {
            errno = ERRNO_MARK;
            if (i < COUNT_OF(firsts)) {
                firsts[i].call();
            } else {
                must(calls[i - COUNT_OF(firsts)].alloc(100) != NULL);
            }
            must(errno == ERRNO_MARK);
            granary_free(granary_malloc(100));
            must(errno == ERRNO_MARK);
            return 0;
        }
    }
    return 1;
}

static void semantics_028_the_first_call_ever_keeps_errno(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(firsts); i++) {
        must_end_well(in_new_process("first", firsts[i].name, 20), firsts[i].name);
    }
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        must_end_well(in_new_process("first", calls[i].name, 20), calls[i].name);
    }
}

/* ---- S29: failure ---- */

enum { KEPT = 1 << 16 };

/* Calls until the system is asked and refuses: the caches run dry first. The failure must read ENOMEM. */
static void call_until_refused(const struct call *call, size_t size, int error) {
    static void *kept[KEPT];
    size_t count = 0;
    fault_arm(FAULT_ANY, 1, true, error);
    for (void *ptr; errno = 0, (ptr = call->alloc(size)) != NULL; kept[count++] = ptr) {
        must(count < KEPT);
    }
    must_be_refused(call->name, size, NULL);
    must(fault_disarm() > 0);
    while (count > 0) {
        granary_free(kept[--count]);
    }
    void *again = call->alloc(size);
    must(again != NULL);
    granary_free(again);
}

static void semantics_029_failure_reads_enomem_whatever_the_system_said(void **state) {
    (void)state;
    const int errors[] = {ENOMEM, EAGAIN, EPERM, EINVAL, EACCES};
    const size_t sizes[] = {3000, 40000, 500000, 5 * MIB, 50 * MIB};
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        for (size_t s = 0; s < COUNT_OF(sizes); s++) {
            call_until_refused(&calls[c], sizes[s], errors[(c + s) % COUNT_OF(errors)]);
        }
    }
}

int main(int argc, char **argv) {
    if (argc == 3) {
        return make_first_call(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_004_free_keeps_errno),
        cmocka_unit_test(semantics_004_free_keeps_errno_when_the_system_refuses),
        cmocka_unit_test(semantics_028_success_keeps_errno),
        cmocka_unit_test(semantics_028_the_first_call_ever_keeps_errno),
        cmocka_unit_test(semantics_029_failure_reads_enomem_whatever_the_system_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
