/* limits_commit.c -- a system that does not overcommit: what is mapped counts, touched or not. All calls take all there is, are
 * refused, lose nothing, and do it again: the same capacity each time.
 *
 * Here the count is kept by the test, which refuses what would pass it. Where the system itself is such a one, it is tested too;
 * stress/contained finds one.
 *
 * covers: S96 C10
 */
/* test: sanitize=off timeout=120 wrap=mmap,munmap,mremap */
#include "loot.h"

#include <stdatomic.h>

static atomic_size_t committed;
static size_t commit_limit = SIZE_MAX;

void *__real_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *addr, size_t size);
int __wrap_munmap(void *addr, size_t size);
void *__real_mremap(void *addr, size_t size, size_t new_size, int flags, ...);
void *__wrap_mremap(void *addr, size_t size, size_t new_size, int flags, ...);

static bool commit(size_t bytes) {
    if (atomic_fetch_add(&committed, bytes) + bytes <= commit_limit)
        return true;
    atomic_fetch_sub(&committed, bytes);
    errno = ENOMEM;
    return false;
}

void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset) {
    if (!commit(size))
        return MAP_FAILED;
    void *got = __real_mmap(addr, size, prot, flags, fd, offset);
    if (got == MAP_FAILED)
        atomic_fetch_sub(&committed, size);
    return got;
}

int __wrap_munmap(void *addr, size_t size) {
    int failed = __real_munmap(addr, size);
    if (!failed)
        atomic_fetch_sub(&committed, size);
    return failed;
}

/* Over a mapping of new_size, which goes, or in place or elsewhere; the old one stays with MREMAP_DONTUNMAP. */
void *__wrap_mremap(void *addr, size_t size, size_t new_size, int flags, ...) {
    void *target = NULL;
    size_t more = new_size > size && !(flags & MREMAP_FIXED) ? new_size - size : 0;
    if (flags & MREMAP_FIXED) {
        va_list rest;
        va_start(rest, flags);
        target = va_arg(rest, void *);
        va_end(rest);
    }
    if (!commit(more))
        return MAP_FAILED;
    void *got = __real_mremap(addr, size, new_size, flags, target);
    if (got == MAP_FAILED)
        atomic_fetch_sub(&committed, more);
    else if (flags & MREMAP_FIXED)
        atomic_fetch_sub(&committed, flags & MREMAP_DONTUNMAP ? 0 : size);
    else if (new_size < size)
        atomic_fetch_sub(&committed, size - new_size);
    return got;
}

static int three_times(void *limit) {
    static const size_t sizes[] = {80 * MIB, 9 * MIB, 300000, 5000, 64};
    size_t first = 0;
    commit_limit = *(size_t *)limit;
    loot_stride = 100001; /* what is not touched counts as well */
    for (int round = 0; round < 3; round++) {
        struct loot *haul = NULL;
        size_t bytes = 0;
        for (size_t i = 0; i < COUNT_OF(sizes); i++)
            bytes += loot_take(&haul, sizes[i]);
        must(bytes > 64 * MIB);
        if (bytes < first / 10 * 9)
            fprintf(stderr, "round %d: %zu bytes, the first had %zu\n", round, bytes, first);
        first = round ? first : bytes;
        loot_give(&haul, round == 1);
        granary_trim();
        must(bytes >= first / 10 * 9);
    }
    return 0;
}

static void semantics_096_a_system_that_counts(void **state) {
    (void)state;
    size_t limit = 120 * MIB;
    struct ending ending = in_child(three_times, &limit, 60);
    must_end_well(ending, "no overcommit");
    assert_string_equal(ending.text, "");
}

static void semantics_096_this_system(void **state) {
    (void)state;
    char text[16];
    size_t limit = SIZE_MAX;
    if (!read_file("/proc/sys/vm/overcommit_memory", text, sizeof text) || text[0] != '2') {
        puts("this system overcommits: not tested on it");
        skip();
    }
    struct ending ending = in_child(three_times, &limit, 60);
    must_end_well(ending, "overcommit_memory is 2");
    assert_string_equal(ending.text, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semantics_096_a_system_that_counts),
        cmocka_unit_test(semantics_096_this_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
