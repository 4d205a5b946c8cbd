/* page/huge.c -- see `page/huge.h`. */
#include "page/huge.h"

#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/check.h"
#include "base/limits.h"
#include "os/os.h"

enum { HUGE_WINDOW = 64 };

struct huge {
    struct ref address; /* NULL empty, hidden_mark, or the block */
    struct word bytes;
};

static struct huge table[HUGE_RECORDS];
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

static void *map_aligned(size_t bytes, size_t align) {
    size_t page = os_page_bytes();
    if (align <= page)
        return os_map(bytes);
    if (bytes > PTRDIFF_MAX - align)
        return NULL;
    char *got = os_map(bytes + align - page);
    if (!got)
        return NULL;
    char *at = (char *)round_up((uintptr_t)got, align);
    if (at > got)
        os_unmap(got, (size_t)(at - got));
    size_t tail = (size_t)(got + bytes + align - page - (at + bytes));
    if (tail)
        os_unmap(at + bytes, tail);
    return at;
}

void *gr_huge_alloc(size_t bytes, size_t align) {
    bytes = round_up(bytes, os_page_bytes());
    void *p = map_aligned(bytes, align);
    if (p && !show(p, bytes)) {
        os_unmap(p, bytes);
        return NULL;
    }
    return p;
}

bool gr_huge_free(void *p) {
    struct huge *h = hide(p);
    if (!h)
        return false;
    os_unmap(p, word_load_relaxed(&h->bytes));
    drop(h);
    return true;
}

size_t gr_huge_bytes(const void *p) {
    struct huge *h = find(p);
    return h ? word_load_relaxed(&h->bytes) : 0;
}

/* The new place is found, mapped and recorded first, so that nothing can fail once the pages have moved. */
static void *move(void *p, size_t old, size_t bytes) {
    void *over = gr_huge_alloc(bytes, 1);
    if (!over)
        return NULL;
    struct huge *h = hide(p);
    if (!h || !os_move(p, old, over, bytes)) {
        if (h)
            ref_store_release(&h->address, p); /* [release shown] */
        gr_huge_free(over);
        return NULL;
    }
    drop(h);
    return over;
}

void *gr_huge_resize(void *p, size_t bytes) {
    bytes = round_up(bytes, os_page_bytes());
    struct huge *h = hide(p);
    if (!h)
        return NULL;
    size_t old = word_load_relaxed(&h->bytes);
    bool done = bytes == old || os_resize(p, old, bytes);
    if (done) {
        word_store_relaxed(&h->bytes, bytes);
        word_add_relaxed(&total, bytes - old);
    }
    ref_store_release(&h->address, p); /* [release shown] */
    if (done)
        return p;
    return bytes > old ? move(p, old, bytes) : NULL;
}

void *gr_huge_adopt(void *at, size_t have, size_t bytes) {
    bytes = round_up(bytes, os_page_bytes());
    void *p = os_detach(at, have, bytes);
    if (p && !show(p, bytes)) {
        memcpy(at, p, have);
        os_unmap(p, bytes);
        return NULL;
    }
    return p;
}

size_t gr_huge_total(void) { return word_load_relaxed(&total); }
