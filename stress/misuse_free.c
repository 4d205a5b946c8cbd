/* misuse_free.c -- what free says to pointers that it should not have been given.
 *
 * Small blocks freed twice in a row and large blocks are told at once; of others free learns when the block
 * reaches its slab, here by settled() or a thread's end.
 *
 * covers: S106 S107 S108 S109 S110 S118 C12
 */
#include "misuse_run.h"

#define SMALL   ((size_t)64)
#define GRANULE (64 * KIB)
#define LARGE   ((size_t)300000)
#define HUGE_   (80 * MIB)

/* ---- 106: twice ---- */

/* Not settled: this one free has to tell. */
static int twice_at_once(size_t size) {
    void *ptr = block_of(size);
    granary_free(ptr);
    free_hidden(ptr);
    return UNNOTICED;
}

static int twice_around_another(size_t size) {
    void *ptr = block_of(size);
    void *other = block_of(size);
    granary_free(ptr);
    granary_free(other);
    free_hidden(ptr);
    return settled();
}

/* The second free comes after other blocks of the class were reused in between. */
static int twice_after_reuse_of_others(size_t size) {
    void *blocks[8];
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        blocks[i] = block_of(size);
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        granary_free(blocks[i]);
    }
    void *reused = block_of(size);
    void *reused_too = block_of(size);
    free_hidden(blocks[0]);
    granary_free(reused);
    granary_free(reused_too);
    return settled();
}

/* The first free has reached the slab, which lives on for another block's sake. */
static int twice_across_trim(size_t size) {
    void *ptr = block_of(size);
    void *other = block_of(size);
    granary_free(ptr);
    granary_trim();
    free_hidden(ptr);
    settled();
    return other ? UNNOTICED : 1;
}

/* The first free was the last of its slab, whose memory is gone. */
static int twice_across_trim_of_all(size_t size) {
    void *ptr = block_of(size);
    granary_free(ptr);
    granary_trim();
    free_hidden(ptr);
    return settled();
}

static void *free_in_thread(void *ptr) {
    granary_free(ptr);
    return NULL;
}

static int twice_here_and_in_a_thread(size_t size) {
    void *ptr = block_of(size);
    granary_free(ptr);
    in_thread(free_in_thread, opaque(ptr));
    return settled();
}

static int twice_in_a_thread_and_here(size_t size) {
    void *ptr = block_of(size);
    void *other = block_of(size);
    in_thread(free_in_thread, ptr);
    free_hidden(ptr);
    settled();
    return other ? UNNOTICED : 1;
}

static int twice_in_two_threads(size_t size) {
    void *ptr = block_of(size);
    void *other = block_of(size);
    in_thread(free_in_thread, ptr);
    in_thread(free_in_thread, opaque(ptr));
    return other ? UNNOTICED : 1;
}

/* ---- 107: the same pointer in two threads at the same time ---- */

static pthread_barrier_t start_line;

static void *free_at_the_signal(void *ptr) {
    pthread_barrier_wait(&start_line);
    granary_free(ptr);
    return NULL;
}

static int twice_at_the_same_time(size_t size) {
    pthread_t threads[2];
    void *ptr = block_of(size);
    void *other = block_of(size);
    pthread_barrier_init(&start_line, NULL, 2);
    for (int i = 0; i < 2; i++) {
        must(pthread_create(&threads[i], NULL, free_at_the_signal, ptr) == 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    settled();
    return other ? UNNOTICED : 1;
}

/* ---- 108: inside a block ---- */

static int inside(size_t size, size_t offset) {
    free_hidden((char *)block_of(size) + offset);
    return settled();
}

static int inside_by_1(size_t size) { return inside(size, 1); }
static int inside_by_8(size_t size) { return inside(size, 8); }
static int inside_by_16(size_t size) { return inside(size, 16); }
static int inside_half_way(size_t size) { return inside(size, size / 2); }
static int inside_last_byte(size_t size) { return inside(size, size - 1); }
static int inside_by_a_page(size_t size) { return inside(size, 4096); }
static int inside_by_a_granule(size_t size) { return inside(size, GRANULE); }

/* A page of a slab of 48-byte blocks that begins in the middle of one. */
static int page_start_in_a_slab(size_t size) {
    uintptr_t granule = (uintptr_t)block_of(size) & ~(uintptr_t)(GRANULE - 1);
    free_hidden((void *)(granule + 4096));
    return settled();
}

/* What is left over at a slab's end after the last whole block. */
static int rest_of_a_slab(size_t size) {
    uintptr_t granule = (uintptr_t)block_of(size) & ~(uintptr_t)(GRANULE - 1);
    free_hidden((void *)(granule + GRANULE - GRANULE % size));
    return settled();
}

static int end_of_a_block(size_t size) {
    char *ptr = block_of(size);
    free_hidden(ptr + granary_malloc_usable_size(ptr));
    return settled();
}

static int tail_of_a_shrunk_block(size_t size) {
    char *ptr = granary_realloc(block_of(size), size / 2);
    must(ptr != NULL);
    free_hidden(ptr + size / 2);
    return settled();
}

/* ---- 109, 110: not ours, or not given to anybody ---- */

static char a_static_array[64];

static int foreign_stack(size_t offset) {
    char array[64] __attribute__((aligned(16)));
    free_hidden(array + offset);
    return settled();
}

static int foreign_static(size_t offset) {
    free_hidden(a_static_array + offset);
    return settled();
}

static int foreign_code(size_t unused) {
    (void)unused;
    free_hidden((void *)(uintptr_t)foreign_static);
    return settled();
}

static int foreign_environment(size_t unused) {
    (void)unused;
    free_hidden(environ[0]);
    return settled();
}

static int foreign_mapping(size_t prot) {
    free_hidden(mmap(NULL, MIB, (int)prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    return settled();
}

static int foreign_number(size_t number) {
    free_hidden((void *)number);
    return settled();
}

static int foreign_number_before_any_malloc(size_t number) {
    free_hidden((void *)number);
    return UNNOTICED;
}

static int foreign_number_after_malloc(size_t number) {
    block_of(64);
    block_of(300000);
    block_of(80 * MIB);
    return foreign_number(number);
}

static int foreign_libc_block(size_t size) {
    block_of(64);
    free_hidden(malloc(size));
    return settled();
}

static int region_beyond_the_heap(size_t distance) {
    free_hidden((char *)block_of(SMALL) + distance);
    return settled();
}

static int region_before_the_heap(size_t distance) {
    free_hidden((char *)block_of(SMALL) - distance);
    return settled();
}

static int never_allocated_slot(size_t size) {
    char *ptr = block_of(size);
    free_hidden(ptr + 500 * size);
    return settled();
}

static const struct crime crimes[] = {
    {"106_twice_at_once_16", twice_at_once, 16},
    {"106_twice_at_once_64", twice_at_once, SMALL},
    {"106_twice_at_once_1000", twice_at_once, 1000},
    {"106_twice_at_once_32K", twice_at_once, 32 * KIB},
    {"106_twice_at_once_256K", twice_at_once, 256 * KIB},
    {"106_twice_at_once_300000", twice_at_once, LARGE},
    {"106_twice_at_once_2M", twice_at_once, 2 * MIB},
    {"106_twice_at_once_80M", twice_at_once, HUGE_},
    {"106_twice_around_another_64", twice_around_another, SMALL},
    {"106_twice_around_another_1000", twice_around_another, 1000},
    {"106_twice_around_another_256K", twice_around_another, 256 * KIB},
    {"106_twice_around_another_300000", twice_around_another, LARGE},
    {"106_twice_around_another_80M", twice_around_another, HUGE_},
    {"106_twice_after_reuse_of_others_64", twice_after_reuse_of_others, SMALL},
    {"106_twice_after_reuse_of_others_20000", twice_after_reuse_of_others, 20000},
    {"106_twice_across_trim_64", twice_across_trim, SMALL},
    {"106_twice_across_trim_256K", twice_across_trim, 256 * KIB},
    {"106_twice_across_trim_300000", twice_across_trim, LARGE},
    {"106_twice_across_trim_80M", twice_across_trim, HUGE_},
    {"106_twice_across_trim_of_all_64", twice_across_trim_of_all, SMALL},
    {"106_twice_across_trim_of_all_300000", twice_across_trim_of_all, LARGE},
    {"106_twice_here_and_in_a_thread_64", twice_here_and_in_a_thread, SMALL},
    {"106_twice_here_and_in_a_thread_300000", twice_here_and_in_a_thread, LARGE},
    {"106_twice_here_and_in_a_thread_80M", twice_here_and_in_a_thread, HUGE_},
    {"106_twice_in_a_thread_and_here_64", twice_in_a_thread_and_here, SMALL},
    {"106_twice_in_a_thread_and_here_300000", twice_in_a_thread_and_here, LARGE},
    {"106_twice_in_two_threads_64", twice_in_two_threads, SMALL},
    {"106_twice_in_two_threads_2M", twice_in_two_threads, 2 * MIB},
    {"107_at_the_same_time_64", twice_at_the_same_time, SMALL},
    {"107_at_the_same_time_1000", twice_at_the_same_time, 1000},
    {"107_at_the_same_time_300000", twice_at_the_same_time, LARGE},
    {"107_at_the_same_time_2M", twice_at_the_same_time, 2 * MIB},
    {"107_at_the_same_time_80M", twice_at_the_same_time, HUGE_},
    {"108_inside_by_1_64", inside_by_1, SMALL},
    {"108_inside_by_1_300000", inside_by_1, LARGE},
    {"108_inside_by_1_80M", inside_by_1, HUGE_},
    {"108_inside_by_8_16", inside_by_8, 16},
    {"108_inside_by_8_1000", inside_by_8, 1000},
    {"108_inside_by_16_64", inside_by_16, SMALL},
    {"108_inside_by_16_300000", inside_by_16, LARGE},
    {"108_inside_half_way_48", inside_half_way, 48},
    {"108_inside_half_way_256K", inside_half_way, 256 * KIB},
    {"108_inside_half_way_300000", inside_half_way, LARGE},
    {"108_inside_half_way_80M", inside_half_way, HUGE_},
    {"108_inside_last_byte_64", inside_last_byte, SMALL},
    {"108_inside_last_byte_80M", inside_last_byte, HUGE_},
    {"108_inside_by_a_page_256K", inside_by_a_page, 256 * KIB},
    {"108_inside_by_a_page_80M", inside_by_a_page, HUGE_},
    {"108_inside_by_a_granule_256K", inside_by_a_granule, 256 * KIB},
    {"108_inside_by_a_granule_300000", inside_by_a_granule, LARGE},
    {"108_page_start_in_a_slab_48", page_start_in_a_slab, 48},
    {"108_rest_of_a_slab_48", rest_of_a_slab, 48},
    {"108_end_of_a_block_300000", end_of_a_block, LARGE},
    {"108_end_of_a_block_80M", end_of_a_block, HUGE_},
    {"108_tail_of_a_shrunk_block_2M", tail_of_a_shrunk_block, 2 * MIB},
    {"109_stack", foreign_stack, 0},
    {"109_stack_misaligned", foreign_stack, 3},
    {"109_static", foreign_static, 0},
    {"109_static_misaligned", foreign_static, 1},
    {"109_code", foreign_code, 0},
    {"109_environment", foreign_environment, 0},
    {"109_mapping", foreign_mapping, PROT_READ | PROT_WRITE},
    {"109_mapping_without_access", foreign_mapping, PROT_NONE},
    {"109_first_page", foreign_number, 0x1000},
    {"109_first_page_before_any_malloc", foreign_number_before_any_malloc, 0x1000},
    {"109_one", foreign_number_after_malloc, 1},
    {"109_first_page_after_malloc", foreign_number_after_malloc, 0x1000},
    {"109_not_canonical", foreign_number_after_malloc, (size_t)1 << 47},
    {"109_middle_of_nowhere", foreign_number_after_malloc, (size_t)1 << 63},
    {"109_size_max", foreign_number_after_malloc, SIZE_MAX},
    {"110_libc_block", foreign_libc_block, 100},
    {"110_libc_mapping", foreign_libc_block, 10 * MIB},
    {"110_region_beyond_the_heap_1G", region_beyond_the_heap, GIB},
    {"110_region_beyond_the_heap_64K", region_beyond_the_heap, 20 * GRANULE},
    {"110_region_before_the_heap", region_before_the_heap, 2 * GRANULE},
    {"110_never_allocated_slot_64", never_allocated_slot, SMALL},
};

int main(int argc, char **argv) { return run_crimes(crimes, COUNT_OF(crimes), argc, argv, NULL, 0); }
