/* thread_keeper_end.c -- a process ends after its housekeeping thread has: no thread of ours is left that nobody joined, which
 * ThreadSanitizer would report.
 *
 * covers: C17
 */
/* test: timeout=60 */
#include "storm_block.h"

#include "cache/keeper.h"

enum { BLOCKS = 800, BLOCK_BYTES = 48 * 1024 };

int main(int argc, char **argv) {
    static struct storm_block block[BLOCKS];
    struct rng rng = storm_rng_of(1);
    storm_begin(argc, argv, (struct storm_options){.seconds = 30, .threads = 1}, NULL);
    for (size_t i = 0; i < BLOCKS; i++)
        block[i] = storm_alloc(&rng, BLOCK_BYTES);
    storm_release_all(&rng, block, BLOCKS);
    while (half_load_relaxed(&gr_keeper) != KEEPER_DONE) {
        REQUIRE(!storm_past_end(), "in a small heap the keeper did not end: state %u", half_load_relaxed(&gr_keeper));
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    printf("the keeper ended before the process\n");
    return 0;
}
