/* misuse_calls.c -- every call that takes a block is given what is none, and sized frees get the wrong size.
 * covers: S111 S112 S118
 */
#include "misuse_run.h"

#define LARGE ((size_t)300000)
#define HUGE_ (80 * MIB)

/* ---- the pointers ---- */

static char a_static_array[64] __attribute__((aligned(16)));

static void *pointer_to_static(void) { return a_static_array; }
static void *pointer_to_nowhere(void) { return (void *)0x1000; }
static void *pointer_not_canonical(void) { return (void *)((uintptr_t)1 << 47); }
static void *pointer_into_small(void) { return (char *)block_of(64) + 16; }
static void *pointer_into_large(void) { return (char *)block_of(LARGE) + 65536; }
static void *pointer_into_huge(void) { return (char *)block_of(HUGE_) + 65536; }
static void *pointer_of_libc(void) { return malloc(100); }

static void *pointer_freed(size_t size) {
    void *ptr = block_of(size);
    void *other = block_of(size);
    granary_free(ptr);
    granary_trim(); /* it is home; the slab lives on by the other block */
    return other ? opaque(ptr) : NULL;
}

static void *pointer_to_freed_small(void) { return pointer_freed(64); }
static void *pointer_to_freed_large(void) { return pointer_freed(LARGE); }
static void *pointer_to_freed_huge(void) { return pointer_freed(HUGE_); }

static void *(*const pointers[])(void) = {
    pointer_to_static, pointer_to_nowhere, pointer_not_canonical,  pointer_into_small,     pointer_into_large,
    pointer_into_huge, pointer_of_libc,    pointer_to_freed_small, pointer_to_freed_large, pointer_to_freed_huge,
};

/* ---- the calls; the size of a crime is the number of its pointer ---- */

static int give_realloc(size_t which) {
    must(granary_realloc(opaque(pointers[which]()), 200) != NULL);
    return settled();
}

static int give_realloc_of_zero(size_t which) {
    must(granary_realloc(opaque(pointers[which]()), opaque_size(0)) == NULL);
    return settled();
}

static int give_reallocarray(size_t which) {
    must(granary_reallocarray(opaque(pointers[which]()), 20, 30) != NULL);
    return settled();
}

static int give_reallocarr(size_t which) {
    void *ptr = pointers[which]();
    must(granary_reallocarr(&ptr, 20, 30) == 0);
    return settled();
}

static int give_usable_size(size_t which) {
    (void)granary_malloc_usable_size(opaque(pointers[which]()));
    return settled();
}

static int give_free_sized(size_t which) {
    granary_free_sized(opaque(pointers[which]()), 64);
    return settled();
}

static int give_free_aligned_sized(size_t which) {
    granary_free_aligned_sized(opaque(pointers[which]()), 16, 64);
    return settled();
}

static int give_sdallocx(size_t which) {
    granary_sdallocx(opaque(pointers[which]()), 64, 0);
    return settled();
}

/* ---- 112: sizes ---- */

struct sizes {
    size_t is, said;
};

static const struct sizes wrong_sizes[] = {
    {100, 1000}, {1000, 100}, {100, 112},     {64, LARGE},       {LARGE, 64},    {LARGE, 2 * MIB},  {2 * MIB, LARGE},
    {64, HUGE_}, {HUGE_, 64}, {HUGE_, LARGE}, {HUGE_, 90 * MIB}, {64, SIZE_MAX}, {LARGE, SIZE_MAX}, {48, 16},
    {16, 48},    {40, 33},    {48, 100},      {100, 48},         {LARGE, 48},    {24, 0},
};

/* Both classes are in use: the block goes where blocks of the said size wait. */
static int wrong_size(size_t which) {
    const size_t is = wrong_sizes[which].is;
    const size_t said = wrong_sizes[which].said;
    void *others[] = {block_of(is), granary_malloc(said)};
    granary_free_sized(block_of(is), opaque_size(said));
    granary_free(others[0]);
    granary_free(others[1]);
    return settled();
}

/* No call before it, but the one that made the block. */
static int wrong_size_at_first(size_t which) {
    granary_free_sized(block_of(wrong_sizes[which].is), opaque_size(wrong_sizes[which].said));
    return settled();
}

static void *made_by_another(void *slot) {
    *(void **)slot = block_of(wrong_sizes[*(size_t *)slot].is);
    return NULL;
}

/* A block of another shard: the size and the page map must agree none the less. */
static int wrong_size_of_anothers(size_t which) {
    union {
        size_t which;
        void *block;
    } slot = {which};
    void *room = block_of(wrong_sizes[which].said); /* the magazine of the said size takes one more */
    in_thread(made_by_another, &slot);
    granary_free_sized(slot.block, opaque_size(wrong_sizes[which].said));
    granary_free(room);
    return settled();
}

static int wrong_size_by_sdallocx(size_t which) {
    granary_sdallocx(block_of(wrong_sizes[which].is), opaque_size(wrong_sizes[which].said), 0);
    return settled();
}

/* The block of the wrong class is handed out before anybody looks: it must be found when it comes home. */
static int wrong_size_then_reuse(size_t which) {
    void *room = block_of(wrong_sizes[which].said); /* its magazine has room for one more */
    granary_free_sized(block_of(wrong_sizes[which].is), opaque_size(wrong_sizes[which].said));
    granary_free(block_of(wrong_sizes[which].said));
    granary_free(room);
    return settled();
}

static int wrong_alignment(size_t said) {
    granary_free_aligned_sized(opaque(granary_aligned_alloc(64, 100)), said, 100);
    return settled();
}

static int twice_sized(size_t size) {
    void *ptr = block_of(size);
    granary_free_sized(ptr, size);
    granary_free_sized(opaque(ptr), size);
    return settled();
}

#define EACH_POINTER(call)                                                                                             \
    {"111_" #call "_of_static", give_##call, 0}, {"111_" #call "_of_nowhere", give_##call, 1},                         \
        {"111_" #call "_of_not_canonical", give_##call, 2}, {"111_" #call "_inside_small", give_##call, 3},            \
        {"111_" #call "_inside_large", give_##call, 4}, {"111_" #call "_inside_huge", give_##call, 5},                 \
        {"111_" #call "_of_libc_block", give_##call, 6}, {"111_" #call "_of_freed_small", give_##call, 7},             \
        {"111_" #call "_of_freed_large", give_##call, 8}, {                                                            \
        "111_" #call "_of_freed_huge", give_##call, 9                                                                  \
    }

static const struct crime crimes[] = {
    EACH_POINTER(realloc),
    EACH_POINTER(realloc_of_zero),
    EACH_POINTER(reallocarray),
    EACH_POINTER(reallocarr),
    EACH_POINTER(usable_size),
    EACH_POINTER(free_sized),
    EACH_POINTER(free_aligned_sized),
    EACH_POINTER(sdallocx),
    {"112_100_said_1000", wrong_size, 0},
    {"112_1000_said_100", wrong_size, 1},
    {"112_100_said_112", wrong_size, 2},
    {"112_64_said_300000", wrong_size, 3},
    {"112_300000_said_64", wrong_size, 4},
    {"112_300000_said_2M", wrong_size, 5},
    {"112_2M_said_300000", wrong_size, 6},
    {"112_64_said_80M", wrong_size, 7},
    {"112_80M_said_64", wrong_size, 8},
    {"112_80M_said_300000", wrong_size, 9},
    {"112_80M_said_90M", wrong_size, 10},
    {"112_64_said_size_max", wrong_size, 11},
    {"112_300000_said_size_max", wrong_size, 12},
    {"112_100_said_1000_at_first", wrong_size_at_first, 0},
    {"112_1000_said_100_at_first", wrong_size_at_first, 1},
    {"112_48_said_16", wrong_size, 13},
    {"112_16_said_48", wrong_size, 14},
    {"112_40_said_33", wrong_size, 15},
    {"112_48_said_100", wrong_size, 16},
    {"112_100_said_48", wrong_size, 17},
    {"112_300000_said_48", wrong_size, 18},
    {"112_24_said_0", wrong_size, 19},
    {"112_48_of_another_said_16", wrong_size_of_anothers, 13},
    {"112_16_of_another_said_48", wrong_size_of_anothers, 14},
    {"112_40_of_another_said_33", wrong_size_of_anothers, 15},
    {"112_48_of_another_said_100", wrong_size_of_anothers, 16},
    {"112_48_said_16_at_first", wrong_size_at_first, 13},
    {"112_sdallocx_100_said_1000", wrong_size_by_sdallocx, 0},
    {"112_sdallocx_300000_said_2M", wrong_size_by_sdallocx, 5},
    {"112_1000_said_100_then_reuse", wrong_size_then_reuse, 1},
    {"112_100_said_1000_then_reuse", wrong_size_then_reuse, 0},
    {"112_aligned_64_said_4096", wrong_alignment, 4096},
    {"112_aligned_64_said_16", wrong_alignment, 16},
    {"112_twice_sized_64", twice_sized, 64},
    {"112_twice_sized_300000", twice_sized, LARGE},
    {"112_twice_sized_80M", twice_sized, HUGE_},
};

int main(int argc, char **argv) { return run_crimes(crimes, COUNT_OF(crimes), argc, argv, NULL, 0); }
