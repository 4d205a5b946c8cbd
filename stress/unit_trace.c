/* unit_trace.c -- os/trace.h and what it asks of os/os.h: chains of frames, whole, broken and forged, of which none may fault; what
 * happens to an access that faults once its report is written.
 */
/* test: hardened=off */
#include "test.h"

#include "os/os.h"
#include "os/trace.h"

struct frame {
    const void *caller, *back;
};

static void must_be(const void *frame, uint32_t depth) {
    struct trace t;
    gr_trace(frame, &t);
    assert_int_equal(t.thread, (uint32_t)getpid());
    assert_int_equal(t.depth, depth);
    for (uint32_t i = 0; i < depth; i++)
        assert_int_equal((uintptr_t)t.call[i], 1000 + i);
}

static void chain_is_followed_up_the_stack(void **state) {
    (void)state;
    struct frame f[5];
    for (size_t i = 0; i < COUNT_OF(f); i++)
        f[i] = (struct frame){i + 1 < COUNT_OF(f) ? &f[i + 1] : NULL, (void *)(1000 + i)};
    must_be(f, 5);
}

static void chain_ends_where_it_is_broken(void **state) {
    (void)state;
    struct frame f[TRACE_FRAMES + 3];
    const void *const ends[] = {NULL,
                                (void *)8,
                                (void *)UINTPTR_MAX,
                                (void *)(UINTPTR_MAX - 7),
                                (void *)((uintptr_t)1 << 63),
                                (char *)&f[4] + 1, /* no frame stands at an odd address */
                                &f[3],             /* itself */
                                &f[0],             /* down */
                                (void *)((uintptr_t)&f[3] + (64u << 20))};
    for (size_t i = 0; i < COUNT_OF(f); i++)
        f[i] = (struct frame){&f[i + 1], (void *)(1000 + i)};
    f[COUNT_OF(f) - 1].caller = NULL;
    must_be(f, TRACE_FRAMES); /* no more are kept */
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        f[3].caller = ends[i];
        must_be(f, 4);
        if (i < 6) {
            struct trace t;
            gr_trace_from(&t, ends[i], &t);
            assert_int_equal(t.depth, 1);
        }
    }
    f[2].back = NULL; /* the thread's first function has nowhere to return to */
    must_be(f, 2);
}

static void chain_ends_where_no_memory_is(void **state) {
    (void)state;
    size_t page = os_page_bytes();
    char *three = os_map(3 * page);
    assert_non_null(three);
    assert_int_equal(mprotect(three + 2 * page, page, PROT_NONE), 0);
    struct frame *last = (struct frame *)(three + 2 * page) - 1, *first = (struct frame *)three;
    *first = (struct frame){last, (void *)1000};
    *last = (struct frame){last + 1, (void *)1001};
    must_be(first, 2);
    struct frame *torn = (struct frame *)(three + 2 * page - 8); /* half of it can be read */
    torn->caller = NULL;
    must_be(torn, 0);
    last = (struct frame *)(three + page - 8); /* it lies in two pages, both of them there */
    *last = (struct frame){NULL, (void *)1001};
    first->caller = last;
    must_be(first, 2);
    assert_true(os_is_readable(three));
    assert_false(os_is_readable(three + 2 * page));
    assert_int_equal(munmap(three, 3 * page), 0);
    assert_false(os_is_readable(three));
    struct trace t;
    gr_trace_from(&t, first, &t);
    assert_int_equal(t.depth, 1);
}

static void *back;

__attribute__((noinline)) static void trace_here(struct trace *t) {
    back = __builtin_return_address(0);
    gr_trace(__builtin_frame_address(0), t);
}

static void first_call_is_the_one_that_is_made(void **state) {
    (void)state;
    struct trace t;
    trace_here(&t);
    assert_true(t.depth > 0);
    assert_ptr_equal(t.call[0], back);
    gr_trace_from((void *)1234, __builtin_frame_address(0), &t);
    assert_true(t.depth > 0);
    assert_ptr_equal(t.call[0], (void *)1234);
}

static int print(void *unused) {
    (void)unused;
    gr_trace_print("seen by", &(struct trace){.thread = 77, .depth = 2, .call = {(void *)0x10, (void *)0x20}});
    return 0;
}

static void trace_is_printed_a_line_a_call(void **state) {
    (void)state;
    struct ending ending = in_child(print, NULL, 20);
    assert_int_equal(ending.exit_code, 0);
    assert_string_equal(ending.text, "granary:   seen by thread 77\ngranary:     0x10\ngranary:     0x20\n");
}

/* ---- faults ---- */

static char *no_access;

static void say(const char *text) { must(write(2, text, strlen(text)) == (ssize_t)strlen(text)); }

static void hook(const struct os_fault *f) {
    must(f->at == no_access + 5);
    say("hook ");
    say(f->verb);
    say(" ");
}

static void leave(int number) {
    say(number == SIGSEGV ? "handler" : "?");
    _exit(7);
}

static void leave_with_info(int number, siginfo_t *info, void *context) {
    must(number == SIGSEGV && info->si_addr == no_access + 5 && context != NULL);
    say("handler with info");
    _exit(8);
}

enum { BY_DEFAULT, IGNORED, HANDLED, HANDLED_WITH_INFO, READ = 0, WRITE = 8, SENT = 16 };

static int fault(void *how) {
    unsigned way = (unsigned)(uintptr_t)how;
    struct sigaction action = {.sa_handler = SIG_DFL};
    if (way % 4 == IGNORED)
        action.sa_handler = SIG_IGN;
    if (way % 4 == HANDLED)
        action.sa_handler = leave;
    if (way % 4 == HANDLED_WITH_INFO) {
        action.sa_sigaction = leave_with_info;
        action.sa_flags = SA_SIGINFO;
    }
    must(sigaction(SIGSEGV, &action, NULL) == 0);
    no_access = mmap(NULL, os_page_bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    os_at_fault(hook);
    if (way & SENT)
        must(kill(getpid(), SIGSEGV) == 0);
    else if (way & WRITE)
        ((volatile char *)no_access)[5] = 1;
    else
        return ((volatile char *)no_access)[5];
    return 9;
}

static void fault_is_reported_and_then_as_it_was(void **state) {
    (void)state;
#if defined(__x86_64__)
    const char *const read = "hook read ", *const written = "hook write ";
#else
    const char *const read = "hook access ", *const written = read;
#endif
    static const struct {
        unsigned way;
        int signal, exit_code;
        const char *after;
    } cases[] = {
        {BY_DEFAULT | READ, SIGSEGV, -1, ""},
        {BY_DEFAULT | WRITE, SIGSEGV, -1, ""},
        {IGNORED | WRITE, SIGSEGV, -1, ""},
        {HANDLED | READ, 0, 7, "handler"},
        {HANDLED_WITH_INFO | WRITE, 0, 8, "handler with info"},
        {BY_DEFAULT | SENT, SIGSEGV, -1, ""},
        {IGNORED | SENT, 0, 9, ""},
        {HANDLED | SENT, 0, 7, "handler"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char want[80];
        snprintf(want, sizeof want, "%s%s",
                 cases[i].way & SENT    ? ""
                 : cases[i].way & WRITE ? written
                                        : read,
                 cases[i].after);
        struct ending ending = in_child(fault, (void *)(uintptr_t)cases[i].way, 20);
        assert_string_equal(ending.text, want);
        assert_int_equal(ending.signal, cases[i].signal);
        assert_int_equal(ending.exit_code, cases[i].exit_code);
    }
}

static int name_file(void *unused) {
    (void)unused;
    const char *file;
    uintptr_t inside;
    must(!os_file_of(opaque(&back), &file, &inside)); /* nothing was asked of the loader yet */
    os_at_fault(hook);
    union {
        int (*function)(void *);
        void *address;
    } here = {.function = name_file};
    if (!os_next_symbol("_dl_find_object"))
        return 0; /* before glibc 2.35 nobody can tell without a lock */
    must(os_file_of(here.address, &file, &inside) && !*file && inside && inside < (uintptr_t)here.address);
    must(os_file_of(os_next_symbol("getpid"), &file, &inside) && strstr(file, "libc"));
    must(!os_file_of(&file, &file, &inside));
    return 0;
}

static void code_is_of_a_file(void **state) {
    (void)state;
    must_end_well(in_child(name_file, NULL, 20), "name_file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_is_followed_up_the_stack),
        cmocka_unit_test(chain_ends_where_it_is_broken),
        cmocka_unit_test(chain_ends_where_no_memory_is),
        cmocka_unit_test(first_call_is_the_one_that_is_made),
        cmocka_unit_test(trace_is_printed_a_line_a_call),
        cmocka_unit_test(fault_is_reported_and_then_as_it_was),
        cmocka_unit_test(code_is_of_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
