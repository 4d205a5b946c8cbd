/* fuzz_calls.c -- any sequence of calls by four threads, against a model that knows every block: nothing is lost, changed,
 * handed out twice, badly aligned or too small, whatever interrupts whom and whatever the system refuses.
 *
 * The threads are lanes that take turns: one of them has the baton, the others wait. A record of the input says which lane
 * makes which call, and may say before which of the call's atomic steps the baton passes on, so that other lanes' calls
 * happen in the middle of it. It also moves the library's clock, lets system calls fail, and ends lanes, whose next record
 * is a newborn thread's. Blocks are everybody's: who frees one is as likely as not another lane than who made it.
 *
 * The interleaving is sequentially consistent; weaker orders are the business of the models and of ThreadSanitizer.
 *
 * covers: S127 C1 C4 C5 C10 C11 C13 C14
 */
/* test: args="--seconds 3" link=granary_points wrap=mmap,munmap,madvise,mremap,mprotect,clock_gettime timeout=120 */
#include "fuzz.h"

#include "oom_fault.h"

#include <granary.h>
#include <semaphore.h>

enum {
    LANES = 4,
    SLOTS = 1024,
    PAGE = 4096,
    GRANULE = 65536,
    FULL_BYTES = 4096,       /* the pattern covers so much of a block's start, then a word */
    PAGES_BYTES = 256 << 10, /* in each page of a block up to this size, in each granule of a larger one, */
    EDGE_BYTES = 64,         /* and the end */
    MANY_BYTES = 1 << 20,    /* in blocks that one record allocates */
    MAX_LIVE_BYTES = 384 << 20,
    IDLE_BYTES = 8 << 20, /* what may be in use with no block alive: slabs that wait */
    NO_ERROR = 4242
};

struct record {
    uint8_t verb;
    uint8_t lane;  /* and the variant of the verb in the bits above 2 */
    uint8_t steps; /* from 128 on: the baton passes before atomic step number steps - 127 of the call */
    uint8_t size_kind;
    uint16_t slot;
    uint16_t size;
};

/* A block that lives. */
struct block {
    unsigned char *ptr; /* NULL: none */
    size_t size;        /* bytes that carry the pattern */
    size_t usable;
    unsigned log_align; /* 0: of a call without alignment */
    bool exact;         /* size is what was asked for, so the sized calls may free it */
    bool in_call;       /* a call that is under way will put a block here */
    uint64_t seed;      /* of the pattern */
};

struct lane {
    sem_t go;
    pthread_t thread;
    bool alive, in_call;
    unsigned steps_to_go; /* 0: the call goes on to its end */
};

/* The library has no thread of its own here: slow paths do what it would. */
const char *granary_conf = "housekeeping:0";

static struct lane lanes[LANES];
static _Thread_local int me = LANES; /* no lane: a thread that takes no turns has no part in what an input does */
static int dead = -1;                /* a lane that has ended and waits to be joined by whoever goes on */

static struct record records[fuzz_max_input / sizeof(struct record)];
static size_t records_count, records_at;
static bool over;

static struct block blocks[SLOTS];
static uint16_t sorted[SLOTS]; /* slots of live blocks by address */
static size_t live_count, live_bytes;
static uint64_t next_seed;
static size_t edges[256], edges_count;

/* ---- the library's clock ---- */

static uint64_t clock_ms;

int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out) {
    if (clock != CLOCK_MONOTONIC_COARSE)
        return __real_clock_gettime(clock, out);
    *out = (struct timespec){(time_t)(clock_ms / 1000), (long)(clock_ms % 1000) * 1000000};
    return 0;
}

/* ---- the baton ---- */

static void *lane_life(void *lane);

static void wait_for_baton(void) {
    while (sem_wait(&lanes[me].go) != 0) {
    }
    if (dead >= 0) {
        storm_join(lanes[dead].thread);
        lanes[dead].alive = false;
        dead = -1;
    }
}

static void pass_baton(int to) {
    if (!lanes[to].alive) {
        lanes[to].alive = true;
        lanes[to].thread = storm_thread(lane_life, (void *)(intptr_t)to);
    }
    sem_post(&lanes[to].go);
}

static int lane_of_next_record(void) { return records_at < records_count ? records[records_at].lane % LANES : 0; }

/* Before each atomic step of the library. */
void gr_test_point(void);
void gr_test_point(void) {
    if (!lanes[0].alive) /* the library starts */
        return;
    REQUIRE(me < LANES, "a thread that is no lane uses the library");
    struct lane *lane = &lanes[me];
    if (lane->steps_to_go == 0 || --lane->steps_to_go > 0)
        return;
    int next = lane_of_next_record(), saved = errno;
    if (next == me || over)
        return;
    pass_baton(next);
    wait_for_baton();
    errno = saved;
}

/* ---- the pattern: byte i follows from seed and i alone, so what realloc kept of it is one ---- */

enum { NOISE_BYTES = 8209 }; /* of no power of two: a page or a granule in the wrong place shows */

static unsigned char noise[2 * NOISE_BYTES];

/* The pattern of a part of at most NOISE_BYTES. */
static const unsigned char *pattern_at(const struct block *block, size_t i) {
    return &noise[(block->seed + i) % NOISE_BYTES];
}

/* Calls visit for the parts of [0, size) that carry the pattern; a part that began below size is cut there. */
static bool pattern_parts(struct block *block, size_t size,
                          bool (*visit)(struct block *block, size_t from, size_t to)) {
    size_t stride = block->size <= PAGES_BYTES ? PAGE : GRANULE, full = size < FULL_BYTES ? size : FULL_BYTES;
    bool good = visit(block, 0, full);
    for (size_t at = FULL_BYTES; at + 8 <= block->size && at + 8 <= size; at += stride)
        good = good && visit(block, at, at + 8);
    size_t edge = block->size < FULL_BYTES + EDGE_BYTES ? full : block->size - EDGE_BYTES;
    return good && (edge >= size || visit(block, edge, size < block->size ? size : block->size));
}

static bool write_part(struct block *block, size_t from, size_t to) {
    memcpy(block->ptr + from, pattern_at(block, from), to - from);
    return true;
}

static bool part_holds(struct block *block, size_t from, size_t to) {
    REQUIRE(memcmp(block->ptr + from, pattern_at(block, from), to - from) == 0,
            "block %p of %zu bytes: bytes %zu to %zu have changed", (void *)block->ptr, block->size, from, to);
    return true;
}

static void fill(struct block *block) {
    block->seed = mix(++next_seed) >> 1;
    pattern_parts(block, block->size, write_part);
}

static void verify(struct block *block) { pattern_parts(block, block->size, part_holds); }

/* Of a block with an edge at `size`, so that a byte too few or too many shows. */
static void mark_edge(struct block *block, size_t size) {
    write_part(block, size < EDGE_BYTES ? 0 : size - EDGE_BYTES, size < block->size ? size : block->size);
}

static void must_be_zero(const unsigned char *ptr, size_t size) {
    size_t all = size <= PAGES_BYTES ? size : FULL_BYTES;
    REQUIRE(all_bytes_are(ptr, all, 0), "calloc gave %p of %zu bytes, not zero", (const void *)ptr, size);
    for (size_t at = all; at + PAGE <= size; at += size <= 1 * MIB ? PAGE : GRANULE)
        REQUIRE(all_bytes_are(ptr + at, EDGE_BYTES, 0), "calloc gave %p of %zu bytes, not zero from %zu on",
                (const void *)ptr, size, at);
}

/* ---- the model ---- */

/* Where a block at ptr stands, or would stand, in `sorted`. */
static size_t place_of(const unsigned char *ptr) {
    size_t low = 0, high = live_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[sorted[middle]].ptr < ptr)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void must_be_apart(const struct block *low, const struct block *high) {
    REQUIRE(low->ptr + low->usable <= high->ptr, "blocks overlap: %p of %zu usable bytes, %p of %zu", (void *)low->ptr,
            low->usable, (void *)high->ptr, high->usable);
}

static void model_add(uint16_t slot, struct block block) {
    size_t at = place_of(block.ptr);
    if (at > 0)
        must_be_apart(&blocks[sorted[at - 1]], &block);
    if (at < live_count)
        must_be_apart(&block, &blocks[sorted[at]]);
    memmove(&sorted[at + 1], &sorted[at], (live_count - at) * sizeof *sorted);
    sorted[at] = slot;
    blocks[slot] = block;
    blocks[slot].in_call = false;
    live_count++;
    live_bytes += block.usable;
}

/* Takes the block, if there is one, out of the model and verifies it. Until model_return nobody uses the slot. */
static struct block model_take(uint16_t slot) {
    struct block block = blocks[slot];
    blocks[slot].in_call = true;
    if (!block.ptr)
        return block;
    size_t at = place_of(block.ptr);
    REQUIRE(at < live_count && sorted[at] == slot, "slot %u", slot);
    memmove(&sorted[at], &sorted[at + 1], (live_count - at - 1) * sizeof *sorted);
    blocks[slot].ptr = NULL;
    live_count--;
    live_bytes -= block.usable;
    verify(&block);
    size_t usable = granary_malloc_usable_size(block.ptr);
    REQUIRE(usable == block.usable, "%p: usable %zu, then %zu", (void *)block.ptr, block.usable, usable);
    return block;
}

/* Puts back what was taken out, if anything. */
static void model_return(uint16_t slot, struct block block) {
    if (block.ptr)
        model_add(slot, block);
    else
        blocks[slot].in_call = false;
}

/* ---- sizes ---- */

static size_t near_edge(size_t edge, unsigned which) { return edge + which % 3 - 1; }

static size_t size_of(const struct record *r) {
    unsigned v = r->size;
    switch (r->size_kind % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
        return v % 1025;
    case 4:
    case 5:
    case 6:
    case 7:
        return near_edge(edges[v % edges_count], (unsigned)(v / edges_count));
    case 8:
    case 9:
        return v;
    case 10:
    case 11:
        return near_edge((size_t)(1 + v % 64) * PAGE, v / 64);
    case 12:
    case 13:
        return near_edge((size_t)(1 + v % 40) * GRANULE, v / 40);
    case 14:
        return (size_t)v << 8;
    default:
        return near_edge(64 * MIB + (size_t)(v % 3) * PAGE + (size_t)(v / 3 % 3) * GRANULE, v / 9);
    }
}

/* What no machine has. */
static size_t absurd_size(unsigned v) {
    static const size_t tops[] = {SIZE_MAX, (size_t)PTRDIFF_MAX + 1 + UINT16_MAX, SIZE_MAX / 2 + 1 + UINT16_MAX};
    return tops[v % COUNT_OF(tops)] - v;
}

/* ---- calls ---- */

/* A refusal needs a reason: a system call that was made to fail while the call was made. */
static void must_be_excused(const char *call, size_t size, int error, long fired_before) {
    REQUIRE(error == ENOMEM && atomic_load(&fault.fired) > fired_before, "%s of %zu bytes: refused with errno %d", call,
            size, error);
}

static void allocate(uint16_t slot, size_t size, unsigned variant) {
    if (blocks[slot].ptr || blocks[slot].in_call || live_bytes + size > MAX_LIVE_BYTES)
        return;
    blocks[slot].in_call = true;
    static const char *const names[] = {"malloc",       "calloc",     "calloc",        "realloc",
                                        "reallocarray", "reallocarr", "aligned_alloc", "posix_memalign",
                                        "memalign",     "valloc",     "pvalloc"};
    unsigned call = variant % COUNT_OF(names), log_align = 4;
    int error = 0, expected = NO_ERROR;
    long fired = atomic_load(&fault.fired);
    void *out = NULL;
    if (call >= 6)
        log_align = call >= 9 ? 12 : 4 + (unsigned)(size + variant) % (variant % 2 ? 10 : 24);
    size_t align = (size_t)1 << log_align;
    errno = NO_ERROR;
    switch (call) {
    case 0:
        out = granary_malloc(size);
        break;
    case 1:
        out = granary_calloc(1, size);
        break;
    case 2:
        out = size % 8 ? granary_calloc(size, 1) : granary_calloc(size / 8, 8);
        break;
    case 3:
        out = granary_realloc(NULL, size);
        break;
    case 4:
        out = granary_reallocarray(NULL, size, 1);
        break;
    case 5:
        size += size == 0; /* of nothing it makes NULL */
        error = granary_reallocarr(&out, 1, size);
        break;
    case 6:
        out = granary_aligned_alloc(align, size);
        break;
    case 7:
        error = granary_posix_memalign(&out, align, size);
        break;
    case 8:
        out = granary_memalign(align - (align > 16 && size % 2), size);
        break;
    case 9:
        out = granary_valloc(size);
        break;
    default:
        out = granary_pvalloc(size);
        size = (size + (size == 0) + PAGE - 1) & ~(size_t)(PAGE - 1);
    }
    if (!out) {
        if (call != 5 && call != 7)
            expected = error = errno;
        must_be_excused(names[call], size, error, fired);
    }
    REQUIRE(errno == expected, "%s of %zu bytes: errno %d", names[call], size, errno);
    if (!out) {
        model_return(slot, (struct block){0});
        return;
    }
    struct block block = {.ptr = out, .size = size, .exact = call < 9, .log_align = call >= 6 ? log_align : 0};
    block.usable = granary_malloc_usable_size(out);
    REQUIRE(is_aligned(out, align), "%s: %p is not aligned to %zu", names[call], out, align);
    REQUIRE(block.usable >= size && block.usable == granary_nallocx(size, (int)log_align),
            "%s: %p of %zu bytes has %zu, not %zu", names[call], out, size, block.usable,
            granary_nallocx(size, (int)log_align));
    if (call == 1 || call == 2)
        must_be_zero(out, block.usable);
    if (variant & 32) { /* whatever is usable may be used */
        block.exact = block.exact && block.usable == block.size;
        block.size = block.usable;
    }
    fill(&block);
    model_return(slot, block);
}

static void release(uint16_t slot, unsigned variant) {
    if (blocks[slot].in_call)
        return;
    struct block block = model_take(slot);
    void *ptr = block.ptr;
    model_return(slot, (struct block){0});
    errno = NO_ERROR;
    switch (variant % 8) {
    case 0:
    case 1:
        if (!block.exact)
            granary_free(ptr);
        else if (block.log_align)
            granary_free_aligned_sized(ptr, (size_t)1 << block.log_align, block.size);
        else
            granary_free_sized(ptr, block.size);
        break;
    case 2:
        if (block.exact)
            granary_sdallocx(ptr, block.size, (int)block.log_align);
        else
            granary_free(ptr);
        break;
    case 3:
        if (ptr)
            REQUIRE(!granary_realloc(ptr, 0), "realloc to 0 bytes gave a block");
        break;
    case 4:
        REQUIRE(granary_reallocarr(&ptr, 0, 1) == 0 && !ptr, "reallocarr to 0 bytes gave %p", ptr);
        break;
    default:
        granary_free(ptr);
    }
    REQUIRE(errno == NO_ERROR, "free of %p: errno %d", (void *)block.ptr, errno);
}

static void resize(uint16_t slot, size_t size, unsigned variant) {
    struct block block = blocks[slot];
    if (block.in_call || live_bytes + size > MAX_LIVE_BYTES)
        return;
    if (variant & 16) /* by a little, as strings grow */
        size = block.size + size % 512;
    size += size == 0;
    block = model_take(slot);
    if (block.ptr && size < block.size)
        mark_edge(&block, size);
    long fired = atomic_load(&fault.fired);
    int error = 0, expected = NO_ERROR;
    void *out = block.ptr;
    errno = NO_ERROR;
    switch (variant % 4) {
    case 0:
        error = granary_reallocarr(&out, size, 1);
        break;
    case 1:
        out = granary_reallocarray(out, 1, size);
        break;
    default:
        out = granary_realloc(out, size);
    }
    if (variant % 4 && !out)
        expected = error = errno;
    REQUIRE(errno == expected, "realloc of %p to %zu bytes: errno %d", (void *)block.ptr, size, errno);
    if (error || !out) {
        must_be_excused("realloc", size, error, fired);
        model_return(slot, block);
        return;
    }
    size_t usable = granary_malloc_usable_size(out), kept = block.ptr ? block.size : 0;
    REQUIRE(is_aligned(out, 16) && usable >= size, "realloc to %zu bytes: %p has %zu", size, out, usable);
    block.ptr = out;
    if (kept)
        pattern_parts(&block, size < kept ? size : kept, part_holds);
    if (size < kept)
        part_holds(&block, size < EDGE_BYTES ? 0 : size - EDGE_BYTES, size);
    block = (struct block){.ptr = out, .size = size, .usable = usable, .exact = true};
    fill(&block);
    model_return(slot, block);
}

/* Calls that must fail and change nothing. */
static void refuse(uint16_t slot, const struct record *r, unsigned variant) {
    size_t absurd = absurd_size(r->size), factor = (size_t)2 + r->size % 1000;
    if (blocks[slot].in_call)
        return;
    struct block block = model_take(slot);
    void *out = block.ptr;
    int error = ENOMEM, returned = 0;
    errno = NO_ERROR;
    switch (variant % 12) {
    case 0:
        out = granary_malloc(absurd);
        break;
    case 1:
        out = granary_calloc(1, absurd);
        break;
    case 2:
        out = granary_calloc(SIZE_MAX / factor + 1, factor);
        break;
    case 3:
        out = granary_realloc(out, absurd);
        break;
    case 4:
        out = granary_reallocarray(out, SIZE_MAX / factor + 1, factor);
        break;
    case 5:
        returned = granary_reallocarr(&out, SIZE_MAX / factor + 1, factor);
        REQUIRE(returned == EOVERFLOW && out == block.ptr, "reallocarr: %d, %p", returned, out);
        break;
    case 6:
        returned = granary_posix_memalign(&out, 64, absurd);
        REQUIRE(returned == ENOMEM && out == block.ptr, "posix_memalign: %d, %p", returned, out);
        break;
    case 7:
        returned = granary_posix_memalign(&out, factor | 1, r->size);
        REQUIRE(returned == EINVAL && out == block.ptr, "posix_memalign: %d, %p", returned, out);
        break;
    case 8:
        out = granary_aligned_alloc((size_t)1 << (r->slot % 40), absurd);
        break;
    case 9:
        out = granary_aligned_alloc(factor | 1, r->size);
        error = EINVAL;
        break;
    case 10:
        out = granary_memalign(SIZE_MAX - r->size, r->size);
        error = EINVAL;
        break;
    default:
        out = r->size % 2 ? granary_pvalloc(absurd) : granary_valloc(absurd);
    }
    REQUIRE(returned ? errno == NO_ERROR : !out && errno == error, "refusal %u: %p, errno %d", variant % 12, out,
            errno);
    if (block.ptr)
        verify(&block);
    model_return(slot, block);
}

static void look_at_figures(void) {
    struct granary_stats stats;
    size_t threads = 0, calls = 0;
    for (int i = 0; i < LANES; i++) {
        threads += lanes[i].alive;
        calls += lanes[i].in_call && i != me;
    }
    bool alone = calls == 0 && lanes[me].steps_to_go == 0; /* the sums are of one moment */
    granary_get_stats(&stats);
    REQUIRE(!alone ||
                (stats.threads <= threads && stats.used_bytes >= live_bytes && stats.mapped_bytes >= stats.used_bytes),
            "%zu threads of %zu, %zu bytes used of %zu mapped, %zu live", stats.threads, threads, stats.used_bytes,
            stats.mapped_bytes, live_bytes);
}

/* The next so many system calls of a kind go well, then one fails, or all do until the next such record. */
static void set_fault(const struct record *r) {
    static const int errors[] = {ENOMEM, EAGAIN, EINVAL, EPERM};
    static const unsigned kinds[] = {FAULT_MMAP, FAULT_MUNMAP, FAULT_MADVISE, FAULT_MREMAP, FAULT_MPROTECT, FAULT_ANY};
    long fired = atomic_load(&fault.fired);
    if (r->slot % 4 == 0)
        fault_disarm();
    else
        fault_arm(kinds[r->size % COUNT_OF(kinds)], 1 + r->size / 64 % 16, r->slot % 4 == 1, errors[r->size / 8 % 4]);
    atomic_store(&fault.fired, fired);
}

enum verb { ALLOCATE, ALLOCATE_MANY, RELEASE, RELEASE_MANY, RESIZE, REFUSE, TRIM, FIGURES, TIME, FAULT, END };

static const enum verb verbs[32] = {
    ALLOCATE,      ALLOCATE,      ALLOCATE,      ALLOCATE,     ALLOCATE, ALLOCATE, ALLOCATE, ALLOCATE,
    ALLOCATE_MANY, ALLOCATE_MANY, ALLOCATE_MANY, RELEASE,      RELEASE,  RELEASE,  RELEASE,  RELEASE,
    RELEASE,       RELEASE_MANY,  RELEASE_MANY,  RELEASE_MANY, RESIZE,   RESIZE,   RESIZE,   RESIZE,
    RESIZE,        RESIZE,        REFUSE,        TRIM,         FIGURES,  TIME,     FAULT,    END};

/* Returns false if the lane ends. */
static bool perform(const struct record *r) {
    uint16_t slot = r->slot % SLOTS;
    unsigned variant = r->lane / LANES;
    struct lane *lane = &lanes[me];
    lane->in_call = true;
    lane->steps_to_go = r->steps >= 128 ? r->steps - 127u : 0;
    enum verb verb = verbs[r->verb % COUNT_OF(verbs)];
    size_t many = 1 + r->slot / SLOTS * 8u;
    switch (verb) {
    case ALLOCATE:
        allocate(slot, size_of(r), variant);
        break;
    case ALLOCATE_MANY:
        for (size_t i = 0; i < many && i * size_of(r) < MANY_BYTES; i++)
            allocate((uint16_t)((slot + i) % SLOTS), size_of(r), variant);
        break;
    case RELEASE:
        release(slot, variant);
        break;
    case RELEASE_MANY:
        for (size_t i = 0; i < many; i++)
            release((uint16_t)((slot + i * (1 + r->size % 4)) % SLOTS), variant);
        break;
    case RESIZE:
        resize(slot, size_of(r), variant);
        break;
    case REFUSE:
        refuse(slot, r, variant);
        break;
    case TRIM:
        errno = NO_ERROR;
        (void)(variant % 2 ? granary_trim() : granary_malloc_trim((size_t)r->size << 8));
        REQUIRE(errno == NO_ERROR, "trim: errno %d", errno);
        break;
    case FIGURES:
        look_at_figures();
        break;
    case TIME:
        clock_ms += r->size % 4 ? r->size % 2048 : r->size;
        break;
    case FAULT:
        set_fault(r);
        break;
    default:
        break;
    }
    lane->in_call = false;
    lane->steps_to_go = 0;
    return verb != END || me == 0;
}

/* With the baton: makes the calls of this lane's records and passes the baton on for others. Returns with it. */
static void take_turns(void) {
    while (!over) {
        int next = lane_of_next_record();
        if (next != me) {
            pass_baton(next);
            wait_for_baton();
        } else if (records_at >= records_count) {
            over = true; /* lane 0 comes here: it is the one that is next when nothing is left */
        } else if (!perform(&records[records_at++])) {
            return;
        }
    }
}

static void *lane_life(void *lane) {
    me = (int)(intptr_t)lane;
    wait_for_baton();
    take_turns();
    if (!over) { /* this thread ends as threads do: who is next waits for that */
        int next = lane_of_next_record();
        dead = me;
        pass_baton(next == me ? 0 : next);
    }
    return NULL;
}

static void judge_the_rest(void) {
    for (int i = 1; i < LANES; i++)
        if (lanes[i].alive) {
            sem_post(&lanes[i].go); /* finishes the call that it stands in, if any, and ends */
            storm_join(lanes[i].thread);
            lanes[i].alive = false;
        }
    fault_disarm();
    look_at_figures();
    for (uint16_t slot = 0; slot < SLOTS; slot++)
        release(slot, slot);
    granary_trim();
    granary_trim();
    struct granary_stats stats;
    granary_get_stats(&stats);
    REQUIRE(stats.threads <= 1 && stats.huge_bytes == 0 && stats.used_bytes <= IDLE_BYTES && stats.cached_bytes == 0,
            "nothing lives, and %zu threads, %zu bytes used, %zu cached, %zu huge", stats.threads, stats.used_bytes,
            stats.cached_bytes, stats.huge_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool started;
    if (!started) {
        started = true;
        me = 0;
        struct rng rng = {1};
        for (size_t i = 0; i < NOISE_BYTES; i++)
            noise[i] = noise[i + NOISE_BYTES] = (unsigned char)rng_next(&rng);
        for (int i = 0; i < LANES; i++)
            sem_init(&lanes[i].go, 0, 0);
        for (size_t edge = 1; edge && edge <= 300 * KIB && edges_count < COUNT_OF(edges);
             edge = granary_nallocx(edge + 1, 0))
            edges[edges_count++] = edge;
    }
    records_count = size / sizeof *records < COUNT_OF(records) ? size / sizeof *records : COUNT_OF(records);
    memcpy(records, data, records_count * sizeof *records);
    records_at = 0;
    over = false;
    lanes[0].alive = true;
    take_turns();
    judge_the_rest();
    return 0;
}

static size_t fuzz_draw(struct rng *rng, uint8_t *data) {
    size_t size = rng_below(rng, fuzz_max_input + 1);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)rng_next(rng);
    return size;
}

#ifndef STRESS_LIBFUZZER
int main(int argc, char **argv) { return fuzz_main(argc, argv, STRESS_DIR "/corpus/fuzz_calls"); }
#endif
