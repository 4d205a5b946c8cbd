/* thread_first_op.c -- each call as the first one of a thread and of a process.
 *
 * "First of a process" is tried in main, in a constructor and in the executable's .preinit_array, where
 * nothing of the library has run yet: the program starts itself anew with the place and the number of the
 * call.
 *
 * covers: S41 S42 C7
 */
/* test: timeout=120 */
#include "storm_block.h"

enum place { in_preinit, in_constructor, in_main, places };

static const char *const place_name[places] = {"preinit", "constructor", "main"};

static void put(void *block, size_t size) {
    REQUIRE(block, "no memory: %zu bytes", size);
    memset(block, 0x5a, size);
    granary_free(block);
}

/* Call number `call` with `other`, a block of 100 bytes that somebody else may have made, or NULL. Returns
 * false after the last. A call that frees it takes it; the others leave it. */
static bool first(int call, void *other, bool *took) {
    void *out = NULL;
    struct granary_stats stats;
    *took = false;
    switch (call) {
    case 0:
        put(granary_malloc(100), 100);
        return true;
    case 1:
        put(granary_malloc(0), 0);
        return true;
    case 2:
        put(granary_malloc((size_t)80 << 20), 1 << 20);
        return true;
    case 3:
        put(granary_malloc(1 << 20), 1 << 20);
        return true;
    case 4:
        put(granary_calloc(10, 10), 100);
        return true;
    case 5:
        put(granary_calloc(5 << 20, 8), 1 << 20);
        return true;
    case 6:
        put(granary_realloc(NULL, 100), 100);
        return true;
    case 7:
        put(granary_reallocarray(NULL, 9 << 20, 5), 1 << 20);
        return true;
    case 8:
        put(granary_aligned_alloc(64, 100), 100);
        return true;
    case 9:
        REQUIRE(granary_posix_memalign(&out, 1 << 16, 100) == 0, "posix_memalign");
        put(out, 100);
        return true;
    case 10:
        put(granary_memalign(1 << 21, 100), 100);
        return true;
    case 11:
        put(granary_valloc(100), 100);
        return true;
    case 12:
        put(granary_pvalloc(100), 4096);
        return true;
    case 13:
        granary_free(NULL);
        return true;
    case 14:
        REQUIRE(granary_malloc_usable_size(NULL) == 0, "usable size of NULL");
        return true;
    case 15:
        granary_trim();
        return true;
    case 16:
        granary_malloc_trim(1 << 20);
        return true;
    case 17:
        granary_get_stats(&stats);
        return true;
    case 18:
        granary_free_sized(NULL, 0);
        granary_free_aligned_sized(NULL, 64, 100);
        return true;
    case 19:
        REQUIRE(granary_nallocx(100, 0) >= 100, "nallocx");
        return true;
    case 20: /* too large, so that the first thing that happens is a failure */
        out = granary_malloc(opaque_size((size_t)1 << 62));
        REQUIRE(!out && errno == ENOMEM, "malloc of 2^62 bytes gave %p, errno %d", out, errno);
        return true;
    case 21:
        *took = true;
        granary_free(other);
        return true;
    case 22:
        *took = true;
        granary_free_sized(other, 100);
        return true;
    case 23:
        *took = true;
        put(granary_realloc(other, 120000), 120000);
        return true;
    case 24:
        *took = other != NULL;
        put(granary_realloc(other, other ? 90 : 1), 1);
        return true;
    case 25:
        REQUIRE(granary_malloc_usable_size(other) >= (other ? 100u : 0u), "usable size");
        return true;
    default:
        return false;
    }
}

/* errno must not be touched by a first call that succeeds (S28). */
static bool first_keeps_errno(int call, void *other, bool *took) {
    errno = 4711;
    bool more = first(call, other, took);
    REQUIRE(errno == 4711 || call == 20, "call %d: errno became %d", call, errno);
    return more;
}

struct errand {
    int call;
    unsigned char *other;
    bool took;
};

static void *first_of_thread(void *arg) {
    struct errand *errand = arg;
    first_keeps_errno(errand->call, errand->other, &errand->took);
    return NULL;
}

/* Called from all three places; `argv` are those of main. Acts in the one that the arguments name. */
static void at_place(enum place here, int argc, char **argv) {
    if (argc != 3 || strcmp(argv[1], place_name[here]) != 0)
        return;
    bool took;
    int call = atoi(argv[2]);
    errno = 0;
    first_keeps_errno(call, NULL, &took);
    storm_join(storm_thread(storm_short_life, (void *)(uintptr_t)call));
    storm_short_life((void *)(uintptr_t)call);
    _exit(0);
}

static void preinit(int argc, char **argv, char **environment) {
    (void)environment;
    at_place(in_preinit, argc, argv);
}
__attribute__((section(".preinit_array"), used)) static void (*const preinit_entry)(int, char **, char **) = preinit;

__attribute__((constructor(101))) static void constructor(int argc, char **argv) {
    at_place(in_constructor, argc, argv);
}

static int count_calls(void) {
    bool took;
    int calls = 0;
    while (first(calls, NULL, &took))
        calls++;
    return calls;
}

int main(int argc, char **argv) {
    at_place(in_main, argc, argv);
    storm_begin(argc, argv, (struct storm_options){.seconds = 60, .threads = 1}, NULL);
    int calls = count_calls();
    for (int place = STORM_TSAN || STORM_ASAN ? in_main : in_preinit; place < places; place++) {
        for (int call = 0; call < calls; call++) {
            char number[16], what[64];
            snprintf(number, sizeof number, "%d", call);
            snprintf(what, sizeof what, "first of a process in %s: call", place_name[place]);
            pid_t pid = fork();
            if (pid == 0) {
                storm_child();
                execl("/proc/self/exe", argv[0], place_name[place], number, (char *)NULL);
                _exit(126);
            }
            storm_reap(pid, what, call);
        }
    }
    for (int round = 0; round < 5; round++) {
        for (int call = 0; call < calls; call++) {
            struct errand errand = {.call = call, .other = granary_malloc(100)};
            memset(errand.other, 7, 100);
            storm_join(storm_thread(first_of_thread, &errand));
            if (errand.took)
                continue;
            for (int i = 0; i < 100; i++)
                REQUIRE(errand.other[i] == 7, "call %d changed another thread's block", call);
            granary_free(errand.other);
        }
    }
    printf("%d first calls in a thread and in %d places of a process\n", calls, places);
    return 0;
}
