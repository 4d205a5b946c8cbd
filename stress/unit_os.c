/* unit_os.c -- os/os.h, the port contract: what each call does, that it keeps errno, and what failure means. */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect */
#include "oom_fault.h"

#include "os/os.h"

enum { MARK = 4711 };

static void os_map_is_zero_and_page_aligned(void **state) {
    (void)state;
    errno = MARK;
    char *p = os_map(3 * MIB);
    assert_non_null(p);
    assert_true(is_aligned(p, os_page_bytes()));
    assert_true(all_bytes_are(p, 3 * MIB, 0));
    memset(p, 1, 3 * MIB);
    assert_true(os_unmap(p, 3 * MIB));
    assert_int_equal(errno, MARK);
}

static void os_map_at_takes_the_place_or_says_why_not(void **state) {
    (void)state;
    char *p = os_map(4 * MIB);
    assert_true(os_unmap(p, 4 * MIB));
    errno = MARK;
    assert_int_equal(os_map_at(p, 4 * MIB), OS_OK);
    memset(p, 7, 4 * MIB);
    assert_int_equal(os_map_at(p + MIB, MIB), OS_TAKEN);
    assert_int_equal(os_map_at(p + 3 * MIB, 2 * MIB), OS_TAKEN); /* only its first half is taken */
    assert_true(all_bytes_are(p, 4 * MIB, 7));
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    assert_int_equal(os_map_at(p + 4 * MIB, MIB), OS_NO_MEMORY);
    assert_null(os_map(MIB));
    fault_disarm();
    assert_int_equal(errno, MARK);
    assert_true(os_unmap(p, 4 * MIB));
}

static void os_purge_reads_as_zero_and_costs_nothing(void **state) {
    (void)state;
    char *p = os_map(8 * MIB);
    memset(p, 1, 8 * MIB);
    size_t rss = rss_bytes();
    errno = MARK;
    assert_true(os_purge(p + MIB, 6 * MIB));
    assert_true(rss_bytes() + 5 * MIB <= rss);
    assert_true(all_bytes_are(p, MIB, 1));
    assert_true(all_bytes_are(p + MIB, 6 * MIB, 0));
    assert_true(all_bytes_are(p + 7 * MIB, MIB, 1));
    fault_arm(FAULT_MADVISE, 1, true, EINVAL);
    assert_false(os_purge(p + 7 * MIB, MIB));
    fault_disarm();
    assert_true(all_bytes_are(p + 7 * MIB, MIB, 1));
    assert_int_equal(errno, MARK);
    os_unmap(p, 8 * MIB);
}

static void os_residence_of_touched_and_untouched_pages(void **state) {
    (void)state;
    enum { PAGES = 64 };
    uint8_t there[PAGES + 1];
    size_t page = os_page_bytes();
    char *p = os_map(PAGES * page);
    must(madvise(p, PAGES * page, MADV_NOHUGEPAGE) == 0);
    for (size_t i = 0; i < PAGES; i += 3)
        p[i * page] = 1;
    memset(there, 0xff, sizeof there);
    errno = MARK;
    assert_true(os_residence(p, PAGES * page, there));
    for (size_t i = 0; i < PAGES; i++)
        assert_int_equal(there[i], i % 3 == 0);
    assert_int_equal(there[PAGES], 0xff);
    assert_true(os_purge(p, PAGES * page));
    assert_true(os_residence(p, page, there));
    assert_int_equal(there[0], 0);
    assert_true(os_unmap(p, PAGES * page));
    assert_false(os_residence(p, PAGES * page, there));
    assert_int_equal(errno, MARK);
}

static void os_unmap_refused_leaves_the_pages_purged(void **state) {
    (void)state;
    char *p = os_map(MIB);
    memset(p, 1, MIB);
    errno = MARK;
    fault_arm(FAULT_MUNMAP, 1, true, ENOMEM);
    assert_false(os_unmap(p, MIB));
    fault_disarm();
    assert_int_equal(errno, MARK);
    assert_true(all_bytes_are(p, MIB, 0));
    assert_true(os_unmap(p, MIB));
}

static void os_resize_stays_in_place_or_does_nothing(void **state) {
    (void)state;
    char *p = os_map(8 * MIB);
    os_unmap(p + 4 * MIB, 4 * MIB);
    memset(p, 1, 4 * MIB);
    errno = MARK;
    assert_true(os_resize(p, 4 * MIB, 6 * MIB));
    assert_true(all_bytes_are(p, 4 * MIB, 1));
    assert_true(all_bytes_are(p + 4 * MIB, 2 * MIB, 0));
    assert_true(os_resize(p, 6 * MIB, MIB));
    assert_int_equal(os_map_at(p + MIB, MIB), OS_OK); /* what a shrink leaves is free */
    assert_false(os_resize(p, MIB, 2 * MIB));
    assert_true(all_bytes_are(p, MIB, 1));
    assert_true(all_bytes_are(p + MIB, MIB, 0));
    assert_int_equal(errno, MARK);
    os_unmap(p, 2 * MIB);
}

static void os_move_replaces_the_target(void **state) {
    (void)state;
    char *p = os_map(2 * MIB), *over = os_map(4 * MIB);
    memset(p, 1, 2 * MIB);
    memset(over, 2, 4 * MIB);
    errno = MARK;
    fault_arm(FAULT_MREMAP, 1, true, ENOMEM);
    assert_false(os_move(p, 2 * MIB, over, 4 * MIB));
    fault_disarm();
    assert_true(all_bytes_are(p, 2 * MIB, 1) && all_bytes_are(over, 4 * MIB, 2));
    assert_true(os_move(p, 2 * MIB, over, 4 * MIB));
    assert_true(all_bytes_are(over, 2 * MIB, 1));
    assert_true(all_bytes_are(over + 2 * MIB, 2 * MIB, 0));
    assert_int_equal(os_map_at(p, 2 * MIB), OS_OK);
    assert_int_equal(errno, MARK);
    os_unmap(p, 2 * MIB);
    os_unmap(over, 4 * MIB);
}

static void os_clocks_go_forward(void **state) {
    (void)state;
    errno = MARK;
    uint64_t from = os_clock_ms(), from_us = os_clock_us();
    usleep(50000);
    uint64_t to = os_clock_ms(), to_us = os_clock_us();
    assert_true(to - from >= 30 && to - from < 20000);
    assert_true(to_us - from_us >= 50000 && to_us - from_us < 20000000);
    assert_int_equal(errno, MARK);
}

static void os_random_differs_in_each_process(void **state) {
    (void)state;
    struct ending a = in_new_process("--random", "", 20), b = in_new_process("--random", "", 20);
    assert_int_equal(a.exit_code, 0);
    assert_string_not_equal(a.text, b.text);
}

/* ---- a thread's end ---- */

static _Atomic int hook_calls;

static void hook(void *arg) {
    hook_calls++;
    uintptr_t rounds = (uintptr_t)arg;
    if (rounds > 1)
        must(os_at_thread_exit(hook, (void *)(rounds - 1)));
}

static void *end_with_hook(void *rounds) {
    errno = MARK;
    must(os_at_thread_exit(hook, rounds));
    must(errno == MARK);
    return NULL;
}

static void os_thread_exit_hook_runs_once_a_round(void **state) {
    (void)state;
    for (uintptr_t rounds = 1; rounds <= 3; rounds++) {
        hook_calls = 0;
        in_thread(end_with_hook, (void *)rounds);
        assert_int_equal(hook_calls, rounds);
    }
}

/* In a frame of its own, below that of setjmp. */
static __attribute__((noinline)) void stretch_around(jmp_buf *out, bool ends) {
    struct os_stretch stretch, inner;
    must(os_stretch_begin(&stretch));
    must(!os_stretch_begin(&inner));
    os_stretch_end(&inner);
    if (out)
        longjmp(*out, 1);
    if (ends)
        pthread_exit(NULL);
    os_stretch_end(&stretch);
}

static void no_stretch(void *unused) {
    (void)unused;
    stretch_around(NULL, false);
}

static void *end_in_a_stretch(void *unused) {
    static pthread_key_t key;
    (void)unused;
    must(pthread_key_create(&key, no_stretch) == 0 && pthread_setspecific(key, &key) == 0);
    pthread_cleanup_push(no_stretch, NULL); /* a call of the program's, outside */
    stretch_around(NULL, true);
    pthread_cleanup_pop(0);
    return NULL;
}

static void os_stretch_ends_with_it_by_longjmp_or_with_the_thread(void **state) {
    (void)state;
    static volatile int times;
    jmp_buf out;
    errno = MARK;
    stretch_around(NULL, false);
    setjmp(out);
    if (times++ < 3)
        stretch_around(&out, false);
    stretch_around(NULL, false);
    in_thread(end_in_a_stretch, NULL);
    stretch_around(NULL, false);
    assert_int_equal(errno, MARK);
}

static void os_write_writes_all(void **state) {
    (void)state;
    int ends[2];
    char text[16] = "";
    must(pipe(ends) == 0);
    errno = MARK;
    os_write(ends[1], "hello", 5);
    os_write(-1, "nobody", 6); /* a refusal is no loop */
    assert_int_equal(errno, MARK);
    assert_int_equal(read(ends[0], text, sizeof text), 5);
    assert_string_equal(text, "hello");
    close(ends[0]);
    close(ends[1]);
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "--random")) {
        fprintf(stderr, "%" PRIx64, os_random());
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(os_map_is_zero_and_page_aligned),
        cmocka_unit_test(os_map_at_takes_the_place_or_says_why_not),
        cmocka_unit_test(os_purge_reads_as_zero_and_costs_nothing),
        cmocka_unit_test(os_residence_of_touched_and_untouched_pages),
        cmocka_unit_test(os_unmap_refused_leaves_the_pages_purged),
        cmocka_unit_test(os_resize_stays_in_place_or_does_nothing),
        cmocka_unit_test(os_move_replaces_the_target),
        cmocka_unit_test(os_clocks_go_forward),
        cmocka_unit_test(os_random_differs_in_each_process),
        cmocka_unit_test(os_thread_exit_hook_runs_once_a_round),
        cmocka_unit_test(os_stretch_ends_with_it_by_longjmp_or_with_the_thread),
        cmocka_unit_test(os_write_writes_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
