/* semantics_repeat.c -- the same calls in one thread give the same blocks, in every process: a failure can be run again.
 *
 * Blocks are compared by their distance from the first one, since the heap lies elsewhere in each process. The library's
 * clock stands still: what it gives back, and when, is a matter of time.
 *
 * covers: S131
 */
/* Not in the hardened build, whose blocks lie where nobody can foretell. */
/* test: hardened=off wrap=clock_gettime */
#include "test.h"

#include <granary.h>

int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out) {
    int result = __real_clock_gettime(clock, out);
    if (clock == CLOCK_MONOTONIC_COARSE)
        *out = (struct timespec){1000, 0};
    return result;
}

/* Random calls up to 1 MiB, from a seed that is always the same. Says on stderr what came of them. */
static int a_run(void *unused) {
    (void)unused;
    static void *blocks[2000];
    struct rng rng = {7};
    char *first = granary_malloc(1);
    uint64_t sum = 0;
    for (int i = 0; i < 60000; i++) {
        void **block = &blocks[rng_below(&rng, COUNT_OF(blocks))];
        if (rng_below(&rng, 4) == 0) {
            granary_free(*block);
            *block = NULL;
        } else {
            *block = granary_realloc(*block, 1 + rng_size(&rng, 20));
            must(*block);
        }
        sum = mix(sum + (uint64_t)((char *)*block - (*block ? first : NULL)));
    }
    dprintf(2, "%016" PRIx64, sum);
    return 0;
}

static void semantics_131_the_same_calls_give_the_same_blocks(void **state) {
    (void)state;
    struct ending runs[3];
    for (size_t i = 0; i < COUNT_OF(runs); i++) {
        runs[i] = in_child(a_run, NULL, 60);
        must_end_well(runs[i], "a run");
        assert_string_equal(runs[i].text, runs[0].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(semantics_131_the_same_calls_give_the_same_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
