/* page/guarded.c -- see `page/guarded.h`. */
#include "page/guarded.h"

#include <string.h>

#include "base/bits.h"
#include "os/fatal.h"
#include "os/os.h"
#include "os/trace.h"

enum { CLOSED, HELD, LIVE, STATE_BITS = 2, STATE_MASK = 3 };
enum { POOL_PAGES = 2 * GUARDED_SLOTS + 1 };

/* Who did something to a block. */
struct deed {
    struct half thread, depth;
    struct ref call[TRACE_FRAMES];
};

/* Written by a slot's holder. */
struct record {
    struct ref start;
    struct word bytes, room;
    struct deed allocated, freed;
};

struct word gr_guarded_one_in;

static struct {
    /* constant after the start */
    struct ref base;
    struct word seed;
    /* any thread writes */
    GR_LINE struct word stamp;
    struct word drawn;
} pool;

/* any thread writes */
GR_SPARSE static struct word states[GUARDED_SLOTS]; /* stamp << STATE_BITS | CLOSED, HELD or LIVE */
GR_SPARSE static struct record records[GUARDED_SLOTS];

static uint64_t chance(uint64_t n) {
    uint64_t x = word_load_relaxed(&pool.seed) + n * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

uint32_t gr_guarded_draw(void) {
    uint64_t most = 2 * word_peek(&gr_guarded_one_in) - 1;
    return 1 + (uint32_t)(chance(word_add_relaxed(&pool.drawn, 1)) % most);
}

/* ---- places ---- */

static char *pool_base(void) { return ref_load_acquire(&pool.base); } /* [acquire pool-born] */

static char *page_of(unsigned slot) { return pool_base() + (2 * slot + 1) * os_page_bytes(); }

/* The page of the pool that p is in; POOL_PAGES or more: none. */
static size_t pool_page(const void *p) {
    uintptr_t base = (uintptr_t)pool_base();
    return base ? ((uintptr_t)p - base) / os_page_bytes() : SIZE_MAX;
}

static unsigned state_of(unsigned slot) { return word_load_relaxed(&states[slot]) & STATE_MASK; }

static const char *start_of(unsigned slot) { return ref_load_relaxed(&records[slot].start); }
static size_t bytes_of(unsigned slot) { return word_load_relaxed(&records[slot].bytes); }

/* ---- reports ---- */

static void note(struct deed *d, const void *frame) {
    struct trace t;
    gr_trace(frame, &t);
    half_store_relaxed(&d->thread, t.thread);
    half_store_relaxed(&d->depth, t.depth);
    for (uint32_t i = 0; i < t.depth; i++)
        ref_store_relaxed(&d->call[i], (void *)(uintptr_t)t.call[i]);
}

static void forget(struct deed *d) { half_store_relaxed(&d->thread, 0); }

GR_COLD static void print_deed(const char *what, const struct deed *d) {
    struct trace t = {.thread = half_load_relaxed(&d->thread), .depth = half_load_relaxed(&d->depth)};
    for (uint32_t i = 0; i < t.depth && i < TRACE_FRAMES; i++)
        t.call[i] = ref_load_relaxed(&d->call[i]);
    if (t.thread)
        gr_trace_print(what, &t);
}

GR_COLD static void print_deeds(unsigned slot) {
    print_deed("freed by", &records[slot].freed);
    print_deed("allocated by", &records[slot].allocated);
}

GR_COLD static void line_block(struct line *l, unsigned slot, bool with_address) {
    line_number(l, bytes_of(slot));
    line_text(l, "-byte block");
    if (with_address) {
        line_text(l, " ");
        line_pointer(l, start_of(slot));
    }
}

/* "byte -3", counted from the block's start */
GR_COLD static void line_byte(struct line *l, unsigned slot, const void *at) {
    intptr_t offset = (const char *)at - start_of(slot);
    line_text(l, offset < 0 ? "byte -" : "byte ");
    line_number(l, (uint64_t)(offset < 0 ? -offset : offset));
}

GR_COLD GR_NORETURN static void end(struct line *l, unsigned slot, const char *deed, const void *frame) {
    struct trace here;
    line_write(l, 2);
    gr_trace(frame, &here);
    gr_trace_print(deed, &here);
    print_deeds(slot);
    gr_abort();
}

/* p points among the slots and is no live block's start. */
GR_COLD GR_NORETURN static void not_a_block(const void *p, const char *call, const void *frame) {
    size_t page = pool_page(p);
    unsigned slot = (unsigned)min_size(page / 2, GUARDED_SLOTS - 1);
    struct line l;
    if (start_of(slot) == p) {
        line_call(&l, "double free", call, p);
        line_text(&l, ") of a ");
        line_block(&l, slot, false);
    } else {
        line_call(&l, "invalid free", call, p);
        line_text(&l, ") is not the start of a block");
        if (page % 2 && start_of(slot)) {
            line_text(&l, " (");
            line_byte(&l, slot, p);
            line_text(&l, state_of(slot) == LIVE ? " of the " : " of the free ");
            line_block(&l, slot, true);
            line_text(&l, ")");
        }
    }
    end(&l, slot, "called by", frame);
}

GR_COLD GR_NORETURN static void written_beside(unsigned slot, const void *at, const char *call, const void *frame) {
    struct line l;
    line_call(&l, (const char *)at < start_of(slot) ? "underflow" : "overflow", call, start_of(slot));
    line_text(&l, ") of a ");
    line_block(&l, slot, false);
    line_text(&l, ": ");
    line_byte(&l, slot, at);
    line_text(&l, " was written");
    end(&l, slot, "found by", frame);
}

/* ---- faults ---- */

static size_t distance(unsigned slot, const char *at) {
    const char *start = start_of(slot), *past = start + bytes_of(slot);
    return !start ? SIZE_MAX : at < start ? (size_t)(start - at) : at < past ? 0 : (size_t)(at - past);
}

/* Whose guard was hit: of the two blocks beside it the live one, else the nearer. */
static unsigned slot_of_guard(size_t page, const char *at) {
    unsigned right = (unsigned)(page / 2), left = right ? right - 1 : 0;
    right = right < GUARDED_SLOTS ? right : GUARDED_SLOTS - 1;
    bool left_lives = state_of(left) == LIVE, right_lives = state_of(right) == LIVE;
    if (left_lives != right_lives)
        return left_lives ? left : right;
    return distance(left, at) <= distance(right, at) ? left : right;
}

GR_COLD static void on_fault(const struct os_fault *f) {
    size_t page = pool_page(f->at);
    if (page >= POOL_PAGES)
        return;
    unsigned slot = page % 2 ? (unsigned)(page / 2) : slot_of_guard(page, f->at);
    if (!start_of(slot))
        return;
    bool after = page % 2 || state_of(slot) != LIVE;
    struct line l;
    struct trace here;
    line_fatal(&l, after ? "use after free" : (const char *)f->at < start_of(slot) ? "underflow" : "overflow");
    line_text(&l, f->verb);
    line_text(&l, " of ");
    line_byte(&l, slot, f->at);
    line_text(&l, after ? " of the free " : " of the ");
    line_block(&l, slot, true);
    line_write(&l, 2);
    gr_trace_from(f->code, f->frame, &here);
    gr_trace_print("by", &here);
    print_deeds(slot);
}

/* ---- blocks ---- */

void gr_guarded_start(uint64_t one_in, uint64_t seed) {
    size_t bytes = POOL_PAGES * os_page_bytes();
    char *base = os_map(bytes);
    if (!base || !os_guard(base, bytes, os_guards_split())) {
        if (base)
            os_unmap(base, bytes);
        return;
    }
    os_want_huge_pages(base, bytes, false);
    word_store_relaxed(&pool.seed, seed);
    os_at_fault(on_fault);
    ref_store_release(&pool.base, base); /* [release pool-born] */
    word_store_relaxed(&gr_guarded_one_in, one_in);
}

/* The slot that has been closed for longest. False: none is closed. */
static bool claim(unsigned *slot, uint64_t *stamp) {
    for (;;) {
        uint64_t least = UINT64_MAX;
        for (unsigned i = 0; i < GUARDED_SLOTS; i++) {
            uint64_t seen = word_load_relaxed(&states[i]);
            if ((seen & STATE_MASK) == CLOSED && seen < least) {
                least = seen;
                *slot = i;
            }
        }
        if (least == UINT64_MAX)
            return false;
        *stamp = least & ~(uint64_t)STATE_MASK;
        if (word_cas_strong_acq_rel(&states[*slot], &least, *stamp | HELD)) /* [acquire guarded-shut] */
            return true;
    }
}

static void close_as(unsigned slot, uint64_t stamp) {
    word_store_release(&states[slot], stamp | CLOSED); /* [release guarded-shut] */
}

/* What is held is closed; where the system refuses a guard, at least it reads as zero. */
static void close_slot(unsigned slot) {
    size_t page = os_page_bytes();
    if (!os_guard(page_of(slot), page, os_guards_split()))
        memset(page_of(slot), 0, page);
    close_as(slot, (word_add_relaxed(&pool.stamp, 1) + 1) << STATE_BITS);
}

void *gr_guarded_alloc(size_t n, size_t align, size_t room, const void *frame) {
    size_t page = os_page_bytes();
    unsigned slot;
    uint64_t stamp;
    n = n ? n : 1;
    if (!pool_base() || !guarded_fits(n, align) || !claim(&slot, &stamp))
        return NULL;
    char *open = page_of(slot);
    if (!os_unguard(open, page, os_guards_split())) {
        close_as(slot, stamp);
        return NULL;
    }
    bool at_end = chance(~(stamp * GUARDED_SLOTS + slot)) & 1;
    size_t before = at_end ? (page - n) & ~(max_size(align, MIN_ALIGN) - 1) : 0;
    struct record *r = &records[slot];
    memset(open, SLACK_MARK, before);
    memset(open + before + n, SLACK_MARK, page - before - n);
    ref_store_relaxed(&r->start, open + before);
    word_store_relaxed(&r->bytes, n);
    word_store_relaxed(&r->room, room);
    note(&r->allocated, frame);
    forget(&r->freed);
    word_store_release(&states[slot], stamp | LIVE); /* [release guarded-open] */
    return open + before;
}

/* The slot of a live block, and its state. False: p does not point among the slots. */
static bool find(const void *p, unsigned *slot, uint64_t *seen, const char *call, const void *frame) {
    size_t page = pool_page(p);
    if (page >= POOL_PAGES)
        return false;
    *slot = (unsigned)(page / 2);
    if (!(page % 2))
        not_a_block(p, call, frame);
    *seen = word_load_acquire(&states[*slot]); /* [acquire guarded-open] */
    if ((*seen & STATE_MASK) != LIVE || start_of(*slot) != p)
        not_a_block(p, call, frame);
    return true;
}

/* The first byte that is not the mark; NULL: there is none. */
static const char *first_written(const char *from, const char *to) {
    if (from == to || ((unsigned char)*from == SLACK_MARK && !memcmp(from, from + 1, (size_t)(to - from) - 1)))
        return NULL;
    while ((unsigned char)*from == SLACK_MARK)
        from++;
    return from;
}

static void check_slack(unsigned slot, const char *call, const void *frame) {
    const char *open = page_of(slot), *start = start_of(slot), *past = start + bytes_of(slot);
    const char *at = first_written(past, open + os_page_bytes());
    if (!at)
        at = first_written(open, start);
    if (at)
        written_beside(slot, at, call, frame);
}

bool gr_guarded_free(void *p, const char *call, const void *frame) {
    unsigned slot;
    uint64_t seen;
    if (!find(p, &slot, &seen, call, frame))
        return false;
    uint64_t held = (seen & ~(uint64_t)STATE_MASK) | HELD;
    if (!word_cas_strong_acq_rel(&states[slot], &seen, held)) /* [acquire guarded-open] */
        not_a_block(p, call, frame);
    check_slack(slot, call, frame);
    note(&records[slot].freed, frame);
    close_slot(slot);
    return true;
}

size_t gr_guarded_bytes(const void *p, size_t *room, const char *call, const void *frame) {
    unsigned slot;
    uint64_t seen;
    if (!find(p, &slot, &seen, call, frame))
        return 0;
    *room = word_load_relaxed(&records[slot].room);
    return bytes_of(slot);
}

size_t gr_guarded_pages(void) {
    size_t live = 0;
    for (unsigned slot = 0; guarded_in_use() && slot < GUARDED_SLOTS; slot++)
        live += state_of(slot) == LIVE;
    return live;
}

void gr_guarded_repair(void) {
    for (unsigned slot = 0; guarded_in_use() && slot < GUARDED_SLOTS; slot++)
        if (state_of(slot) == HELD)
            close_slot(slot);
}
