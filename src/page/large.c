/* page/large.c -- see `page/large.h`. */
#include "page/large.h"

#include <string.h>

#include "base/bits.h"
#include "base/check.h"
#include "os/os.h"
#include "page/arena.h"
#include "page/guard.h"
#include "page/huge.h"
#include "page/purge.h"
#include "page/slack.h"
#include "page/thp.h"

/* Hardened: and a guard behind them. */
static size_t granules_for(size_t bytes) {
    return (bytes + (HARDENED ? os_page_bytes() : 0) + GRANULE_BYTES - 1) >> GRANULE_SHIFT;
}

/* Hardened: what was asked for is kept, the page's rest behind it tells of an overflow, and further pages are out of reach. */
static void enclose(size_t first, size_t granules, size_t bytes) {
    size_t open = round_up(bytes, os_page_bytes());
    word_store_relaxed(run_bytes_record(first), bytes);
    (void)gr_run_was_given(first, granules);
    gr_guard_tail(first, granules, open);
    if (bytes < open)
        ((unsigned char *)region_address(first))[bytes] = SLACK_MARK;
}

enum {
    ASK_FROM_BYTES = 256 * 1024, /* below it clearing costs less than asking */
    WINDOW_PAGES = 1024,         /* asked for at once */
    MOVE_STEP_BYTES = 2 << 20,   /* of a long block that is copied */
    LONG_BYTES = 2 * MOVE_STEP_BYTES,
};

static void clear_window(char *at, size_t pages) {
    uint8_t there[WINDOW_PAGES];
    size_t page = os_page_bytes();
    if (!os_residence(at, pages * page, there)) {
        memset(at, 0, pages * page);
        return;
    }
    for (size_t from = 0, to; from < pages; from = to) {
        to = bytes_row_end(there, from, pages);
        size_t bytes = (to - from) * page;
        if (there[from] || bytes < ASK_FROM_BYTES || !os_purge(at + from * page, bytes))
            memset(at + from * page, 0, bytes);
    }
}

/* Stretches in a row whose first page was not there. A program that touches little of what it callocs is asked about rarely. */
static struct half absent_in_a_row;
enum { SURE = 16, ASK_EACH = 8 };

static bool looks_absent(char *at) {
    uint32_t n = half_load_relaxed(&absent_in_a_row);
    uint8_t first;
    bool absent = (n >= SURE && n % ASK_EACH) || (os_residence(at, os_page_bytes(), &first) && !first);
    half_store_relaxed(&absent_in_a_row, absent ? n + 1 : 0);
    return absent;
}

static void has_holes(size_t first, size_t granules) {
    for (size_t g = first; g < first + granules; g = (g | (CHUNK_GRANULES - 1)) + 1)
        gr_run_has_holes(g);
}

/* Makes dirty memory read as zero. Who freed it may have touched little of it, or nothing: pages that are not there need not
 * come for this, nor huge ones for who will use it. Purged or written, each page is zero afterwards, whatever the system said of it. */
static void clear(size_t first, size_t granules) {
    char *at = region_address(first);
    size_t bytes = granules * GRANULE_BYTES, page = os_page_bytes(), pages;
    if (bytes < ASK_FROM_BYTES)
        memset(at, 0, bytes);
    else if (looks_absent(at) && os_purge(at, bytes))
        has_holes(first, granules);
    else
        for (; bytes; at += pages * page, bytes -= pages * page) {
            pages = min_size(bytes / page, WINDOW_PAGES);
            clear_window(at, pages);
        }
}

static void clear_dirty(size_t first, size_t granules) {
    for (size_t done = 0; done < granules;) {
        bool dirty;
        size_t n = gr_run_same_dirt(first + done, granules - done, &dirty);
        if (dirty)
            clear(first + done, n);
        done += n;
    }
}

/* A run that was claimed, or 0. */
static size_t opened(size_t first, size_t granules) {
    if (!HARDENED || !first || gr_guard_open(first, granules))
        return first;
    gr_run_free(first, granules);
    return 0;
}

/* How the program uses large blocks of a MiB and more, as those have told that had memory where nobody had been: twice the number of
 * those in a row that told the same, and WHOLE if that was that they were written whole. What tells is the last granule but one, which
 * lies in small pages, and wholly in what was asked for; hardened, where a guard follows, the last but two. */
static struct half told;
static struct half untold;  /* granules under which they were asked for since one told that it was written whole */
static struct word watched; /* the telling granule of a block that was just made */
enum { WHOLE = 1, OFTEN = 2, NEVER_WHOLE = OFTEN << 1, ALWAYS_WHOLE = NEVER_WHOLE | WHOLE };

static size_t telling(size_t first, size_t granules) { return first + granules - (HARDENED ? 3 : 2); }

/* Hints: of what two threads say at once, one may be lost. */
static void tell(bool whole) {
    uint32_t was = half_load_relaxed(&told), times = (was & WHOLE) == whole ? was >> 1 : 0;
    half_store_relaxed(&told, (times < OFTEN ? times + 1 : times) << 1 | whole);
    if (whole)
        half_store_relaxed(&untold, 0);
}

static bool is_written_whole(size_t granule) {
    uint8_t there[GRANULE_BYTES / 4096];
    return os_residence(region_address(granule), GRANULE_BYTES, there) && !memchr(there, 0, sizeof there);
}

/* A block may have been written by the time that the next one is made, and tells it before any block is freed. */
static void learn_early(size_t granule) {
    size_t before = word_load_relaxed(&watched);
    word_store_relaxed(&watched, granule);
    if (before && is_written_whole(before))
        tell(true);
}

GR_COLD static void learn(size_t first, size_t granules) {
    size_t granule = telling(first, granules);
    if (word_load_relaxed(&watched) == granule)
        word_store_relaxed(&watched, 0);
    tell(is_written_whole(granule));
}

/* What a block tells when its memory leaves it. */
static void learn_of(size_t first, uint32_t run) {
    size_t granules = run_granules(run);
    if ((run & RUN_NEW) && granules >= TELLING_GRANULES)
        learn(first, granules);
}

/* However a program begins, what it does then may be another matter. */
static bool is_in_credit(size_t granules) {
    uint32_t before = half_load_relaxed(&untold);
    if (before + granules > THP_UNTOLD_GRANULES)
        return false;
    half_store_relaxed(&untold, before + (uint32_t)granules);
    return true;
}

/* Huge pages are for who writes blocks whole. A page of calloc's that is read before it is written comes twice, and then has to go
 * from the other processors' tables: from calloc huge pages are asked for while nothing speaks against it. */
GR_COLD static void ask_for_huge_pages(size_t first, size_t granules, bool zero) {
    uint32_t is = half_load_relaxed(&told);
    bool wanted = is ? (is & WHOLE) && (zero || is == ALWAYS_WHOLE) : zero;
    if (wanted && granules >= THP_FROM_GRANULES && is_in_credit(granules))
        gr_run_want_huge_pages(first, telling(first, granules) - first, is & WHOLE);
}

/* Once all have told the same one in eight does, or each one if that many MiB wait to be told of. */
static bool is_known(size_t granules) {
    static struct half known;
    uint32_t n = half_load_relaxed(&known);
    if (granules < TELLING_GRANULES)
        return true;
    half_store_relaxed(&known, n + 1);
    return n % ASK_EACH && half_load_relaxed(&untold) <= THP_UNTOLD_GRANULES / 2;
}

/* RUN_NEW if the run, or what it grows by, will tell how it was used. What lies around a run follows from other blocks; between
 * aligned ones it may stay vacant. */
static uint32_t prepared(size_t first, size_t granules, bool aligned, bool zero) {
    bool dirty = granules < (HARDENED ? 3 : 2) || !gr_thp_by_run();
    if (!dirty)
        gr_run_same_dirt(telling(first, granules), 1, &dirty);
    if (dirty)
        return 0;
    uint32_t is = half_load_relaxed(&told);
    if (is >= NEVER_WHOLE && is_known(granules)) {
        if (is == ALWAYS_WHOLE && is_in_credit(granules)) {
            if (aligned)
                gr_run_want_huge_pages(first, granules, true);
            else
                gr_run_want_huge_pages_around(first, granules);
        }
        return 0;
    }
    if (granules >= TELLING_GRANULES) {
        learn_early(telling(first, granules));
        ask_for_huge_pages(first, granules, zero);
    }
    return RUN_NEW;
}

/* RUN_NEW if the block, which had `have` granules and now has more, will tell how it was used. One that is written whole will be written
 * on to the end of what it grows by: then it tells no more. */
GR_COLD static uint32_t grown(size_t first, size_t have, size_t granules, uint32_t run) {
    if ((run & RUN_NEW) && have >= TELLING_GRANULES && half_load_relaxed(&told) != ALWAYS_WHOLE)
        learn(first, have);
    if (granules < THP_FROM_GRANULES || half_load_relaxed(&told) != ALWAYS_WHOLE)
        return telling(first, granules) < first + have ? run & RUN_NEW : prepared(first, granules, false, false);
    return gr_run_want_huge_pages_on(first, have, granules) ? 0 : run & RUN_NEW;
}

/* It becomes a large block of so many bytes. */
static void enter(size_t first, size_t granules, size_t bytes, uint32_t fresh) {
    gr_run_mark_dirty(first, granules);
    if (HARDENED)
        enclose(first, granules, bytes);
    half_store_relaxed(run_record(first), (uint32_t)granules | fresh);
    gr_page_map_set(first + 1, granules - 1, CLASS_INSIDE);
    gr_page_map_set(first, 1, CLASS_LARGE);
}

/* Hardened: its memory leaves it, as the plain build's does when it is purged; but who writes all blocks whole asks again. */
static void give_up(size_t first, size_t granules, size_t open) {
    if (!HARDENED) {
        gr_run_free(first, granules);
        return;
    }
    if (half_load_relaxed(&told) != ALWAYS_WHOLE)
        has_holes(first, granules);
    gr_guard_free(first, granules, open);
}

/* Where nobody writes blocks whole, they lie at multiples of a quarter to a half of their size: then blocks of all sizes begin at few
 * places, and their first pages are those of former blocks. */
static size_t step_of(size_t granules) {
    bool sparse = half_load_relaxed(&told) == NEVER_WHOLE && granules >= 4;
    return sparse ? (size_t)1 << (bits_highest(granules) - 1) : 1;
}

void *gr_large_alloc(size_t bytes, size_t align, bool zero) {
    size_t granules = granules_for(bytes), step = step_of(granules), least = max_size(align >> GRANULE_SHIFT, 1);
    size_t first = step > least ? gr_run_claim(granules, step) : 0;
    if (!first)
        first = gr_run_claim(granules, least);
    if (!(first = opened(first, granules)))
        return NULL;
    if (zero)
        clear_dirty(first, granules);
    enter(first, granules, bytes, prepared(first, granules, least > 1, zero));
    return region_address(first);
}

bool gr_large_is_whole(const void *p) {
    size_t bytes = word_load_relaxed(run_bytes_record(region_granule(p))), open = round_up(bytes, os_page_bytes());
    return bytes == open || slack_is_whole((const char *)p + open, open - bytes, SIZE_MAX);
}

size_t gr_large_bytes(const void *p) {
    if (HARDENED)
        return word_load_relaxed(run_bytes_record(region_granule(p)));
    return run_granules(half_load_relaxed(run_record(region_granule(p)))) << GRANULE_SHIFT;
}

size_t gr_large_freed_bytes(const void *p) {
    size_t granule = region_granule(p);
    if (granule >= REGION_GRANULES || !arena_of(granule))
        return 0;
    uint32_t run = half_load_relaxed(run_record(granule));
    return run & RUN_FREED ? run_granules(run) << GRANULE_SHIFT : 0;
}

bool gr_large_free(void *p) {
    size_t first = region_granule(p);
    struct half *record = run_record(first);
    uint32_t run = half_load_relaxed(record);
    if ((run & RUN_FREED) || !half_cas_strong_relaxed(record, &run, run | RUN_FREED))
        return false;
    size_t granules = run_granules(run);
    learn_of(first, run);
    gr_page_map_set(first, granules, 0);
    give_up(first, granules, round_up(gr_large_bytes(p), os_page_bytes()));
    gr_purge_freed(granules);
    return true;
}

/* Its pages will leave it: what it tells, it tells now. */
static void learn_now(size_t first) {
    uint32_t run = half_load_relaxed(run_record(first));
    learn_of(first, run);
    half_store_relaxed(run_record(first), (uint32_t)run_granules(run));
}

static void left_clean(size_t first, size_t granules) {
    gr_run_mark_clean(first, granules);
    has_holes(first, granules);
}

void *gr_large_to_huge(void *p, size_t bytes) {
    size_t have = gr_large_bytes(p), first = region_granule(p);
    learn_now(first);
    void *moved = gr_huge_adopt(p, have, bytes);
    if (moved) {
        left_clean(first, have >> GRANULE_SHIFT);
        CHECK(gr_large_free(p));
    }
    return moved;
}

/* Of old and new pages, a step's are in memory twice. */
static void move_bytes(char *to, char *from, size_t bytes) {
    for (size_t n; bytes; to += n, from += n, bytes -= n) {
        n = min_size(bytes, MOVE_STEP_BYTES);
        memcpy(to, from, n);
        if (!os_purge(from, n))
            memset(from, 0, n);
    }
}

/* A long block goes by steps to where not all is dirty, and leaves clean memory. */
static void move_out(size_t to, size_t from, size_t bytes) {
    size_t granules = bytes >> GRANULE_SHIFT;
    bool dirty = true;
    if (HARDENED || bytes < LONG_BYTES || (gr_run_same_dirt(to, granules, &dirty) == granules && dirty)) {
        memcpy(region_address(to), region_address(from), bytes);
        return;
    }
    learn_now(from);
    move_bytes(region_address(to), region_address(from), bytes);
    left_clean(from, granules);
}

void *gr_large_move(void *p, size_t bytes) {
    size_t want = granules_for(bytes), have = gr_large_bytes(p), first = 0;
    bool is_long = have >= LONG_BYTES, touched = !is_long || (half_load_relaxed(&told) & WHOLE);
    if (want <= ARENA_GRANULES / 2 && !(first = gr_run_claim_roomy(want, true)) && touched)
        first = gr_run_claim_roomy(want, false);
    if (!(first = opened(first, want)))
        return is_long ? gr_large_to_huge(p, bytes) : NULL;
    uint32_t fresh = grown(first, 0, want, 0);
    move_out(first, region_granule(p), have);
    enter(first, want, bytes, fresh);
    CHECK(gr_large_free(p));
    return region_address(first);
}

/* Hardened, before a resize: what stands behind the user's bytes is zero, and no guard is in the way. */
static bool reopen(size_t first, size_t granules, size_t bytes) {
    char *at = region_address(first);
    size_t have = word_load_relaxed(run_bytes_record(first)), page = os_page_bytes();
    if (!gr_guard_open(first, granules))
        return false;
    if (have % page)
        at[have] = 0;
    if (bytes < have)
        memset(at + bytes, 0, min_size(round_up(bytes, page), have) - bytes);
    return true;
}

bool gr_large_resize(void *p, size_t bytes) {
    size_t first = region_granule(p);
    uint32_t run = half_load_relaxed(run_record(first));
    size_t want = granules_for(bytes), have = run_granules(run);
    if (want > LARGE_MAX_GRANULES || (HARDENED && !reopen(first, have, bytes)))
        return false;
    if (want > have) {
        if (!gr_run_claim_at(first + have, want - have)) {
            if (HARDENED)
                enclose(first, have, word_load_relaxed(run_bytes_record(first)));
            return false;
        }
        if (HARDENED && !opened(first + have, want - have)) {
            enclose(first, have, word_load_relaxed(run_bytes_record(first)));
            return false;
        }
        uint32_t fresh = grown(first, have, want, run);
        gr_run_mark_dirty(first + have, want - have);
        gr_page_map_set(first + have, want - have, CLASS_INSIDE);
        half_store_relaxed(run_record(first), (uint32_t)want | fresh);
    } else if (want < have) {
        half_store_relaxed(run_record(first), (uint32_t)want);
        gr_page_map_set(first + want, have - want, 0);
        give_up(first + want, have - want, (have - want) * GRANULE_BYTES);
    }
    if (HARDENED)
        enclose(first, want, bytes);
    return true;
}
