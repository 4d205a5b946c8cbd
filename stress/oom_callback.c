/* oom_callback.c -- granary_set_oom_callback: each request that cannot be met asks once, whichever call made it; what the callback
 * frees serves it; the callback may allocate, jump out, end its thread, fork; and what is no lack of memory asks nobody.
 *
 * covers: S136 S99 C13 C15
 */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect,pthread_create timeout=120 */
#include "oom_fault.h"

#include "loot.h"

#include "cache/thread.h"
#define option library_option /* <getopt.h> has one, too */
#include "os/options.h"
#include "page/limit.h"

static const size_t sizes[] = {70 * MIB, 20 * MIB, 300000, 5000, 100, 16};

static struct {
    unsigned asked;
    size_t size; /* that was wanted last */
    void *reserve;
    struct loot *haul;
} desk;

static int refuse(size_t size, void *context) {
    must(context == &desk);
    desk.asked++;
    desk.size = size;
    errno = 0; /* nobody sees this */
    return 0;
}

static int give_reserve(size_t size, void *context) {
    bool had = desk.reserve != NULL;
    refuse(size, context);
    granary_free(desk.reserve);
    desk.reserve = NULL;
    return had;
}

static const struct granary_oom_callback refusing = {refuse, &desk}, giving = {give_reserve, &desk};

/* Nothing goes back by time alone. */
static void start(const char *options) {
    gr_options_parse("purge_ms:25000,housekeeping:0,limit_soft:never", "start: ");
    gr_options_parse(options, "start: ");
    gr_limit_start();
}

/* Until there is no block of `size`, nor anything larger. */
static void fill(size_t size) {
    const size_t steps[] = {4 * MIB, 300000, 66000, size};
    const struct granary_oom_callback *before = granary_set_oom_callback(NULL);
    for (size_t i = 0; i < COUNT_OF(steps); i++)
        for (struct loot *loot; (loot = granary_malloc(steps[i])); desk.haul = loot)
            *loot = (struct loot){desk.haul, steps[i]};
    granary_set_oom_callback(before);
    desk.asked = 0;
    errno = ERRNO_MARK;
}

static void give_all(void) {
    for (struct loot *loot = desk.haul, *next; loot; loot = next) {
        next = loot->next;
        granary_free(loot);
    }
    desk.haul = NULL;
}

static void must_be_silent(int (*body)(void *), const char *what) {
    struct ending ending = in_child(body, NULL, 100);
    must_end_well(ending, what);
    assert_string_equal(ending.text, "");
}

/* ---- who asks, and how often ---- */

static int once_each(void *unused) {
    (void)unused;
    start("limit_hard:64M");
    granary_set_oom_callback(&refusing);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        loot_take(&desk.haul, sizes[i]);
        for (size_t c = 0; c < COUNT_OF(calls); c++) {
            desk.asked = 0;
            errno = 0;
            must_be_refused(calls[c].name, sizes[i], calls[c].alloc(sizes[i]));
            must(desk.asked == 1 && desk.size >= sizes[i] && desk.size < sizes[i] + sizes[i] / 8 + 3 * 4096);
        }
    }
    must(granary_set_oom_callback(NULL) == &refusing);
    desk.asked = 0;
    must(granary_malloc(100) == NULL && desk.asked == 0);
    return 0;
}

static void each_refused_request_asks_once(void **state) {
    (void)state;
    must_be_silent(once_each, "once");
}

static int not_for_errors(void *unused) {
    (void)unused;
    start("limit_hard:64M,oom:abort");
    granary_set_oom_callback(&refusing);
    const size_t most = opaque_size(PTRDIFF_MAX), half = opaque_size(SIZE_MAX / 2);
    void *p = granary_malloc(1000), *out = NULL;
    for (size_t c = 0; c < COUNT_OF(calls); c++)
        must_be_refused(calls[c].name, most + 1, calls[c].alloc(most + 1));
    must(granary_calloc(half, 4) == NULL && granary_reallocarray(p, half, 4) == NULL);
    must(granary_reallocarr(&p, half, 4) == EOVERFLOW && granary_realloc(p, most + 1) == NULL);
    must(granary_aligned_alloc(opaque_size(48), 100) == NULL && granary_posix_memalign(&out, 24, 100) == EINVAL);
    must(granary_memalign(most, 100) == NULL && granary_memalign(most + 1, 100) == NULL);
    must(granary_pvalloc(most + 1) == NULL && granary_valloc(most + 1) == NULL);
    granary_free(NULL);
    granary_free(p);
    must(desk.asked == 0);
    return 0;
}

static void what_is_no_lack_of_memory_asks_nobody(void **state) {
    (void)state;
    must_be_silent(not_for_errors, "errors");
}

static int not_in_a_slow_path(void *unused) {
    (void)unused;
    start("limit_hard:64M");
    granary_set_oom_callback(&refusing);
    fill(100);
    slow_enter(); /* as if a handler interrupted it here */
    must(granary_malloc(100) == NULL && granary_malloc(MIB) == NULL && desk.asked == 0);
    slow_leave();
    must(granary_malloc(100) == NULL && desk.asked == 1);
    return 0;
}

static void a_handler_that_interrupts_a_slow_path_does_not_ask(void **state) {
    (void)state;
    must_be_silent(not_in_a_slow_path, "slow path");
}

/* The keeper's start, which libc may call malloc for: nobody of the program's has asked for anything. */
static atomic_uint threads_started;
static bool keeper_starts;
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg) {
    if (keeper_starts) {
        must(granary_malloc(70 * MIB) == NULL && granary_malloc(100000) == NULL);
        atomic_fetch_add(&threads_started, 1);
    }
    return __real_pthread_create(thread, attr, body, arg);
}

static int keeper_without_memory(void *unused) {
    (void)unused;
    keeper_starts = true;
    start("limit_hard:64M,oom:abort,housekeeping:1");
    granary_set_oom_callback(&refusing);
    granary_free(granary_malloc(100)); /* who starts it has a cache */
    void *p = granary_malloc(64 * MIB - 256 * KIB);
    must(p != NULL && desk.asked == 0 && atomic_load(&threads_started) == 1);
    return 0;
}

static void the_keepers_start_asks_nobody(void **state) {
    (void)state;
    must_be_silent(keeper_without_memory, "keeper");
}

/* ---- what it frees serves the request ---- */

static int reserve_serves(void *unused) {
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        bool huge = sizes[i] > 64 * MIB;
        start(huge ? "limit_hard:256M" : "limit_hard:64M");
        for (size_t c = 0; c < COUNT_OF(calls); c++) {
            desk.reserve = granary_malloc(huge ? 80 * MIB : 24 * MIB);
            must(desk.reserve != NULL);
            granary_set_oom_callback(&giving);
            fill(sizes[i]);
            while (desk.asked == 0) { /* another class may have had a block left */
                struct loot *loot = calls[c].alloc(sizes[i]);
                must(loot != NULL && errno == ERRNO_MARK);
                must(!calls[c].zeroed || (loot->next == NULL && loot->size == 0));
                *loot = (struct loot){desk.haul, sizes[i]};
                desk.haul = loot;
            }
            must(desk.asked == 1 && desk.reserve == NULL);
            give_all();
        }
    }
    return 0;
}

static void what_it_frees_serves_every_call(void **state) {
    (void)state;
    must_be_silent(reserve_serves, "reserve");
}

static int realloc_grows(void *unused) {
    (void)unused;
    start("limit_hard:64M");
    granary_set_oom_callback(&giving);
    char *p = granary_malloc(40 * MIB);
    desk.reserve = granary_malloc(16 * MIB);
    must(p != NULL && desk.reserve != NULL);
    p[0] = p[40 * MIB - 1] = 7;
    fill(MIB);
    char *q = granary_realloc(p, 52 * MIB); /* there is no memory for both: it grows in place, or its pages move */
    must(q != NULL && desk.asked == 1 && errno == ERRNO_MARK && q[0] == 7 && q[40 * MIB - 1] == 7);
    granary_free(q);
    give_all();
    p = granary_malloc(200);
    memset(p, 5, 200);
    desk.reserve = granary_malloc(MIB);
    fill(5000);
    p = granary_realloc(p, 5000); /* by a copy */
    must(p != NULL && desk.asked == 1 && errno == ERRNO_MARK && all_bytes_are(p, 200, 5));
    fill(300000);
    must(granary_realloc(p, 5 * MIB) == NULL && errno == ENOMEM && desk.asked == 1 && all_bytes_are(p, 200, 5));
    return 0;
}

static void realloc_grows_where_it_can_then(void **state) {
    (void)state;
    must_be_silent(realloc_grows, "realloc");
}

/* It says so a hundred times in the same frame, and then does something for it. */
static int insists(size_t size, void *context) {
    static char *volatile frame;
    char here;
    frame = desk.asked ? frame : opaque(&here);
    must(frame == opaque(&here));
    refuse(size, context);
    return desk.asked <= 100 || give_reserve(size, context);
}

static int asked_a_hundred_times(void *unused) {
    (void)unused;
    static const struct granary_oom_callback insisting = {insists, &desk};
    start("limit_hard:64M");
    for (size_t i = 1; i < COUNT_OF(sizes); i++) {
        desk.reserve = granary_malloc(24 * MIB);
        void *p = sizes[i] > 10 * KIB ? granary_malloc(i == 1 ? MIB : 10 * KIB) : NULL;
        granary_set_oom_callback(&insisting);
        fill(sizes[i]);
        p = granary_realloc(p, sizes[i]);
        must(p != NULL && desk.asked == 102 && errno == ERRNO_MARK);
        granary_free(p);
        give_all();
    }
    return 0;
}

static void it_is_asked_as_often_as_it_says(void **state) {
    (void)state;
    must_be_silent(asked_a_hundred_times, "again");
}

static int realloc_shrinks(void *unused) {
    (void)unused;
    start("limit_hard:64M,oom:abort");
    char *p = granary_malloc(100000);
    must(p != NULL);
    memset(p, 3, 100000);
    gr_options_parse("oom:null", "shrinks: ");
    granary_set_oom_callback(&refusing);
    fill(40);
    gr_options_parse("oom:abort", "shrinks: ");
    must(granary_realloc(p, 40) == p && errno == ERRNO_MARK && desk.asked == 0 && all_bytes_are(p, 40, 3));
    return 0;
}

static void realloc_to_less_asks_nobody(void **state) {
    (void)state;
    must_be_silent(realloc_shrinks, "realloc to less");
}

/* Not even a record for the thread's cache can be had. */
static int heals_the_system(size_t size, void *context) {
    refuse(size, context);
    errno = 0;
    must(granary_malloc(size) == NULL && errno == ENOMEM && desk.asked == 1);
    must(fault_disarm() > 0);
    return 1;
}

static int first_call(void *unused) {
    (void)unused;
    static const struct granary_oom_callback healing = {heals_the_system, &desk};
    granary_set_oom_callback(&healing);
    fault_arm(FAULT_ANY, 1, true, ENOMEM);
    errno = ERRNO_MARK;
    void *p = granary_malloc(100);
    must(p != NULL && errno == ERRNO_MARK && desk.asked == 1);
    return 0;
}

static void a_threads_first_call_asks(void **state) {
    (void)state;
    must_be_silent(first_call, "first call");
}

/* ---- what it may do ---- */

static int does_much(size_t size, void *context) {
    refuse(size, context);
    must(!gr_inside);
    unsigned asked = desk.asked;
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (size_t c = 0; c < COUNT_OF(calls); c++) {
            errno = 0;
            must_be_refused(calls[c].name, sizes[i], calls[c].alloc(sizes[i]));
        }
    must(granary_set_oom_callback(NULL) != NULL);
    must(granary_malloc(MIB) == NULL);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        must(granary_malloc(MIB) == NULL);
        give_all();
        granary_trim();
        _exit(granary_malloc(MIB) ? 0 : 1);
    }
    int status;
    must(waitpid(child, &status, 0) == child && status == 0);
    struct granary_stats stats;
    granary_get_stats(&stats);
    granary_trim();
    must(desk.asked == asked); /* within it, nobody */
    granary_free(desk.reserve);
    void *p = granary_malloc(100);
    must(p != NULL);
    granary_free(p);
    return option_get(OPTION_OOM) == OOM_NULL;
}

static const struct granary_oom_callback doing_much = {does_much, &desk};

static int much_within(void *options) {
    start(options);
    desk.reserve = granary_malloc(GRANARY_HARDENED ? MIB : 100); /* which holds small ones back */
    granary_set_oom_callback(&doing_much);
    fill(100);
    must(granary_malloc(100) != NULL && errno == ERRNO_MARK && desk.asked == 1);
    return 0;
}

static void it_may_allocate_fork_and_trim(void **state) {
    (void)state;
    struct ending ending = in_child(much_within, "limit_hard:64M", 60);
    must_end_well(ending, "within");
    ending = in_child(much_within, "limit_hard:64M,oom:abort", 60);
    assert_int_equal(ending.signal, SIGABRT); /* when it has said no, and not at its own requests */
    assert_non_null(strstr(ending.text, "granary: FATAL out of memory: "));
}

static jmp_buf out;
static sigjmp_buf signal_out;
static unsigned turn;
static int jumps(size_t size, void *context) {
    refuse(size, context);
    must(granary_malloc(size) == NULL);
    if (turn % 3 == 0)
        longjmp(out, 1);
    if (turn % 3 == 1)
        siglongjmp(signal_out, 1);
    return 0;
}

static const struct granary_oom_callback jumping = {jumps, &desk};

/* From so deep a frame; where the last one was may lie below it or above. */
static __attribute__((noinline)) void *from_below(unsigned depth, size_t size) {
    char pad[200]; /* what was there stays there */
    void *p = depth ? from_below(depth - 1, size) : granary_malloc(size);
    opaque(pad);
    return p;
}

static void ask_and_jump(unsigned depth, size_t size) {
    desk.asked = 0;
    if (!setjmp(out) && !sigsetjmp(signal_out, 1))
        must(from_below(depth, size) == NULL && turn % 3 == 2);
    must(desk.asked == 1 && !gr_inside);
}

static int jumps_out(void *unused) {
    (void)unused;
    start("limit_hard:64M");
    granary_set_oom_callback(&jumping);
    fill(100);
    struct granary_stats before, after;
    granary_get_stats(&before);
    for (turn = 0; turn < 300; turn++)
        ask_and_jump(turn * 37 % 100, turn % 2 ? 100 : 3 * MIB);
    granary_get_stats(&after);
    must(after.used_bytes == before.used_bytes);
    give_all();
    granary_set_oom_callback(&refusing);
    fill(100);
    granary_get_stats(&after);
    must(after.used_bytes >= before.used_bytes - before.used_bytes / 20);
    return 0;
}

static void it_may_jump_out_from_any_depth(void **state) {
    (void)state;
    must_be_silent(jumps_out, "longjmp");
}

/* Its thread ends there; what a destructor wants then asks again. */
/* Under AddressSanitizer: the frames on the stack will not return. Of pthread_exit the compiler knows that by itself. */
extern __attribute__((weak)) void __asan_handle_no_return(void);

static int ends_its_thread(size_t size, void *context) {
    refuse(size, context);
    if (desk.asked == 2) /* in the destructor */
        return 0;
    if (size > MIB)
        pthread_exit(NULL);
    pthread_cancel(pthread_self());
    if (__asan_handle_no_return)
        __asan_handle_no_return();
    pthread_testcancel();
    must(false);
    return 0;
}

static void wants_more(void *unused) {
    (void)unused;
    must(granary_malloc(300) == NULL && desk.asked == 2);
}

static pthread_key_t key;
static void *doomed(void *size) {
    must(pthread_setspecific(key, &key) == 0);
    from_below(20, (size_t)size);
    must(false);
    return NULL;
}

static int threads_end(void *unused) {
    (void)unused;
    static const struct granary_oom_callback ending = {ends_its_thread, &desk};
    struct granary_stats before, after;
    start("limit_hard:64M");
    must(pthread_key_create(&key, wants_more) == 0);
    granary_set_oom_callback(&ending);
    fill(100);
    granary_get_stats(&before);
    for (size_t i = 0; i < 20; i++) {
        desk.asked = 0;
        in_thread(doomed, (void *)(i % 2 ? 3 * MIB : 300));
        must(desk.asked == 2);
    }
    granary_get_stats(&after);
    must(after.threads == before.threads && after.used_bytes == before.used_bytes);
    give_all();
    return 0;
}

static void it_may_end_its_thread(void **state) {
    (void)state;
    must_be_silent(threads_end, "pthread_exit");
}

static int asks_in_a_child(void *unused) {
    (void)unused;
    start("limit_hard:64M");
    granary_set_oom_callback(&refusing);
    fill(100);
    pid_t child = fork();
    must(child >= 0);
    must(granary_malloc(100) == NULL && desk.asked == 1);
    if (child == 0)
        _exit(0);
    int status;
    must(waitpid(child, &status, 0) == child && status == 0);
    return 0;
}

static void a_child_keeps_it(void **state) {
    (void)state;
    must_be_silent(asks_in_a_child, "fork");
}

/* ---- many at once ---- */

enum { THREADS = 4, ROUNDS = 60 };

static struct {
    pthread_barrier_t all_here;
    atomic_uint asked, served, done;
} crowd;

static _Thread_local struct loot *mine;
static _Thread_local unsigned mine_asked;

/* Gives back half of what this thread has. */
static int gives_half(size_t size, void *context) {
    struct loot *kept = NULL;
    unsigned freed = 0;
    must(size >= 64 && context == &crowd);
    atomic_fetch_add(&crowd.asked, 1);
    mine_asked++;
    for (struct loot *loot = mine, *next; loot; loot = next) {
        next = loot->next;
        if (freed++ % 2) {
            loot->next = kept;
            kept = loot;
        } else {
            granary_free(loot);
        }
    }
    mine = kept;
    return freed != 0;
}

static int gives_half_too(size_t size, void *context) {
    must(context == &desk);
    return gives_half(size, &crowd);
}

static const struct granary_oom_callback one = {gives_half, &crowd}, other = {gives_half_too, &desk};

static void *takes_and_asks(void *arg) {
    static const size_t wanted[] = {3 * MIB, 400000, 20000, 1000, 64};
    pthread_barrier_wait(&crowd.all_here);
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t size = wanted[(round + (size_t)arg) % COUNT_OF(wanted)];
        mine_asked = 0;
        for (unsigned i = 0; mine_asked < 2 && i < 2000; i++) {
            unsigned before = mine_asked;
            struct loot *loot = granary_malloc(size);
            must(loot != NULL || mine_asked > before);
            if (!loot)
                break;
            atomic_fetch_add(&crowd.served, mine_asked > before);
            *loot = (struct loot){mine, size};
            mine = loot;
        }
    }
    for (struct loot *loot = mine, *next; loot; loot = next) {
        next = loot->next;
        granary_free(loot);
    }
    atomic_fetch_add(&crowd.done, 1);
    return NULL;
}

static int from_many(void *unused) {
    (void)unused;
    pthread_t threads[THREADS];
    start("limit_hard:64M");
    granary_set_oom_callback(&one);
    pthread_barrier_init(&crowd.all_here, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, takes_and_asks, (void *)i) == 0);
    const struct granary_oom_callback *before = &one;
    for (size_t i = 1; atomic_load(&crowd.done) < THREADS; i++) {
        must(granary_set_oom_callback(i % 2 ? &other : &one) == before);
        before = i % 2 ? &other : &one;
    }
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    must(atomic_load(&crowd.asked) > 0 && atomic_load(&crowd.served) > 0);
    return 0;
}

static void many_threads_at_once_beside_one_that_sets_it(void **state) {
    (void)state;
    must_be_silent(from_many, "threads");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_refused_request_asks_once),
        cmocka_unit_test(what_is_no_lack_of_memory_asks_nobody),
        cmocka_unit_test(a_handler_that_interrupts_a_slow_path_does_not_ask),
        cmocka_unit_test(the_keepers_start_asks_nobody),
        cmocka_unit_test(what_it_frees_serves_every_call),
        cmocka_unit_test(realloc_grows_where_it_can_then),
        cmocka_unit_test(it_is_asked_as_often_as_it_says),
        cmocka_unit_test(realloc_to_less_asks_nobody),
        cmocka_unit_test(a_threads_first_call_asks),
        cmocka_unit_test(it_may_allocate_fork_and_trim),
        cmocka_unit_test(it_may_jump_out_from_any_depth),
        cmocka_unit_test(it_may_end_its_thread),
        cmocka_unit_test(a_child_keeps_it),
        cmocka_unit_test(many_threads_at_once_beside_one_that_sets_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
