/* memory_large.c -- buffers of a program that uses them again and again cost it nothing: no page comes anew, no system call is made.
 * What is not used goes back beside them. A block that grows does so where it is, or takes its pages along. Blocks that are hardly written
 * begin at few places.
 */
/* Not in the hardened build, where a freed large block keeps no page and a block grows by a copy. */
/* test: sanitize=off hardened=off timeout=120 serial=on wrap=mmap,munmap,madvise,mremap,mprotect,mincore */
#include "oom_fault.h"
#include "semantics_calls.h"

enum { LEAST = 100 * KIB, MOST = 32 * MIB, PAGE = 4096, WAIT_SECONDS = 60 };
enum { STRAY_PAGES = 16 }; /* of the program itself; each of the loops below writes 1250 at least */

int __real_mincore(void *at, size_t bytes, unsigned char *there);
int __wrap_mincore(void *at, size_t bytes, unsigned char *there);
int __wrap_mincore(void *at, size_t bytes, unsigned char *there) {
    fault_seen_here++;
    return __real_mincore(at, bytes, there);
}

static long pages_brought(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt;
}

static void write_each_page(char *p, size_t bytes) {
    for (size_t at = 0; at < bytes; at += PAGE)
        p[at] = (char)(at / PAGE);
}

static bool each_page_is_as_written(const char *p, size_t bytes) {
    for (size_t at = 0; at < bytes; at += PAGE)
        if (p[at] != (char)(at / PAGE))
            return false;
    return true;
}

static void come_and_go(size_t bytes) {
    char *p = granary_malloc(bytes);
    must(p != NULL);
    write_each_page(p, bytes);
    granary_free(p);
}

static void must_have_been_free(long pages, unsigned long made) {
    pages = pages_brought() - pages;
    made = fault_seen_here - made;
    if (pages > STRAY_PAGES || made)
        fprintf(stderr, "%ld pages brought, %lu system calls\n", pages, made);
    must(pages <= STRAY_PAGES && made == 0);
}

/* 12 GiB come and go in all: after 48 it is looked once for what is hardly in memory. */
static int one_size_after_the_other(void *unused) {
    (void)unused;
    for (size_t bytes = LEAST; bytes <= MOST; bytes += bytes / 5) {
        for (int warm = 0; warm < 3; warm++)
            come_and_go(bytes);
        long pages = pages_brought();
        unsigned long made = fault_seen_here;
        for (int i = 0; i < 50; i++)
            come_and_go(bytes);
        must_have_been_free(pages, made);
    }
    return 0;
}

/* Some at a time, as servers read and write through buffers of any size: the sums of sizes that are alive differ. */
static int several_of_any_size(void *unused) {
    enum { SLOTS = 4, WARM = 12000, ROUNDS = 4000 };
    (void)unused;
    struct rng rng = rng_for(1);
    void *slot[SLOTS] = {NULL};
    long pages = 0;
    unsigned long made = 0;
    for (int i = 0; i < WARM + ROUNDS; i++) {
        if (i == WARM) {
            pages = pages_brought();
            made = fault_seen_here;
        }
        size_t k = rng_below(&rng, SLOTS), bytes = LEAST + rng_below(&rng, MIB);
        granary_free(slot[k]);
        must((slot[k] = granary_malloc(bytes)) != NULL);
        write_each_page(slot[k], bytes);
    }
    must_have_been_free(pages, made);
    return 0;
}

/* Of 96 MiB that were used a moment ago 8 go on being used. */
static int by_recent_use(void *unused) {
    enum { USED = 8 * MIB, OTHERS = 22, OTHER = 4 * MIB };
    (void)unused;
    struct granary_stats stats;
    void *other[OTHERS];
    granary_free(granary_malloc(100)); /* as every thread does: one without a cache starts no housekeeping */
    for (size_t i = 0; i < OTHERS; i++) {
        must((other[i] = granary_malloc(OTHER)) != NULL);
        write_each_page(other[i], OTHER);
    }
    for (size_t i = 0; i < OTHERS; i++)
        granary_free(other[i]);
    for (int warm = 0; warm < 2; warm++) {
        usleep(1000);
        come_and_go(USED);
        granary_get_stats(&stats);
    }
    long pages = pages_brought();
    unsigned long made = fault_seen_here;
    double deadline = seconds_now() + WAIT_SECONDS;
    do {
        usleep(20 * 1000);
        come_and_go(USED);
        granary_get_stats(&stats);
    } while (stats.dirty_bytes > USED && seconds_now() < deadline);
    must(stats.dirty_bytes == USED);
    for (int i = 0; i < 100; i++) {
        usleep(20 * 1000);
        come_and_go(USED);
    }
    must_have_been_free(pages, made);
    return 0;
}

/* A block that grows by a little meets nobody; or is copied once, to where it meets nobody. */
static int grows_where_it_is(void *unused) {
    enum { FROM = 512 * KIB };
    (void)unused;
    unsigned moves = 0;
    char *p = granary_malloc(FROM), *next_to_it = granary_malloc(FROM);
    must(p != NULL && next_to_it != NULL);
    write_each_page(p, FROM);
    long pages = pages_brought();
    for (size_t bytes = FROM; bytes < MOST; bytes += 64 * KIB) {
        char *grown = granary_realloc(p, bytes + 64 * KIB);
        must(grown != NULL);
        moves += grown != p;
        p = grown;
        for (size_t at = bytes; at < bytes + 64 * KIB; at += PAGE)
            p[at] = (char)(at / PAGE);
    }
    must(each_page_is_as_written(p, MOST));
    must(moves <= 1);
    must(pages_brought() - pages <= (long)(MOST / PAGE + FROM / PAGE + 100)); /* its own, and the copy's */
    granary_free(p);
    granary_free(next_to_it);
    return 0;
}

/* From the sizes of runs to those of mappings and on: no page comes for it, whatever is written into it comes along. */
static int takes_its_pages_along(void *unused) {
    (void)unused;
    static const size_t steps[] = {40 * MIB, 70 * MIB, 100 * MIB, 150 * MIB, 300 * MIB, 600 * MIB};
    char *p = granary_malloc(steps[0]), *next_to_it = granary_malloc(steps[0]);
    must(p != NULL && next_to_it != NULL);
    write_each_page(p, steps[0]);
    long pages = pages_brought();
    for (size_t i = 1; i < COUNT_OF(steps); i++)
        must((p = granary_realloc(p, steps[i])) != NULL);
    must(each_page_is_as_written(p, steps[0]));
    if (pages_brought() - pages > 200)
        fprintf(stderr, "%ld pages brought\n", pages_brought() - pages);
    must(pages_brought() - pages <= 200);
    must(rss_bytes() < steps[0] + 16 * MIB);
    granary_free(p);
    granary_free(next_to_it);
    return 0;
}

/* Into what a freed block has left, or where nobody has been: either way no more is in memory than the block and that. */
static int moved_while_it_grows(void *unused) {
    (void)unused;
    for (size_t i = 0; i < 8; i++)
        come_and_go(2 * MIB); /* the program is known to write its blocks whole */
    char *p = granary_malloc(10 * MIB), *next_to_it = granary_malloc(MIB);
    must(p != NULL && next_to_it != NULL);
    write_each_page(p, 10 * MIB);
    size_t before = rss_bytes();
    must((p = granary_realloc(p, 11 * MIB)) != NULL && each_page_is_as_written(p, 10 * MIB));
    must(rss_bytes() <= before + 4 * MIB);
    come_and_go(50 * MIB);
    must((next_to_it = granary_malloc(MIB)) != NULL);
    before = rss_bytes();
    must((p = granary_realloc(p, 20 * MIB)) != NULL && each_page_is_as_written(p, 10 * MIB));
    must(rss_bytes() <= before + 4 * MIB);
    return 0;
}

/* One block of each class, where a large one was before: what they leave of it serves the next. */
static int few_of_each_class(void *unused) {
    (void)unused;
    size_t bytes = 0;
    come_and_go(MOST);
    for (size_t size = 20 * KIB; size <= 256 * KIB; size += size / 8) {
        char *p = granary_malloc(size);
        must(p != NULL);
        write_each_page(p, size);
        bytes += size;
    }
    come_and_go(MOST);
    must(rss_bytes() < MOST + bytes + 6 * MIB);
    return 0;
}

/* Blocks of which the first and the last word alone are written, and soon known for that: each new one begins at a multiple of a quarter
 * of its size at least, where others have begun before. */
static int hardly_written(void *unused) {
    enum { LIVE = 32, TURNS = 20000, LEARNED = 200, MOST_RSS = 32 * MIB };
    static char *live[LIVE];
    (void)unused;
    for (uint64_t turn = 0; turn < TURNS; turn++) {
        size_t bytes = ((size_t)64 * KIB << mix(turn) % 9) + mix(turn + TURNS) % (64 * KIB), at = mix(turn) % LIVE;
        granary_free(live[at]);
        char *p = live[at] = granary_malloc(bytes);
        must(p != NULL);
        p[0] = p[bytes - 1] = 1;
        if (turn > LEARNED && bytes >= 512 * KIB)
            for (size_t step = 128 * KIB; step * 4 <= bytes; step *= 2)
                must((uintptr_t)p % step == 0);
    }
    printf("%zu KiB resident\n", rss_bytes() / KIB);
    must(rss_bytes() < MOST_RSS);
    return 0;
}

#define IN_CHILD(name, body)                                                                                           \
    static void name(void **state) {                                                                                   \
        (void)state;                                                                                                   \
        must_end_well(in_child(body, NULL, 100), #name);                                                               \
    }

IN_CHILD(a_loop_is_free_once_it_is_warm, one_size_after_the_other)
IN_CHILD(several_are_free_once_they_are_warm, several_of_any_size)
IN_CHILD(what_is_used_stays_and_the_rest_goes, by_recent_use)
IN_CHILD(growth_stays_or_is_copied_once, grows_where_it_is)
IN_CHILD(growth_takes_pages_along, takes_its_pages_along)
IN_CHILD(growth_holds_no_page_twice, moved_while_it_grows)
IN_CHILD(a_class_with_a_block_takes_no_dirty_slab, few_of_each_class)
IN_CHILD(sparse_blocks_begin_at_few_places, hardly_written)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loop_is_free_once_it_is_warm),
        cmocka_unit_test(several_are_free_once_they_are_warm),
        cmocka_unit_test(what_is_used_stays_and_the_rest_goes),
        cmocka_unit_test(growth_stays_or_is_copied_once),
        cmocka_unit_test(growth_takes_pages_along),
        cmocka_unit_test(growth_holds_no_page_twice),
        cmocka_unit_test(a_class_with_a_block_takes_no_dirty_slab),
        cmocka_unit_test(sparse_blocks_begin_at_few_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
