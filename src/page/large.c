/* page/large.c -- see `page/large.h`. */
#include "page/large.h"

#include <string.h>

#include "base/bits.h"
#include "base/check.h"
#include "os/options.h"
#include "os/os.h"
#include "page/arena.h"
#include "page/huge.h"
#include "page/purge.h"

static size_t granules_for(size_t bytes) { return (bytes + GRANULE_BYTES - 1) >> GRANULE_SHIFT; }

enum {
    ASK_FROM_BYTES = 256 * 1024, /* below it clearing costs less than asking */
    WINDOW_PAGES = 1024,         /* asked for at once */
};

static void clear_window(char *at, size_t pages) {
    uint8_t there[WINDOW_PAGES];
    size_t page = os_page_bytes();
    if (!os_residence(at, pages * page, there)) {
        memset(at, 0, pages * page);
        return;
    }
    for (size_t from = 0, to; from < pages; from = to) {
        for (to = from + 1; to < pages && there[to] == there[from];)
            to++;
        size_t bytes = (to - from) * page;
        if (there[from] || bytes < ASK_FROM_BYTES || !os_purge(at + from * page, bytes))
            memset(at + from * page, 0, bytes);
    }
}

/* Makes dirty memory read as zero. Who freed it may have touched little of it, or nothing: pages that are not there need not
 * come for this. Purged or written, each page is zero afterwards, whatever the system said of it. */
static void clear(char *at, size_t bytes) {
    uint8_t first;
    size_t page = os_page_bytes(), pages;
    if (bytes < ASK_FROM_BYTES)
        memset(at, 0, bytes);
    else if (!os_residence(at, page, &first) || first || !os_purge(at, bytes))
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
            clear(region_address(first + done), n * GRANULE_BYTES);
        done += n;
    }
}

/* ---- huge pages ---- */

enum {
    WIDE_GRANULES = CHUNK_GRANULES, /* blocks of so much may ask for huge pages */
    DENSE_ENOUGH = 2,
    DENSE_MOST = 4,
    LOOK_EACH = 8, /* wide blocks; and at the first of them all */
};

/* Does this program write its wide blocks whole? Two pages within the one before, and within each that is freed, are looked at:
 * no first page of a granule, where a block that is hardly written starts. Any thread writes; hints. */
static struct {
    struct word before; /* the wide block allocated last: its first granule << 32, their number */
    struct half number;
    struct half dense; /* one more for a block that was there, one less for one that was not; freed not there: none */
} wide;

static bool is_written(size_t first, size_t granules) {
    uint8_t there[GRANULE_BYTES / 4096 + 1];
    const size_t page = os_page_bytes(), pages = GRANULE_BYTES / page;
    char *at = (char *)region_address(first + granules / 2) + pages / 2 * page;
    return os_residence(at, (pages + 1) * page, there) && there[0] && there[pages];
}

static void note_freed(size_t first, size_t granules) {
    if (granules >= WIDE_GRANULES && half_load_relaxed(&wide.dense) && !is_written(first, granules))
        half_store_relaxed(&wide.dense, 0);
}

/* A claimed run that is to be a wide block. If any of it is fresh it asks, for the whole huge pages within it: the neighbours
 * are not made larger. */
static void want_huge_pages(size_t first, size_t granules) {
    if (granules < WIDE_GRANULES || option_get(OPTION_THP) != THP_AUTO)
        return;
    uint32_t dense = half_load_relaxed(&wide.dense);
    uint64_t before = word_load_relaxed(&wide.before);
    uint32_t number = half_load_relaxed(&wide.number) + 1;
    half_store_relaxed(&wide.number, number);
    if (before && (number < LOOK_EACH || number % LOOK_EACH == 0)) {
        bool written = is_written(before >> 32, (uint32_t)before);
        if (written ? dense < DENSE_MOST : dense > 0)
            half_store_relaxed(&wide.dense, written ? ++dense : --dense);
    }
    word_store_relaxed(&wide.before, first << 32 | granules);
    bool dirty;
    if (dense < DENSE_ENOUGH || (gr_run_same_dirt(first, granules, &dirty) == granules && dirty))
        return;
    const size_t per_page = HUGE_PAGE_BYTES / GRANULE_BYTES;
    size_t from = round_up(first, per_page), to = (first + granules) & ~(per_page - 1);
    if (from < to)
        gr_run_want_huge_pages(from, to - from);
}

/* A run that was claimed becomes a large block. */
static void enter(size_t first, size_t granules) {
    gr_run_mark_dirty(first, granules);
    half_store_relaxed(run_record(first), (uint32_t)granules);
    gr_page_map_set(first + 1, granules - 1, CLASS_INSIDE);
    gr_page_map_set(first, 1, CLASS_LARGE);
}

void *gr_large_alloc(size_t bytes, size_t align, bool zero) {
    size_t granules = granules_for(bytes);
    size_t first = gr_run_claim(granules, align > GRANULE_BYTES ? align >> GRANULE_SHIFT : 1);
    if (!first)
        return NULL;
    if (zero)
        clear_dirty(first, granules);
    want_huge_pages(first, granules);
    enter(first, granules);
    return region_address(first);
}

size_t gr_large_bytes(const void *p) {
    return (size_t)(half_load_relaxed(run_record(region_granule(p))) & ~RUN_FREED) << GRANULE_SHIFT;
}

size_t gr_large_freed_bytes(const void *p) {
    size_t granule = region_granule(p);
    if (granule >= REGION_GRANULES || !arena_of(granule))
        return 0;
    uint32_t run = half_load_relaxed(run_record(granule));
    return run & RUN_FREED ? (size_t)(run & ~RUN_FREED) << GRANULE_SHIFT : 0;
}

/* `telling`: what is there says how the program writes its blocks. */
static bool free_run(void *p, bool telling) {
    size_t first = region_granule(p);
    struct half *record = run_record(first);
    uint32_t granules = half_load_relaxed(record);
    if ((granules & RUN_FREED) || !half_cas_strong_relaxed(record, &granules, granules | RUN_FREED))
        return false;
    gr_page_map_set(first, granules, 0);
    if (telling)
        note_freed(first, granules);
    gr_run_free(first, granules);
    gr_purge_freed(granules);
    return true;
}

bool gr_large_free(void *p) { return free_run(p, true); }

void *gr_large_to_huge(void *p, size_t bytes) {
    size_t have = gr_large_bytes(p), first = region_granule(p);
    void *moved = gr_huge_adopt(p, have, bytes);
    if (moved) {
        gr_run_mark_clean(first, have >> GRANULE_SHIFT);
        CHECK(free_run(p, false));
    }
    return moved;
}

void *gr_large_move(void *p, size_t bytes) {
    size_t want = granules_for(bytes), have = gr_large_bytes(p);
    size_t first = want <= ARENA_GRANULES / 2 ? gr_run_claim_roomy(want) : 0;
    if (!first)
        return NULL;
    enter(first, want);
    memcpy(region_address(first), p, have);
    CHECK(gr_large_free(p));
    return region_address(first);
}

bool gr_large_resize(void *p, size_t bytes) {
    size_t first = region_granule(p);
    uint32_t have = half_load_relaxed(run_record(first));
    size_t want = granules_for(bytes);
    if (want > LARGE_MAX_GRANULES)
        return false;
    if (want > have) {
        if (!gr_run_claim_at(first + have, want - have))
            return false;
        gr_run_mark_dirty(first + have, want - have);
        gr_page_map_set(first + have, want - have, CLASS_INSIDE);
        half_store_relaxed(run_record(first), (uint32_t)want);
    } else if (want < have) {
        half_store_relaxed(run_record(first), (uint32_t)want);
        gr_page_map_set(first + want, have - want, 0);
        gr_run_free(first + want, have - want);
    }
    return true;
}
