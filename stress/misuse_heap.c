/* misuse_heap.c -- writes where no write belongs: into freed blocks, past the ends of blocks, over the whole heap.
 * Nothing of ours lies there, so the allocator stays sound.
 *
 * covers: S113 S114 S115 S116 S118
 */
#include "misuse_run.h"

#include <search.h>

enum { PROBES = 100 * 1000, CROWD = 96 * 1024 };

static int compare_addresses(const void *a, const void *b) {
    return (uintptr_t)a < (uintptr_t)b ? -1 : (uintptr_t)a > (uintptr_t)b;
}

/* A hundred thousand blocks are in the heap, aligned, writable, and no two at one place. */
static int heap_is_sound(void) {
    static void *probes[PROBES];
    void *seen = NULL;
    for (size_t i = 0; i < PROBES; i++) {
        size_t size = 16 + i % 113;
        probes[i] = granary_malloc(size);
        must(probes[i] != NULL && is_aligned(opaque(probes[i]), 16));
        must(*(void **)tsearch(probes[i], &seen, compare_addresses) == probes[i]);
        pattern_fill(probes[i], size, i);
    }
    for (size_t i = 0; i < PROBES; i++) {
        must(pattern_holds(probes[i], 16 + i % 113, i));
        must(granary_malloc_usable_size(probes[i]) >= 16 + i % 113);
        granary_free(probes[i]);
    }
    void *larger[3] = {granary_calloc(1, 300000), granary_calloc(40, MIB), granary_malloc(256 * KIB)};
    for (size_t i = 0; i < COUNT_OF(larger); i++) {
        larger[i] = granary_realloc(larger[i], (i + 1) * MIB);
        must(larger[i] != NULL);
        granary_free(larger[i]);
    }
    granary_trim();
    return HARMLESS;
}

/* ---- 113, 114: into freed blocks ---- */

static int write_to_freed(size_t size, const uintptr_t *words, size_t count) {
    enum { FREED = 300 };
    static uintptr_t *freed[FREED];
    for (size_t i = 0; i < FREED; i++) {
        freed[i] = block_of(size);
    }
    for (size_t i = 0; i < FREED; i++) {
        granary_free(freed[i]);
        freed[i] = opaque(freed[i]);
        for (size_t k = 0; k < count; k++) {
            freed[i][k] = words[k] == 1   ? (uintptr_t)freed[i]
                          : words[k] == 2 ? (uintptr_t)freed[i] + size
                          : words[k] == 3 ? (uintptr_t)freed[(i + 7) % FREED]
                                          : words[k];
        }
        if (i == FREED / 2) {
            granary_trim();
        }
    }
    return heap_is_sound();
}

static int freed_ones(size_t size) { return write_to_freed(size, (uintptr_t[]){UINTPTR_MAX, UINTPTR_MAX}, 2); }
static int freed_null(size_t size) { return write_to_freed(size, (uintptr_t[]){0, 0}, 2); }
static int freed_text(size_t size) { return write_to_freed(size, (uintptr_t[]){0x4141414141414141}, 1); }
static int freed_itself(size_t size) { return write_to_freed(size, (uintptr_t[]){1, 1}, 2); }
static int freed_neighbour(size_t size) { return write_to_freed(size, (uintptr_t[]){2, 3}, 2); }
static int freed_other(size_t size) { return write_to_freed(size, (uintptr_t[]){3, 1}, 2); }

/* ---- 115: past the ends ---- */

/* Writes `count` bytes from the end (or, if negative, up to the start) of a block in the middle of many. */
static int overflow(size_t size, ptrdiff_t count) {
    static char *crowd[CROWD];
    size_t members = 4 * MIB / size;
    must(members <= CROWD);
    for (size_t i = 0; i < members; i++) {
        crowd[i] = block_of(size);
    }
    char *middle = crowd[members / 2];
    char *from = count > 0 ? middle + granary_malloc_usable_size(middle) : middle + count;
    memset(opaque(from), 0xee, (size_t)(count > 0 ? count : -count));
    for (size_t i = 0; i < members; i++) {
        granary_free(crowd[i]);
    }
    return heap_is_sound();
}

static int overflow_by_1(size_t size) { return overflow(size, 1); }
static int overflow_by_8(size_t size) { return overflow(size, 8); }
static int overflow_by_32(size_t size) { return overflow(size, 32); }
static int overflow_by_a_page(size_t size) { return overflow(size, 4096); }
static int overflow_by_1M(size_t size) { return overflow(size, 1 << 20); }
static int underflow_by_1(size_t size) { return overflow(size, -1); }
static int underflow_by_32(size_t size) { return overflow(size, -32); }
static int underflow_by_a_page(size_t size) { return overflow(size, -4096); }
static int underflow_by_1M(size_t size) { return overflow(size, -(1 << 20)); }

/* ---- 118: one block alone, with what was asked for and not what it holds ---- */

/* The byte behind what was asked for, of a block that is freed next. */
static int one_past(size_t size, char value) {
    char *ptr = block_of(size);
    ((volatile char *)opaque(ptr))[size] = value;
    granary_free(ptr);
    return HARMLESS;
}

static int past_by_a_letter(size_t size) { return one_past(size, 'A'); }
static int past_by_a_nul(size_t size) { return one_past(size, 0); }

static int past_by_a_letter_then_realloc(size_t size) {
    char *ptr = block_of(size);
    ((volatile char *)opaque(ptr))[size] = 'A';
    must(granary_realloc(ptr, size + 1) != NULL);
    return HARMLESS;
}

static int past_by_a_page(size_t size) {
    char *ptr = block_of(size);
    memset(opaque(ptr), 1, size + 8192);
    granary_free(ptr);
    return HARMLESS;
}

/* Row by row to the end of the slab, as a loop without a bound goes. */
static int past_the_slab(size_t size) {
    char *ptr = block_of(size);
    for (size_t i = 0; i < 70000; i++) {
        ((volatile char *)opaque(ptr))[i] = 1;
    }
    return HARMLESS;
}

/* ---- 119: after free ---- */

/* Written to, then handed out again, sooner or later. */
static int write_then_reuse(size_t size, size_t at) {
    char *ptr = block_of(size);
    granary_free(ptr);
    ((volatile char *)opaque(ptr))[at] = 'A';
    for (size_t i = 0; i < 2000; i++) {
        granary_free(block_of(size));
    }
    granary_trim();
    for (size_t i = 0; i < 2000; i++) {
        block_of(size);
    }
    return HARMLESS;
}

static int write_first_byte(size_t size) { return write_then_reuse(size, 0); }
static int write_last_byte(size_t size) { return write_then_reuse(size, size - 1); }

static int read_after_free(size_t size) {
    char *ptr = block_of(size);
    memset(ptr, 'A', size);
    granary_free(ptr);
    return ((volatile char *)opaque(ptr))[size / 2] == 'A' ? UNNOTICED : HARMLESS;
}

/* What malloc gives was another's. */
static int read_before_write(size_t size) {
    char *blocks[40];
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        memset(blocks[i] = opaque(granary_malloc(size)), 'A', size);
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        granary_free(blocks[i]);
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        char *ptr = opaque(granary_malloc(size));
        if (ptr[size / 2] == 'A') {
            return UNNOTICED;
        }
    }
    return HARMLESS;
}

/* ---- 116: where the records are ---- */

/* Overwrites the mapping that a block lies in, wherever it can be written. */
static bool scribble(uintptr_t start, uintptr_t end, const char *perms, void *block) {
    if (start <= (uintptr_t)block && (uintptr_t)block < end && perms[1] == 'w') {
        memset((void *)start, 0xff, end - start);
        return false;
    }
    return true;
}

static int whole_mapping(size_t size) {
    static void *held[300];
    for (size_t i = 0; i < COUNT_OF(held); i++) {
        held[i] = block_of(size);
    }
    visit_maps(scribble, held[150]);
    for (size_t i = 0; i < COUNT_OF(held); i++) {
        must(all_bytes_are(held[i], granary_malloc_usable_size(held[i]), 0xff));
        granary_free(held[i]);
    }
    return heap_is_sound();
}

static int print_address(size_t size) {
    fprintf(stderr, "%#zx\n", (size_t)(uintptr_t)block_of(size));
    return 0;
}

static void misuse_116_blocks_lie_elsewhere_in_each_process(void **state) {
    (void)state;
    char text[6][64];
    for (size_t i = 0; i < COUNT_OF(text); i++) {
        struct ending ending = in_new_process("commit", "116_print_address", 20);
        must_end_well(ending, "print_address");
        snprintf(text[i], sizeof text[i], "%.60s", ending.text);
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(text[i], text[k]);
        }
    }
}

static const struct crime crimes[] = {
    {"113_freed_ones_16", freed_ones, 16},
    {"113_freed_ones_64", freed_ones, 64},
    {"113_freed_text_1000", freed_text, 1000},
    {"113_freed_ones_20000", freed_ones, 20000},
    {"113_freed_ones_300000", freed_ones, 300000},
    {"114_freed_null_64", freed_null, 64},
    {"114_freed_itself_64", freed_itself, 64},
    {"114_freed_itself_16", freed_itself, 16},
    {"114_freed_neighbour_64", freed_neighbour, 64},
    {"114_freed_other_1000", freed_other, 1000},
    {"115_overflow_by_1_64", overflow_by_1, 64},
    {"115_overflow_by_8_64", overflow_by_8, 64},
    {"115_overflow_by_32_64", overflow_by_32, 64},
    {"115_overflow_by_32_48", overflow_by_32, 48},
    {"115_overflow_by_a_page_1000", overflow_by_a_page, 1000},
    {"115_overflow_by_1M_64", overflow_by_1M, 64},
    {"115_overflow_by_1M_20000", overflow_by_1M, 20000},
    {"115_underflow_by_1_64", underflow_by_1, 64},
    {"115_underflow_by_32_64", underflow_by_32, 64},
    {"115_underflow_by_a_page_1000", underflow_by_a_page, 1000},
    {"115_underflow_by_1M_64", underflow_by_1M, 64},
    {"118_past_by_a_letter_40", past_by_a_letter, 40},
    {"118_past_by_a_letter_56", past_by_a_letter, 56},
    {"118_past_by_a_letter_1000", past_by_a_letter, 1000},
    {"118_past_by_a_letter_100000", past_by_a_letter, 100000},
    {"118_past_by_a_letter_300000", past_by_a_letter, 300000},
    {"118_past_by_a_letter_80M", past_by_a_letter, 80 * MIB + 5},
    {"118_past_by_a_nul_40", past_by_a_nul, 40},
    {"118_past_by_a_nul_56", past_by_a_nul, 56},
    {"118_past_by_a_nul_300000", past_by_a_nul, 300000},
    {"118_past_then_realloc_40", past_by_a_letter_then_realloc, 40},
    {"118_past_then_realloc_300000", past_by_a_letter_then_realloc, 300000},
    {"118_past_by_a_page_300000", past_by_a_page, 300000},
    {"118_past_by_a_page_80M", past_by_a_page, 80 * MIB},
    {"118_past_the_slab_40", past_the_slab, 40},
    {"119_write_first_byte_40", write_first_byte, 40},
    {"119_write_last_byte_40", write_last_byte, 40},
    {"119_write_last_byte_1000", write_last_byte, 1000},
    {"119_write_first_byte_20000", write_first_byte, 20000},
    {"119_write_last_byte_100000", write_last_byte, 100000},
    {"119_write_first_byte_300000", write_first_byte, 300000},
    {"119_read_after_free_40", read_after_free, 40},
    {"119_read_after_free_100000", read_after_free, 100000},
    {"119_read_after_free_300000", read_after_free, 300000},
    {"119_read_before_write_40", read_before_write, 40},
    {"119_read_before_write_20000", read_before_write, 20000},
    {"116_whole_mapping_64", whole_mapping, 64},
    {"116_whole_mapping_1000", whole_mapping, 1000},
    {"116_whole_mapping_40000", whole_mapping, 40000},
    {"116_print_address", print_address, 64},
};

int main(int argc, char **argv) {
    const struct CMUnitTest extra[] = {cmocka_unit_test(misuse_116_blocks_lie_elsewhere_in_each_process)};
    /* the last one is no crime but the child of the test above */
    return run_crimes(crimes, COUNT_OF(crimes) - (argc == 1), argc, argv, extra, COUNT_OF(extra));
}
