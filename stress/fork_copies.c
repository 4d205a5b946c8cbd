/* fork_copies.c -- a forked child that frees blocks, or allocates beside them, has no page of theirs copied.
 *
 * The parent's blocks are small and written to, and it waits; so a page that the child has to itself was copied because the child, or
 * the library in it, wrote there. By the kernel's own account: pagemap for the blocks' pages, Private_Dirty for all.
 */
/* Hardened, a freed block is written to: its seal. */
/* test: sanitize=off serial=on timeout=120 hardened=off */
#include "semantics_calls.h"

enum { BLOCKS = 250 * 1000, THREADS = 8, PAGE = 4096 };

static void *blocks[BLOCKS];

/* 60 MiB. */
static size_t size_of_block(size_t i) { return 16 + mix(i) % 480; }

static void fill(size_t from, size_t step) {
    for (size_t i = from; i < BLOCKS; i += step) {
        blocks[i] = granary_malloc(size_of_block(i));
        memset(blocks[i], 0x5a, size_of_block(i));
    }
}

static pthread_barrier_t filled;
static void *fill_and_sleep(void *part) {
    fill((uintptr_t)part, THREADS);
    pthread_barrier_wait(&filled);
    for (;;)
        pause();
    return NULL;
}

/* KiB of pages that this process has written to and shares with nobody. */
static size_t own_kib(void) {
    char text[8192], *at;
    read_file("/proc/self/smaps_rollup", text, sizeof text);
    must((at = strstr(text, "\nPrivate_Dirty:")) != NULL);
    return strtoull(at + strlen("\nPrivate_Dirty:"), NULL, 10);
}

/* Of the blocks, every seventh is asked, how many lie in a page that only this process has in its memory. */
static size_t copied_blocks(void) {
    enum { PRESENT = 63, MAPPED_ONCE = 56 };
    size_t own = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    must(fd >= 0);
    for (size_t i = 0; i < BLOCKS; i += 7) {
        uint64_t entry;
        off_t at = (off_t)((uintptr_t)blocks[i] / PAGE * sizeof entry);
        must(pread(fd, &entry, sizeof entry, at) == sizeof entry);
        own += (entry >> PRESENT & 1) && (entry >> MAPPED_ONCE & 1);
    }
    close(fd);
    return own;
}

/* What a child may have to itself when it begins, and what it may add: in KiB. Of each thread that vanished, the records of the slabs
 * that it held; its cache and its magazines stay as they are until the child's heap grows. */
static int within(size_t before, bool threads, size_t more) {
    size_t kib = own_kib(), begin = 256 + (threads ? THREADS * 16 : 0);
    fprintf(stderr, "%zu KiB are the child's own, %zu of them from the start; the bounds are %zu and %zu\n", kib,
            before, begin + more, begin);
    return before > begin || kib > begin + more;
}

/* The records of the slabs, of less than a hundredth of the heap, and the magazines of what the child caches. */
enum { FREES_KIB = 3072 };

static int child_frees_half(void *threads) {
    size_t before = own_kib();
    for (size_t i = 0; i < BLOCKS; i += 2)
        granary_free(blocks[i]);
    must(copied_blocks() == 0);
    return within(before, threads, FREES_KIB);
}

static int child_frees_all(void *threads) {
    size_t before = own_kib();
    for (size_t i = 0; i < BLOCKS; i++)
        granary_free(blocks[i]);
    must(copied_blocks() == 0);
    return within(before, threads, FREES_KIB);
}

/* Reads all, and copies now and then into a block that it frees at once: a page or two of each class, and its magazines. */
static int child_saves(void *threads) {
    size_t before = own_kib();
    for (size_t i = 0; i < BLOCKS; i++) {
        if (i % 8 == 0)
            granary_free(memcpy(granary_malloc(size_of_block(i)), blocks[i], size_of_block(i)));
        else
            must(all_bytes_are(blocks[i], size_of_block(i), 0x5a));
    }
    return within(before, threads, 512);
}

static void in_children(void *threads) {
    static const struct {
        const char *name;
        int (*body)(void *threads);
    } children[] = {{"frees half", child_frees_half}, {"frees all", child_frees_all}, {"saves", child_saves}};
    for (size_t i = 0; i < COUNT_OF(children); i++) {
        struct ending ending = in_child(children[i].body, threads, 100);
        print_message("%s: %s", children[i].name, ending.text);
        must_end_well(ending, children[i].name);
    }
}

static void a_child_of_one_thread_copies_no_blocks(void **state) {
    (void)state;
    fill(0, 1);
    in_children(NULL);
    for (size_t i = 0; i < BLOCKS; i++)
        granary_free(blocks[i]);
}

static void a_child_of_many_threads_copies_no_blocks(void **state) {
    (void)state;
    pthread_t thread;
    pthread_barrier_init(&filled, NULL, THREADS + 1);
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&thread, NULL, fill_and_sleep, (void *)i) == 0);
    pthread_barrier_wait(&filled);
    in_children("threads");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_of_one_thread_copies_no_blocks),
        cmocka_unit_test(a_child_of_many_threads_copies_no_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
