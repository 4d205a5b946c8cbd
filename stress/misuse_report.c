/* misuse_report.c -- the report itself: a handler of SIGABRT may allocate, print a backtrace, or leave; other threads
 * may be in the middle of malloc. One line each time, and never a hang.
 *
 * covers: S117 S118 C15 C16
 */
#include "misuse_run.h"

#include <execinfo.h>

static sigjmp_buf way_out;

static void allocate_much(void) {
    static const size_t sizes[] = {16, 100, 4000, 70000, 300000, 80 * MIB};
    for (size_t i = 0; i < 6000; i++) {
        size_t size = sizes[i % 600 ? i % 3 : i / 600 % COUNT_OF(sizes)];
        void *ptr = granary_malloc(size);
        void *second = granary_calloc(1, size);
        must(ptr != NULL && second != NULL);
        granary_free(ptr);
        granary_free(granary_realloc(second, size + 100));
    }
    granary_trim();
}

static void handler_that_allocates(int number) {
    (void)number;
    allocate_much();
}

static void handler_with_backtrace(int number) {
    (void)number;
    void *frames[32];
    must(backtrace(frames, (int)COUNT_OF(frames)) > 0);
    granary_free(granary_malloc(1000));
}

static void handler_that_leaves(int number) {
    (void)number;
    siglongjmp(way_out, 1);
}

static int free_foreign(void) {
    char array[64];
    free_hidden(array);
    return UNNOTICED;
}

static int free_twice(void) {
    void *ptr = block_of(64);
    granary_free(ptr);
    free_hidden(ptr);
    return settled();
}

static int free_twice_late(void) {
    void *ptr = block_of(1000);
    void *other = block_of(1000);
    granary_free(ptr);
    granary_free(other);
    free_hidden(ptr);
    return settled();
}

static int (*const offences[])(void) = {free_foreign, free_twice, free_twice_late};

static int report_to_a_handler_that_allocates(size_t which) {
    signal(SIGABRT, handler_that_allocates);
    return offences[which]();
}

static int report_to_a_handler_with_backtrace(size_t which) {
    signal(SIGABRT, handler_with_backtrace);
    return offences[which]();
}

/* The program goes on behind the library's back; the heap must still serve. */
static int report_to_a_handler_that_leaves(size_t which) {
    signal(SIGABRT, handler_that_leaves);
    if (sigsetjmp(way_out, 1) == 0) {
        offences[which]();
        return UNNOTICED;
    }
    allocate_much();
    signal(SIGABRT, SIG_DFL);
    abort();
}

static void *churn_for_ever(void *unused) {
    for (;;) {
        allocate_much();
    }
    return unused;
}

static int report_beside_busy_threads(size_t which) {
    pthread_t thread;
    for (int i = 0; i < 4; i++) {
        must(pthread_create(&thread, NULL, churn_for_ever, NULL) == 0);
    }
    usleep(20 * 1000);
    return report_to_a_handler_that_allocates(which);
}

static int report_with_stderr_closed(size_t which) {
    close(2);
    return offences[which]();
}

static const struct crime crimes[] = {
    {"117_handler_allocates_foreign", report_to_a_handler_that_allocates, 0},
    {"117_handler_allocates_twice", report_to_a_handler_that_allocates, 1},
    {"117_handler_allocates_twice_late", report_to_a_handler_that_allocates, 2},
    {"117_handler_with_backtrace_foreign", report_to_a_handler_with_backtrace, 0},
    {"117_handler_with_backtrace_twice_late", report_to_a_handler_with_backtrace, 2},
    {"117_handler_leaves_foreign", report_to_a_handler_that_leaves, 0},
    {"117_handler_leaves_twice", report_to_a_handler_that_leaves, 1},
    {"117_handler_leaves_twice_late", report_to_a_handler_that_leaves, 2},
    {"117_beside_busy_threads_foreign", report_beside_busy_threads, 0},
    {"117_beside_busy_threads_twice_late", report_beside_busy_threads, 2},
    {"117_with_stderr_closed", report_with_stderr_closed, 1},
};

int main(int argc, char **argv) { return run_crimes(crimes, COUNT_OF(crimes), argc, argv, NULL, 0); }
