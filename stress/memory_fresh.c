/* memory_fresh.c -- in the hardened build: a long block that nobody was given before is not looked at, and has the pages alone that its
 * user writes; a block that was given before is looked at from end to end.
 */
/* test: hardened=only sanitize=off */
#include "semantics_calls.h"

#include "os/os.h"
#include "slab/seal.h"
#include "slab/size_class.h"

enum { PAGE = 4096, BYTES = 5 * PAGE - SEAL_WORD, BLOCKS = 64 };

static unsigned pages_of(char *p, size_t bytes) {
    unsigned char there[16];
    unsigned n = 0;
    char *from = (char *)round_up((uintptr_t)p, PAGE), *end = p + bytes;
    must(mincore(from, (size_t)(end - from), there) == 0);
    for (size_t i = 0; i < (size_t)(end - from) / PAGE; i++)
        n += there[i] & 1;
    return n;
}

static void fresh_blocks_have_the_pages_that_are_written(void **state) {
    (void)state;
    static char *blocks[BLOCKS];
    unsigned pages = 0;
    for (size_t i = 0; i < BLOCKS; i++) {
        must((blocks[i] = granary_malloc(BYTES)) != NULL);
        pages += pages_of(blocks[i], BYTES);
    }
    assert_in_range(pages, 0, BLOCKS); /* the seal's, and those of a block that was looked at all the same */
    for (size_t i = 0; i < BLOCKS; i++) {
        must(all_bytes_are(blocks[i], BYTES, 0));
        memset(blocks[i], (int)i, BYTES);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        must(all_bytes_are(blocks[i], BYTES, (unsigned char)i));
        granary_free(blocks[i]);
    }
    for (size_t i = 0; i < BLOCKS; i++) { /* those again, and zero */
        must((blocks[i] = granary_malloc(BYTES)) != NULL);
        must(all_bytes_are(blocks[i], BYTES, 0));
    }
    for (size_t i = 0; i < BLOCKS; i++)
        granary_free(blocks[i]);
}

/* Written in the middle after its free, and only there. */
static int write_after_free(void *unused) {
    (void)unused;
    char *p = granary_malloc(BYTES);
    must(p != NULL);
    granary_free(p);
    p[BYTES / 2] = 1;
    for (size_t i = 0; i < 100000; i++)
        granary_free(granary_malloc(BYTES));
    return 0;
}

/* A slab's record has room to say which blocks nobody was given. */
static void fresh_fits_the_record(void **state) {
    (void)state;
    for (unsigned class = 1; class <= CLASSES; class ++)
        must(gr_classes[class].bytes <= SHORT_BYTES || gr_classes[class].words == 1);
}

/* The same, once the block's memory has gone back to the system: it is no fresh one, though it reads as zero. */
static int write_after_trim(void *unused) {
    (void)unused;
    static char *blocks[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++)
        must((blocks[i] = granary_malloc(BYTES)) != NULL);
    for (size_t i = 0; i < BLOCKS; i++)
        granary_free(blocks[i]);
    granary_trim();
    blocks[BLOCKS / 2][BYTES / 2] = 1; /* or it is out of reach by now */
    for (size_t i = 0; i < BLOCKS * 100; i++)
        must(granary_malloc(BYTES) != NULL);
    return 0;
}

static void given_blocks_are_looked_at(void **state) {
    (void)state;
    struct ending ending = in_child(write_after_free, NULL, 20);
    assert_int_equal(ending.signal, SIGABRT);
    ending = in_child(write_after_trim, NULL, 20);
    assert_true(ending.signal == SIGABRT || ending.signal == SIGSEGV);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(fresh_fits_the_record),
                                       cmocka_unit_test(fresh_blocks_have_the_pages_that_are_written),
                                       cmocka_unit_test(given_blocks_are_looked_at)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
