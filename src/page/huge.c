/* page/huge.c -- see `page/huge.h`. */
#include "page/huge.h"

#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/check.h"
#include "base/limits.h"
#include "os/os.h"
#include "page/limit.h"
#include "page/slack.h"

enum { HUGE_WINDOW = 64 };

struct huge {
    struct ref address; /* NULL empty, hidden_mark, or the block */
    struct word bytes;
};

GR_SPARSE static struct huge table[HUGE_RECORDS];
static struct word total;
static char hidden_mark;

static unsigned home_of(const void *p) {
    return (unsigned)(((uintptr_t)p >> 12) * 0x9e3779b97f4a7c15ull >> 32) % (HUGE_RECORDS - HUGE_WINDOW);
}

static struct huge *find(const void *p) {
    struct huge *from = &table[home_of(p)];
    for (struct huge *h = from; p && h < from + HUGE_WINDOW; h++)
        if (ref_load_acquire(&h->address) == p) /* [acquire shown] */
            return h;
    return NULL;
}

/* Takes the record of a shown block out of sight. */
static struct huge *hide(void *p) {
    struct huge *h = find(p);
    void *seen = p;
    return h && ref_cas_strong_acq_rel(&h->address, &seen, &hidden_mark) ? h : NULL; /* [acquire shown] */
}

static bool show(void *p, size_t bytes) {
    struct huge *from = &table[home_of(p)];
    for (struct huge *h = from; h < from + HUGE_WINDOW; h++) {
        void *seen = NULL;
        if (ref_load_relaxed(&h->address) || !ref_cas_strong_acq_rel(&h->address, &seen, &hidden_mark))
            continue; /* [acquire dropped] */
        word_store_relaxed(&h->bytes, bytes);
        ref_store_release(&h->address, p); /* [release shown] */
        word_add_relaxed(&total, bytes);
        return true;
    }
    return false;
}

static void drop(struct huge *h) {
    word_add_relaxed(&total, 0 - word_load_relaxed(&h->bytes));
    ref_store_release(&h->address, NULL); /* [release dropped] */
}

/* Hardened: a guard on each side is the block's too. */
static size_t fence(void) { return HARDENED ? os_page_bytes() : 0; }

static void *map_aligned(size_t bytes, size_t align) {
    size_t page = os_page_bytes();
    if (align <= page && !HARDENED)
        return os_map(bytes);
    align = max_size(align, page);
    if (bytes > PTRDIFF_MAX - align - 2 * fence())
        return NULL;
    size_t all = bytes + align - page + 2 * fence();
    char *got = os_map(all);
    if (!got)
        return NULL;
    char *at = (char *)round_up((uintptr_t)got + fence(), align), *end = at + bytes + fence();
    if (at - fence() > got)
        os_unmap(got, (size_t)(at - fence() - got));
    if (got + all > end)
        os_unmap(end, (size_t)(got + all - end));
    if (HARDENED) {
        os_guard(at - fence(), fence(), os_guards_split());
        os_guard(at + bytes, fence(), os_guards_split());
    }
    return at;
}

static void unmap(void *p, size_t bytes) {
    os_unmap((char *)p - fence(), round_up(bytes, os_page_bytes()) + 2 * fence());
}

/* Hardened: the record keeps what was asked for, and the last page's rest tells of an overflow. */
static size_t kept_bytes(size_t bytes) { return HARDENED ? bytes : round_up(bytes, os_page_bytes()); }

static void mark_slack(void *p, size_t bytes) {
    if (HARDENED && bytes % os_page_bytes())
        ((unsigned char *)p)[bytes] = SLACK_MARK;
}

static void clear_slack(void *p, size_t bytes) {
    if (HARDENED && bytes % os_page_bytes())
        ((unsigned char *)p)[bytes] = 0;
}

bool gr_huge_is_whole(const void *p) {
    size_t bytes = gr_huge_bytes(p), open = round_up(bytes, os_page_bytes());
    return slack_is_whole((const char *)p + open, open - bytes, SIZE_MAX);
}

static void *map_shown(size_t bytes, size_t align) {
    void *p = map_aligned(round_up(bytes, os_page_bytes()), align);
    if (!p)
        return NULL;
    mark_slack(p, bytes);
    if (!show(p, kept_bytes(bytes))) {
        unmap(p, bytes);
        return NULL;
    }
    return p;
}

void *gr_huge_alloc(size_t bytes, size_t align) {
    if (!gr_limit_take(kept_bytes(bytes)))
        return NULL;
    void *p = map_shown(bytes, align);
    if (!p)
        gr_limit_give(kept_bytes(bytes));
    return p;
}

static size_t unmap_shown(void *p) {
    struct huge *h = hide(p);
    size_t bytes = h ? word_load_relaxed(&h->bytes) : 0;
    if (h) {
        unmap(p, bytes);
        drop(h);
    }
    return bytes;
}

bool gr_huge_free(void *p) {
    size_t bytes = unmap_shown(p);
    gr_limit_give(bytes);
    return bytes != 0;
}

size_t gr_huge_bytes(const void *p) {
    struct huge *h = find(p);
    return h ? word_load_relaxed(&h->bytes) : 0;
}

/* The new place is found, mapped and recorded first, so that nothing can fail once the pages have moved. */
static void *move(void *p, size_t old, size_t bytes) {
    void *over = map_shown(bytes, 1);
    if (!over)
        return NULL;
    struct huge *h = hide(p);
    size_t page = os_page_bytes(), mapped = round_up(old, page);
    clear_slack(p, old);
    if (!h || !os_move(p, mapped, over, round_up(bytes, page))) {
        mark_slack(p, old);
        if (h)
            ref_store_release(&h->address, p); /* [release shown] */
        unmap_shown(over);
        return NULL;
    }
    mark_slack(over, bytes);
    if (HARDENED) { /* its guards stay behind */
        os_unmap((char *)p - fence(), fence());
        os_unmap((char *)p + mapped, fence());
    }
    drop(h);
    return over;
}

/* Hardened: what is too long is cut off behind a guard; a mapping between two guards does not grow. */
static bool resize_between_guards(struct huge *h, char *p, size_t bytes) {
    size_t old = word_load_relaxed(&h->bytes), page = os_page_bytes();
    size_t mapped = round_up(old, page), want = round_up(bytes, page);
    if (want > mapped)
        return false;
    clear_slack(p, old);
    if (bytes < old)
        memset(p + bytes, 0, min_size(want, old) - bytes);
    if (want < mapped) {
        os_guard(p + want, page, os_guards_split());
        os_unmap(p + want + page, mapped - want);
    }
    mark_slack(p, bytes);
    return true;
}

void *gr_huge_resize(void *p, size_t bytes) {
    bytes = kept_bytes(bytes);
    struct huge *h = hide(p);
    if (!h)
        return NULL;
    size_t old = word_load_relaxed(&h->bytes), more = bytes > old ? bytes - old : 0;
    bool paid = !more || gr_limit_take(more), done = false;
    if (paid)
        done = HARDENED ? resize_between_guards(h, p, bytes) : bytes == old || os_resize(p, old, bytes);
    if (done) {
        word_store_relaxed(&h->bytes, bytes);
        word_add_relaxed(&total, bytes - old);
        gr_limit_give(old > bytes ? old - bytes : 0);
    }
    ref_store_release(&h->address, p); /* [release shown] */
    if (done)
        return p;
    void *moved = paid && more ? move(p, old, bytes) : NULL;
    if (paid && !moved)
        gr_limit_give(more);
    return moved;
}

void *gr_huge_adopt(void *at, size_t have, size_t bytes) {
    if (HARDENED)
        return NULL; /* its pages would come without guards */
    bytes = round_up(bytes, os_page_bytes());
    if (!gr_limit_take(bytes))
        return NULL;
    void *p = os_detach(at, have, bytes);
    if (p && !show(p, bytes)) {
        memcpy(at, p, have);
        os_unmap(p, bytes);
        p = NULL;
    }
    if (!p)
        gr_limit_give(bytes);
    return p;
}

size_t gr_huge_total(void) { return word_load_relaxed(&total); }
