/* oom_sweep.c -- the N-th system call fails, for N = 1, 2, 3 ... until none is left to fail.
 *
 * Each N is a child of its own, born before the first malloc: it runs a load in which every call may be refused but
 * none may lie, then the same load with a kind system, which must be served in full and leave nothing behind.
 *
 * covers: S91 S92 S98 S99 C10
 */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect timeout=120 */
#include "oom_fault.h"
#include "semantics_calls.h"

enum { FIRED = 0, NOT_REACHED = 40, MOST = 4000, BLOCKS = 1200 };

struct held {
    unsigned char *ptr;
    size_t size;
};

static struct {
    struct held blocks[BLOCKS];
    size_t count;
    size_t refused;
    bool alone; /* no new thread: ThreadSanitizer does not follow them into a forked child */
} load;

/* Marks at the start, in the middle and at the end, or at the start of a tiny one: a large block stays cheap. */
static void mark(struct held held, bool write) {
    const size_t places[] = {0, held.size / 2, held.size - 8};
    size_t marks = held.size >= 32 ? COUNT_OF(places) : held.size >= 8;
    for (size_t i = 0; i < marks; i++) {
        uint64_t expected = mix((uintptr_t)held.ptr + i);
        if (write) {
            memcpy(held.ptr + places[i], &expected, 8);
        } else {
            must(memcmp(held.ptr + places[i], &expected, 8) == 0);
        }
    }
}

static void hold(void *ptr, size_t size) {
    if (ptr == NULL) {
        must(errno == ENOMEM);
        load.refused++;
        return;
    }
    must(load.count < BLOCKS);
    load.blocks[load.count] = (struct held){ptr, size};
    mark(load.blocks[load.count++], true);
}

static void hold_zeroed(size_t size) {
    errno = 0;
    unsigned char *ptr = granary_calloc(1, size);
    if (ptr != NULL && size <= MIB) {
        must(all_bytes_are(ptr, granary_malloc_usable_size(ptr), 0));
    } else if (ptr != NULL) {
        for (size_t at = 0; at < size; at += 16 * KIB) { /* each page would cost more than all the rest */
            must(ptr[at] == 0);
        }
    }
    hold(ptr, size);
}

static void resize(size_t index, size_t size) {
    struct held *held = &load.blocks[index];
    mark(*held, false);
    uint64_t first = mix((uintptr_t)held->ptr);
    errno = 0;
    unsigned char *moved = granary_realloc(held->ptr, size);
    if (moved == NULL) {
        must(errno == ENOMEM);
        load.refused++;
        mark(*held, false);
        return;
    }
    must(memcmp(moved, &first, 8) == 0);
    *held = (struct held){moved, size};
    mark(*held, true);
}

static void free_from(size_t index) {
    while (load.count > index) {
        struct held held = load.blocks[--load.count];
        mark(held, false);
        errno = ERRNO_MARK;
        granary_free(held.ptr);
        must(errno == ERRNO_MARK);
    }
}

static void allocate_in_destructor(void *key) {
    errno = 0;
    hold(granary_malloc(700), 700);
    granary_free(key);
}

/* A thread whose first call is refused, and whose last one comes from a key's destructor. */
static void *thread_of_the_load(void *first) {
    pthread_key_t *key = first;
    for (size_t i = 0; i < 40; i++) {
        errno = 0;
        hold(granary_malloc(24 + i * 40), 24 + i * 40);
    }
    errno = 0;
    void *value = granary_malloc(40);
    if (value != NULL) {
        pthread_setspecific(*key, value);
    }
    return NULL;
}

static void run_load(void) {
    static pthread_key_t key;
    if (key == 0) {
        must(pthread_key_create(&key, allocate_in_destructor) == 0);
    }
    for (size_t size = 16; size <= 300 * KIB; size += size / 3) {
        for (size_t i = 0; i < 8; i++) {
            errno = 0;
            hold(granary_malloc(size), size);
        }
    }
    size_t small = load.count;
    for (size_t c = 0; c < COUNT_OF(calls); c++) {
        errno = 0;
        hold(calls[c].alloc(5000 + c * 20000), 5000 + c * 20000);
    }
    load.alone ? (void)thread_of_the_load(&key) : in_thread(thread_of_the_load, &key);
    hold_zeroed(500000);
    hold_zeroed(3 * MIB);
    hold_zeroed(35 * MIB);
    errno = 0;
    hold(granary_aligned_alloc(4 * MIB, 40 * MIB), 40 * MIB);
    errno = 0;
    hold(granary_malloc(70 * MIB), 70 * MIB); /* a mapping of its own, which grows below */
    size_t large = load.count;
    for (size_t i = 0; i < load.count; i += 23) {
        resize(i, load.blocks[i].size * 3 + 100000);
    }
    for (size_t i = large > 4 ? large - 4 : 0; i < large; i++) {
        resize(i, load.blocks[i].size + 4 * MIB);
        resize(i, load.blocks[i].size - load.blocks[i].size / 8);
        resize(i, load.blocks[i].size > 5 * MIB ? load.blocks[i].size : load.blocks[i].size / 20);
    }
    free_from(small / 2);
    granary_trim();
    for (size_t size = 700; size <= 2 * MIB; size *= 2) { /* of memory that was to be purged: zero all the same */
        hold_zeroed(size);
    }
    free_from(0);
    granary_trim();
}

static size_t mapped_bytes(void) {
    struct granary_stats stats;
    granary_get_stats(&stats);
    return stats.mapped_bytes;
}

struct blow {
    unsigned kinds;
    long nth;
    bool from_then_on;
    int error;
};

static int suffer(void *arg) {
    const struct blow *blow = arg;
    fault_arm(blow->kinds, blow->nth, blow->from_then_on, blow->error);
    run_load();
    bool fired = fault_disarm() > 0;
    must(fired || load.refused == 0);
    load.refused = 0;
    run_load();
    must(load.refused == 0);
    size_t settled = mapped_bytes();
    run_load();
    must(load.refused == 0);
    must(mapped_bytes() <= settled);
    return fired ? FIRED : NOT_REACHED;
}

/* What the system says matters as little as when it says so: the N-th refusal says another thing than the one before. */
static const int errors[] = {ENOMEM, EAGAIN, EINVAL, EPERM};

/* Returns how many calls of these kinds there were to fail. */
static long sweep(unsigned kinds, bool from_then_on, size_t first_error) {
    struct blow blow = {kinds, 1, from_then_on, 0};
    /* Hardened: each slab and each large block makes two calls more. */
    for (; blow.nth < MOST; blow.nth += 1 + (GRANARY_HARDENED ? blow.nth / 3 : 0)) {
        blow.error = errors[(first_error + (size_t)blow.nth) % COUNT_OF(errors)];
        struct ending ending = in_child(suffer, &blow, 20);
        if (ending.exit_code == NOT_REACHED && ending.length == 0) {
            break;
        }
        if (ending.exit_code != FIRED || ending.length > 0) {
            fprintf(stderr, "call %ld of kinds %#x%s fails with %d: exit %d, signal %d%s\n%s\n", blow.nth, kinds,
                    from_then_on ? " and later ones" : "", blow.error, ending.exit_code, ending.signal,
                    ending.timed_out ? ", timed out" : "", ending.text);
            fail();
        }
    }
    return blow.nth - 1;
}

static void semantics_091_092_each_mmap_fails(void **state) {
    (void)state;
    assert_true(sweep(FAULT_MMAP, false, 0) > 3); /* else the wrapper is not where the calls are */
    assert_true(sweep(FAULT_MMAP, true, 1) > 3);
}

static void semantics_091_092_each_munmap_fails(void **state) {
    (void)state;
    assert_true(sweep(FAULT_MUNMAP, false, 0) > 0);
    assert_true(sweep(FAULT_MUNMAP, true, 1) > 0);
}

static void semantics_091_092_each_madvise_fails(void **state) {
    (void)state;
    assert_true(sweep(FAULT_MADVISE, false, 0) > 0);
    assert_true(sweep(FAULT_MADVISE, true, 1) > 0);
}

static void semantics_091_092_each_mremap_fails(void **state) {
    (void)state;
    assert_true(sweep(FAULT_MREMAP, false, 0) > 0 || GRANARY_HARDENED); /* which copies here */
    assert_true(sweep(FAULT_MREMAP, true, 1) > 0 || GRANARY_HARDENED);
}

static void semantics_091_092_each_mprotect_fails(void **state) {
    (void)state;
    sweep(FAULT_MPROTECT, false, 0); /* there may be none */
    sweep(FAULT_MPROTECT, true, 1);
}

static void semantics_091_everything_fails_from_the_nth_call_on(void **state) {
    (void)state;
    sweep(FAULT_ANY, true, 2);
}

/* ---- S98: a forked child that has no memory to repair itself with ---- */

static pthread_barrier_t held_everywhere;
static void *kept[4][300];

static void *hold_until_fork(void *mine) {
    void **blocks = mine;
    for (size_t i = 0; i < COUNT_OF(kept[0]); i++) {
        blocks[i] = granary_malloc(16 + i * 30);
        must(blocks[i] != NULL);
    }
    pthread_barrier_wait(&held_everywhere);
    pause();
    return NULL;
}

static int fork_without_memory(void *unused) {
    (void)unused;
    pthread_t thread;
    pthread_barrier_init(&held_everywhere, NULL, COUNT_OF(kept) + 1);
    for (size_t i = 0; i < COUNT_OF(kept); i++) {
        must(pthread_create(&thread, NULL, hold_until_fork, kept[i]) == 0);
    }
    pthread_barrier_wait(&held_everywhere);
    fault_arm(FAULT_ANY, 1, true, ENOMEM);
    pid_t child = fork();
    must(child >= 0);
    if (child > 0) {
        int status = -1;
        must(waitpid(child, &status, 0) == child);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    for (size_t i = 0; i < COUNT_OF(kept) * COUNT_OF(kept[0]); i++) {
        granary_free(kept[i % COUNT_OF(kept)][i / COUNT_OF(kept)]);
    }
    for (size_t i = 0; i < 300; i++) {
        errno = 0;
        hold(granary_malloc(i * 1000), i * 1000);
    }
    free_from(0);
    fault_disarm();
    load.refused = 0;
    load.alone = true;
    run_load();
    return load.refused == 0 ? 0 : 1;
}

static void semantics_098_a_forked_child_without_memory(void **state) {
    (void)state;
    must_end_well(in_child(fork_without_memory, NULL, 20), "fork without memory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_091_092_each_mmap_fails),
        cmocka_unit_test(semantics_091_092_each_munmap_fails),
        cmocka_unit_test(semantics_091_092_each_madvise_fails),
        cmocka_unit_test(semantics_091_092_each_mremap_fails),
        cmocka_unit_test(semantics_091_092_each_mprotect_fails),
        cmocka_unit_test(semantics_091_everything_fails_from_the_nth_call_on),
        cmocka_unit_test(semantics_098_a_forked_child_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
