/* misuse_guards.c -- what sampled guards make of each crime, in a process whose every miss is given a guarded block: the first line of
 * the report is that of the table, the lines behind it name the functions that did it. What the plain build finds late or never
 * ends at the crime.
 *
 * covers: S134 S118 C16
 */
/* test: env="GRANARY_GUARDS=1" hardened=off sanitize=off */
#include "misuse_run.h"

enum { PAGE = 4096, AT_START = 0, AT_END = 1 };

/* Is a block of 1000 bytes guarded, at this end of its page? Another could be used to 1024. */
static bool is_guarded_at(const char *ptr, int end) {
    return granary_malloc_usable_size(ptr) == 1000 && ((uintptr_t)ptr % PAGE != 0) == end;
}

static char *guarded_at(int end) {
    char *ptr;
    do {
        ptr = block_of(1000);
    } while (!is_guarded_at(ptr, end));
    return ptr;
}

static char *guarded(void) { return guarded_at(AT_END); }

static void write_at(char *ptr, ptrdiff_t offset) { ((volatile char *)opaque(ptr))[offset] = 1; }

static int read_at(char *ptr, ptrdiff_t offset) { return ((volatile char *)opaque(ptr))[offset]; }

__attribute__((noinline)) static char *who_allocates(void) {
    char *ptr;
    do {
        ptr = granary_malloc(1000);
    } while (!is_guarded_at(ptr, AT_END));
    return ptr;
}

__attribute__((noinline)) static void who_frees(char *ptr) {
    granary_free(ptr);
    opaque(ptr);
}

__attribute__((noinline)) static int who_reads(char *ptr) { return read_at(ptr, 5) + 1; }

static int twice(size_t size) {
    char *ptr = guarded();
    granary_free(ptr);
    for (size_t i = 0; i < size; i++) {
        granary_free(block_of(1000));
    }
    free_hidden(ptr);
    return UNNOTICED;
}

static void *free_there(void *ptr) {
    granary_free(ptr);
    return NULL;
}

static int twice_in_two_threads(size_t size) {
    (void)size;
    char *ptr = guarded();
    in_thread(free_there, ptr);
    in_thread(free_there, ptr);
    return UNNOTICED;
}

static int twice_by_realloc(size_t size) {
    char *ptr = guarded();
    must(opaque(granary_realloc(ptr, size)) != NULL);
    free_hidden(ptr);
    return UNNOTICED;
}

static int free_inside(size_t size) {
    free_hidden(guarded() + size);
    return UNNOTICED;
}

static int free_inside_freed(size_t size) {
    char *ptr = guarded();
    granary_free(ptr);
    free_hidden(ptr + size);
    return UNNOTICED;
}

static int free_guard(size_t size) {
    free_hidden(guarded_at(AT_START) + size);
    return UNNOTICED;
}

static int wrong_size(size_t size) {
    granary_free_sized(guarded(), size);
    return UNNOTICED;
}

static int usable_size_of_freed(size_t size) {
    (void)size;
    char *ptr = guarded();
    granary_free(ptr);
    return granary_malloc_usable_size(opaque(ptr)) ? UNNOTICED : HARMLESS;
}

static int use_freed(size_t size) {
    char *ptr = who_allocates();
    who_frees(ptr);
    if (size == 1) {
        return who_reads(ptr);
    }
    write_at(ptr, (ptrdiff_t)size);
    return UNNOTICED;
}

static int overflow_at_end(size_t size) {
    write_at(guarded_at(AT_END), (ptrdiff_t)size);
    return UNNOTICED;
}

static int overread_at_start(size_t size) { return read_at(guarded_at(AT_START), (ptrdiff_t)size); }

static int underflow_at_start(size_t size) {
    write_at(guarded_at(AT_START), -(ptrdiff_t)size);
    return UNNOTICED;
}

static int found_when_freed(size_t size) {
    char *ptr = guarded_at(size == 1000 ? AT_END : AT_START);
    write_at(ptr, (ptrdiff_t)size);
    free_hidden(ptr);
    return UNNOTICED;
}

static int found_by_realloc(size_t size) {
    char *ptr = guarded_at(AT_END);
    write_at(ptr, -(ptrdiff_t)size);
    return granary_realloc(opaque(ptr), 5000) != NULL ? UNNOTICED : HARMLESS;
}

/* Where the program has no room for much: a handler on the least stack that a program may give to one. */
static char *freed;

static void use_in_handler(int number) { exit(number + who_reads(freed)); }

static int use_on_a_small_stack(size_t size) {
    static char stack[2 * 4096]; /* MINSIGSTKSZ, and the frame that the processor's widest registers take */
    must(size <= sizeof stack);
    freed = who_allocates();
    who_frees(freed);
    stack_t there = {.ss_sp = stack, .ss_size = size};
    must(sigaltstack(&there, NULL) == 0);
    struct sigaction action = {.sa_handler = use_in_handler, .sa_flags = SA_ONSTACK};
    must(sigaction(SIGUSR1, &action, NULL) == 0 && raise(SIGUSR1) == 0);
    return UNNOTICED;
}

static int use_in_forked_child(size_t size) {
    char *ptr = who_allocates();
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        who_frees(ptr);
        return who_reads(ptr);
    }
    int status = 0;
    must(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    pattern_fill(ptr, 1000, size); /* ours is untouched */
    must(pattern_holds(ptr, 1000, size));
    granary_free(ptr);
    return HARMLESS;
}

static void *use_for_ever(void *unused) {
    for (;;) {
        granary_free(granary_realloc(granary_malloc(100), 3000));
    }
    return unused;
}

static int use_beside_busy_threads(size_t size) {
    pthread_t thread;
    for (size_t i = 0; i < size; i++) {
        must(pthread_create(&thread, NULL, use_for_ever, NULL) == 0);
    }
    return use_freed(1);
}

static const struct crime crimes[] = {
    {"134_twice_at_once", twice, 0},
    {"134_twice_later", twice, 200},
    {"134_twice_in_two_threads", twice_in_two_threads, 0},
    {"134_twice_by_realloc", twice_by_realloc, 1010},
    {"134_free_inside", free_inside, 8},
    {"134_free_inside_freed", free_inside_freed, 8},
    {"134_free_guard", free_guard, PAGE},
    {"134_wrong_size", wrong_size, 100},
    {"134_usable_size_of_freed", usable_size_of_freed, 0},
    {"134_read_freed", use_freed, 1},
    {"134_write_freed", use_freed, 999},
    {"134_overflow_at_end", overflow_at_end, 1008},
    {"134_overflow_at_end_far", overflow_at_end, 1008 + PAGE - 1},
    {"134_overread_at_start", overread_at_start, PAGE},
    {"134_underflow_at_start", underflow_at_start, 1},
    {"134_overflow_by_1_found_when_freed", found_when_freed, 1000},
    {"134_overflow_by_8_found_when_freed", found_when_freed, 1007},
    {"134_underflow_found_by_realloc", found_by_realloc, 16},
    {"134_on_a_small_stack", use_on_a_small_stack, 8192},
    {"134_in_a_forked_child", use_in_forked_child, 1},
    {"134_beside_busy_threads", use_beside_busy_threads, 3},
};

/* ---- the traces ---- */

static int read_freed(void *unused) {
    (void)unused;
    union {
        int (*function)(char *);
        void *address;
    } reads = {.function = who_reads};
    union {
        void (*function)(char *);
        void *address;
    } frees = {.function = who_frees};
    union {
        char *(*function)(void);
        void *address;
    } allocates = {.function = who_allocates};
    fprintf(stderr, "%p %p %p\n", reads.address, frees.address, allocates.address);
    return use_freed(1);
}

/* The first call, of those between a heading and the next, that lies in the function at `from`: NULL if none does. */
static const char *call_in(const char *heading, uintptr_t from) {
    enum { LONGEST = 512 };
    assert_non_null(heading);
    for (const char *line = strchr(heading, '\n'); line && strncmp(line + 1, "granary:     0x", 15) == 0;
         line = strchr(line + 1, '\n')) {
        uintptr_t at = (uintptr_t)strtoull(line + 14, NULL, 16);
        if (at >= from && at < from + LONGEST)
            return line;
    }
    return NULL;
}

static void report_names_who_did_it(void **state) {
    (void)state;
    struct ending ending = in_new_process("commit", "traces", 30);
    char *text = ending.text;
    uintptr_t reads = (uintptr_t)strtoull(text, &text, 16), frees = (uintptr_t)strtoull(text, &text, 16),
              allocates = (uintptr_t)strtoull(text, &text, 16);
    assert_int_equal(ending.signal, SIGSEGV);
    const char *by = strstr(text, "granary:   by thread "), *freed_by = strstr(text, "granary:   freed by thread "),
               *allocated_by = strstr(text, "granary:   allocated by thread ");
    assert_non_null(call_in(by, reads));
    assert_non_null(call_in(freed_by, frees));
    assert_non_null(call_in(allocated_by, allocates));
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[2], "traces") == 0)
        return read_freed(NULL);
    const struct CMUnitTest extra[] = {cmocka_unit_test(report_names_who_did_it)};
    return run_crimes(crimes, COUNT_OF(crimes), argc, argv, extra, COUNT_OF(extra));
}
