/* race_user_data.c -- free(p) happens before the malloc that hands the same memory out again.
 *
 * Threads write and read blocks plainly, with no synchronisation of their own after they have been started:
 * what orders one thread's use of a block before the next thread's is malloc and free alone. ThreadSanitizer
 * reports each way round that lacks the order; without it the test still counts how many blocks crossed,
 * which must not be none.
 *
 * Long bursts drive blocks out of magazines into depots, bitmaps and page runs, so each of those ways is
 * used. By hand: --seconds 3600 --threads 8 with -DGRANARY_SANITIZE=thread.
 *
 * covers: S56 C2
 */
/* Not in the hardened build, which leaves nothing of the last user in a block. */
/* test: hardened=off args="--seconds 2" timeout=240 */
#include "storm_block.h"

enum { burst_blocks = 3000, magic_shift = 16 };

static const uint64_t magic = 0x5eed0ddba11u;

struct worker {
    pthread_t thread;
    uint64_t id, seen, crossed;
    struct rng rng;
};

/* What the last user left in a word: his id, or nothing if the memory is fresh or was given back to the
 * system. */
static void read_predecessor(struct worker *me, const uint64_t *word) {
    if (*word >> magic_shift == magic) {
        me->seen++;
        me->crossed += (*word & ((1 << magic_shift) - 1)) != me->id;
    }
}

/* Every size of a burst is the same, so it exhausts the magazines of one class. */
static size_t burst_size(struct rng *rng) {
    switch (rng_below(rng, 8)) {
    case 0:
        return 8 + rng_below(rng, 1 << 20);
    case 1:
        return 8 + rng_below(rng, 1 << 16);
    default:
        return 8 + rng_below(rng, (size_t)16 << rng_below(rng, 8));
    }
}

static void burst(struct worker *me) {
    size_t size = burst_size(&me->rng), last = (size - 8) & ~(size_t)7;
    long count = size > 65536 ? 16 : size > 4096 ? 200 : burst_blocks;
    uint64_t **blocks = granary_malloc((size_t)count * sizeof *blocks);
    REQUIRE(blocks, "no memory for %ld pointers", count);
    for (long i = 0; i < count; i++) {
        uint64_t *block = granary_malloc(size);
        REQUIRE(block, "no memory: %zu bytes", size);
        __asm__ volatile("" : "+r"(block)); /* what stands in there is not for the compiler to guess */
        read_predecessor(me, block);
        for (size_t at = 0; at <= last; at += size > 4096 ? 1024 : 8)
            block[at / 8] = magic << magic_shift | me->id;
        block[last / 8] = magic << magic_shift | me->id;
        blocks[i] = block;
    }
    bool backwards = storm_one_in(&me->rng, 2);
    for (long i = 0; i < count; i++) {
        uint64_t *block = blocks[backwards ? count - 1 - i : i];
        REQUIRE(block[0] == (magic << magic_shift | me->id) && block[last / 8] == block[0],
                "block %p of %zu bytes: another thread wrote there", (void *)block, size);
        block[0] = magic << magic_shift | me->id;
        granary_free(block);
    }
    granary_free(blocks);
}

static void *work(void *arg) {
    struct worker *me = arg;
    for (long done = 0; storm_goes_on(done); done++) {
        burst(me);
        if (storm_one_in(&me->rng, 50))
            granary_trim();
    }
    return NULL;
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 10, .threads = 4}, NULL);
    struct worker workers[storm_max_threads] = {{0}};
    REQUIRE(storm.threads <= storm_max_threads, "%ld threads", storm.threads);
    for (long i = 0; i < storm.threads; i++) {
        workers[i].id = (uint64_t)i + 1;
        workers[i].rng = storm_rng_of((uint64_t)i);
        workers[i].thread = storm_thread(work, &workers[i]);
    }
    uint64_t seen = 0, crossed = 0;
    for (long i = 0; i < storm.threads; i++) {
        storm_join(workers[i].thread);
        seen += workers[i].seen;
        crossed += workers[i].crossed;
    }
    printf("%llu blocks had a user before, %llu of them another thread\n", (unsigned long long)seen,
           (unsigned long long)crossed);
    REQUIRE(storm.threads < 2 || crossed > 0, "no block crossed: the test has seen nothing");
    return 0;
}
