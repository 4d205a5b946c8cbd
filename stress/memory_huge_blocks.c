/* memory_huge_blocks.c -- which large blocks thp:auto asks huge pages for: those of a program that has shown to write such blocks whole,
 * and those from calloc until one has shown the contrary; and that where huge pages are dear neither these nor small blocks have more
 * than a few. Counts what is asked; whether the system grants it is the system's matter.
 */
/* test: sanitize=off hardened=off timeout=60 wrap=madvise,clock_gettime */
#include "semantics_calls.h"

#include "base/limits.h"
#include "os/options.h"
#include "page/limit.h"

enum { PAGE = 4096, SHORT = 8 * MIB, BLOCKS = 64, HUGE_PAGE = HUGE_PAGE_GRANULES * GRANULE_BYTES };

static size_t asked, asks, taken_back;
int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice) {
    asked += advice == MADV_HUGEPAGE ? bytes : 0;
    asks += advice == MADV_HUGEPAGE;
    taken_back += advice == MADV_NOHUGEPAGE ? bytes : 0;
    return __real_madvise(at, bytes, advice);
}

/* What a huge page takes, as the allocator sees it. */
static long price_us;
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
    static long now_us;
    if (clock != CLOCK_THREAD_CPUTIME_ID)
        return __real_clock_gettime(clock, now);
    now_us += price_us;
    *now = (struct timespec){now_us / 1000000, now_us % 1000000 * 1000};
    return 0;
}

static void *made(size_t bytes, bool zero) {
    void *p = zero ? granary_calloc(1, bytes) : granary_malloc(bytes);
    must(p != NULL);
    return p;
}

static void write_whole(void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += PAGE)
        ((volatile char *)p)[i] = 1;
}

static void write_ends(void *p, size_t bytes) { ((volatile char *)p)[0] = ((volatile char *)p)[bytes - 1] = 1; }

static int written_whole(void *zero) {
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t bytes = SHORT + mix(i) % (2 * GRANULE_BYTES); /* its end lies anywhere in a granule */
        void *p = made(bytes, *(bool *)zero);
        write_whole(p, bytes);
        must(i >= 2 || *(bool *)zero || !asked);
    }
    must(asked > (BLOCKS - 8) * (SHORT / 2) && asked <= BLOCKS * (SHORT + 2 * GRANULE_BYTES));
    return 0;
}

static int written_in_a_loop(void *unused) {
    (void)unused;
    for (size_t bytes = SHORT; bytes <= 32 * MIB; bytes *= 2)
        for (size_t round = 0; round < 8; round++) {
            void *p = made(bytes, false);
            write_whole(p, bytes);
            granary_free(p);
        }
    must(asked >= SHORT);
    return 0;
}

static int touched_here_and_there(void *unused) {
    (void)unused;
    void *blocks[BLOCKS] = {NULL};
    for (size_t i = 0; i < 10 * BLOCKS; i++) {
        granary_free(blocks[i % BLOCKS]);
        write_ends(blocks[i % BLOCKS] = made(SHORT + mix(i) % SHORT, false), SHORT);
    }
    must(!asked && rss_bytes() < 64 * MIB);
    return 0;
}

/* Blocks of 1 MiB tell; then smaller ones have huge pages, too, and the 2 MiB in which they begin and end. */
static int smaller_ones(void *unused) {
    (void)unused;
    for (size_t i = 0; i < BLOCKS; i++)
        write_whole(made(MIB - 1, false), MIB - 1);
    size_t before = asked;
    must(before >= BLOCKS / 2 * MIB && before <= (BLOCKS + 4) * MIB);
    for (size_t i = 0; i < BLOCKS; i++)
        write_whole(made(300 * KIB, false), 300 * KIB);
    must(asked - before >= BLOCKS * 300 * KIB - 4 * MIB && asked - before <= BLOCKS * 320 * KIB + 4 * MIB);
    must(rss_bytes() <= BLOCKS * (MIB + 320 * KIB) + 16 * MIB);
    return 0;
}

static int small_ones(void *unused) {
    (void)unused;
    for (size_t i = 0; i < BLOCKS; i++)
        write_whole(made(MIB - GRANULE_BYTES, false), MIB - GRANULE_BYTES);
    must(!asked);
    return 0;
}

/* Between them is room for others, which need not come. */
static int aligned(void *unused) {
    (void)unused;
    for (size_t i = 0; i < BLOCKS / 8; i++)
        write_whole(made(MIB - 1, false), MIB - 1);
    size_t before = asked;
    for (size_t i = 0; i < BLOCKS; i++) {
        void *p = granary_aligned_alloc(HUGE_PAGE, 300 * KIB);
        must(p != NULL);
        write_whole(p, 300 * KIB);
    }
    must(before && asked - before <= 2 * HUGE_PAGE);
    return 0;
}

/* What huge pages hold beside that which somebody uses is counted nowhere. */
static int near_a_limit(void *unused) {
    (void)unused;
    void *p;
    size_t before = rss_bytes(), then = 0;
    gr_options_parse("limit_hard:64M", "test: ");
    gr_limit_start();
    for (size_t bytes = 0; (p = granary_malloc(MIB + 300 * KIB)); bytes += MIB + 300 * KIB) {
        write_whole(p, MIB + 300 * KIB);
        if (bytes <= 50 * MIB)
            then = asked;
    }
    must(then && asked <= then + 6 * MIB && rss_bytes() <= before + 65 * MIB);
    return 0;
}

/* One block in eight tells on. */
static int turned_sparse(void *unused) {
    (void)unused;
    size_t then = 0;
    for (size_t i = 0; i < BLOCKS / 8; i++)
        write_whole(made(SHORT, false), SHORT);
    must(asked);
    for (size_t i = 0; i < BLOCKS; i++) {
        void *p = made(SHORT, false);
        write_ends(p, SHORT);
        granary_free(p);
        granary_malloc_trim(0);
        then = i == BLOCKS / 2 ? asked : then;
    }
    must(asked == then);
    return 0;
}

static int turned_sparse_and_kept(void *unused) {
    (void)unused;
    for (size_t i = 0; i < BLOCKS / 8; i++)
        write_whole(made(SHORT, false), SHORT);
    for (size_t i = 0; i < 4 * BLOCKS; i++)
        write_ends(made(SHORT, false), SHORT);
    must(asked && asked <= THP_UNTOLD_GRANULES * GRANULE_BYTES + 8 * SHORT);
    return 0;
}

static int zero_and_kept(void *unused) {
    (void)unused;
    for (size_t i = 0; i < 2 * BLOCKS; i++)
        write_ends(made(SHORT, true), SHORT);
    must(asked >= 128 * MIB && asked <= THP_UNTOLD_GRANULES * GRANULE_BYTES);
    return 0;
}

static int zero_and_freed(void *unused) {
    (void)unused;
    for (size_t i = 0; i < BLOCKS; i++)
        granary_free(made(SHORT, true));
    must(asked <= SHORT && taken_back);
    return 0;
}

static int grown(void *unused) {
    (void)unused;
    void *p = NULL;
    for (size_t bytes = MIB, was = 0; bytes <= 48 * MIB; was = bytes, bytes += bytes / 2) {
        p = granary_realloc(p, bytes);
        must(p != NULL);
        write_whole((char *)p + was, bytes - was);
    }
    must(asked >= 16 * MIB);
    return 0;
}

static int appended(void *written) {
    void *p = NULL;
    for (size_t bytes = 100 * KIB, was = 0; bytes <= 48 * MIB; was = bytes, bytes += 100 * KIB) {
        p = granary_realloc(p, bytes);
        must(p != NULL);
        if (*(bool *)written)
            write_whole((char *)p + was, bytes - was);
    }
    must(*(bool *)written ? asks >= 16 && asks <= 24 && rss_bytes() < 60 * MIB : !asked);
    return 0;
}

/* A block begins in the 2 MiB in which the one before ends, and ends in its last: what is behind it goes back. */
static int room_at_a_limit(void *unused) {
    (void)unused;
    gr_options_parse("limit_hard:100M", "test: ");
    gr_limit_start();
    for (size_t i = 0; i < 16; i++)
        write_whole(made(MIB, false), MIB);
    size_t before = rss_bytes();
    write_whole(made(MIB + GRANULE_BYTES, false), MIB + GRANULE_BYTES);
    bool brought = rss_bytes() >= before + HUGE_PAGE;
    must(granary_malloc(100 * MIB) == NULL && errno == ENOMEM);
    must(asked && taken_back >= HUGE_PAGE && (!brought || rss_bytes() <= before + HUGE_PAGE));
    return 0;
}

/* What was asked for is good for its block: whoever has the memory next, when it has gone back, has small pages. */
static int gone_back(void *unused) {
    (void)unused;
    void *p = made(SHORT, true);
    write_whole(p, SHORT);
    must(asked);
    granary_free(p);
    granary_malloc_trim(0);
    must(taken_back >= asked);
    return 0;
}

enum { DEAR_US = THP_MOST_US + 1 };

static int dear_to_write(void *zero) {
    price_us = DEAR_US;
    for (size_t i = 0; i < BLOCKS; i++)
        write_whole(made(SHORT, *(bool *)zero), SHORT);
    /* After 1, 32 and 128 huge pages, and what calloc asked for before the first block had told. */
    must(asked && asked <= 5 * SHORT && taken_back >= asked - (*(bool *)zero ? SHORT : 0));
    return 0;
}

static int dear_to_grow(void *unused) {
    (void)unused;
    price_us = DEAR_US;
    for (size_t round = 0; round < 8; round++) {
        void *p = NULL;
        for (size_t bytes = 100 * KIB, was = 0; bytes <= 24 * MIB; was = bytes, bytes += 100 * KIB) {
            must((p = granary_realloc(p, bytes)) != NULL);
            write_whole((char *)p + was, bytes - was);
        }
        must(rss_bytes() < 32 * MIB);
        granary_free(p);
        granary_malloc_trim(0);
    }
    must(asked && asks <= 8);
    return 0;
}

static size_t asked_for_small(size_t bytes) {
    size_t before = asked;
    for (size_t i = 0; i < bytes / 1000; i++)
        made(1000, false);
    return asked - before;
}

static int dear_small(void *unused) {
    (void)unused;
    price_us = DEAR_US;
    size_t first = asked_for_small(256 * MIB);
    must(first && first <= 4 * HUGE_PAGE && taken_back == first);
    price_us = 0;
    asked_for_small(512 * MIB); /* until the next one is tried */
    must(asked_for_small(64 * MIB) >= 60 * MIB);
    return 0;
}

static int cheap_small(void *unused) {
    (void)unused;
    price_us = THP_MOST_US;
    must(!asked_for_small(60 * MIB) && asked_for_small(200 * MIB) >= 180 * MIB && !taken_back);
    return 0;
}

static int nothing_asked(void *zero) {
    for (size_t i = 0; i < BLOCKS / 4; i++) {
        void *p = made(SHORT, *(bool *)zero);
        write_whole(p, SHORT);
        granary_free(p);
    }
    must(!asked);
    return 0;
}

static int never(void *zero) {
    gr_options_parse("thp:never", "test: ");
    return nothing_asked(zero);
}

static void in_own_process(int (*fn)(void *), bool zero, const char *what) {
    must_end_well(in_child(fn, &zero, 30), what);
}

static void who_writes_whole_is_asked_for(void **state) {
    (void)state;
    in_own_process(written_whole, false, "malloc, written whole");
    in_own_process(written_whole, true, "calloc, written whole");
    in_own_process(written_in_a_loop, false, "one after the other");
    in_own_process(smaller_ones, false, "1 MiB, then 300 KiB");
    in_own_process(grown, false, "grown");
    in_own_process(appended, true, "appended to");
}

static void who_touches_little_is_not(void **state) {
    (void)state;
    in_own_process(touched_here_and_there, false, "malloc, the ends written");
    in_own_process(small_ones, false, "below 1 MiB");
    in_own_process(turned_sparse, false, "written whole, then the ends");
    in_own_process(turned_sparse_and_kept, false, "written whole, then the ends, and kept");
    in_own_process(appended, false, "grown, not written");
    in_own_process(zero_and_kept, true, "calloc, the ends written");
    in_own_process(zero_and_freed, true, "calloc, freed untouched");
}

static void what_nobody_uses_need_not_come(void **state) {
    (void)state;
    in_own_process(aligned, false, "aligned");
    in_own_process(near_a_limit, false, "near a limit");
    in_own_process(room_at_a_limit, false, "at a limit");
}

static void what_goes_back_asks_no_more(void **state) {
    (void)state;
    in_own_process(gone_back, true, "gone back");
}

static void where_they_are_dear_few_are_asked_for(void **state) {
    (void)state;
    in_own_process(dear_to_write, false, "malloc, dear");
    in_own_process(dear_to_write, true, "calloc, dear");
    in_own_process(dear_to_grow, false, "grown, dear");
    in_own_process(dear_small, false, "small, dear");
    in_own_process(cheap_small, false, "small, not dear");
}

static void never_is_never(void **state) {
    (void)state;
    in_own_process(never, false, "malloc, thp:never");
    in_own_process(never, true, "calloc, thp:never");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_writes_whole_is_asked_for),         cmocka_unit_test(who_touches_little_is_not),
        cmocka_unit_test(what_nobody_uses_need_not_come),        cmocka_unit_test(what_goes_back_asks_no_more),
        cmocka_unit_test(where_they_are_dear_few_are_asked_for), cmocka_unit_test(never_is_never),
    };
    if (sysconf(_SC_PAGESIZE) != PAGE) {
        printf("a page is not 4 KiB: nothing is asked for\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
