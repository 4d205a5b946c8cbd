/* thread_shards.c -- blocks below a cache line that one thread makes and another frees: what the other is given shares no line
 * with what the one still holds, and all of it goes home.
 *
 * A few threads, born together, so that each has a shard of its own. Each frees half of its neighbour's blocks and allocates
 * as many again; then the lines of all blocks are compared.
 *
 * covers: S60
 */
/* test: timeout=120 */
#include "test.h"

#include <granary.h>

enum { THREADS = 8, BLOCKS = 6000, LINE = 64 };

typedef void *make(size_t size);

struct plan {
    make *make; /* how a thread allocates in place of what its neighbour freed */
    void (*give)(void *ptr, size_t size);
};

static struct plan plan;
static void *block[THREADS][BLOCKS];
static pthread_barrier_t step;

static size_t size_of(size_t i) {
    static const size_t sizes[] = {8, 24, 40};
    return sizes[i % COUNT_OF(sizes)];
}

static void fill(size_t me, make *how) {
    for (size_t i = 0; i < BLOCKS; i++)
        if (!block[me][i]) {
            must((block[me][i] = how(size_of(i))) != NULL);
            memset(block[me][i], (int)me, size_of(i));
        }
}

static void *live(void *index) {
    size_t me = (size_t)(uintptr_t)index, other = (me + 1) % THREADS;
    fill(me, granary_malloc);
    pthread_barrier_wait(&step);
    for (size_t i = me & 1; i < BLOCKS; i += 2) {
        plan.give(block[other][i], size_of(i));
        block[other][i] = NULL;
    }
    pthread_barrier_wait(&step);
    fill(me, plan.make);
    pthread_barrier_wait(&step); /* no cache goes home before all have what they need */
    return NULL;
}

struct line {
    uintptr_t number;
    size_t owner;
};

static int by_number(const void *a, const void *b) {
    const struct line *x = a, *y = b;
    return x->number != y->number ? (x->number < y->number ? -1 : 1) : x->owner < y->owner ? -1 : x->owner > y->owner;
}

static size_t shared_lines(void) {
    static struct line line[2 * THREADS * BLOCKS];
    size_t n = 0, shared = 0;
    for (size_t t = 0; t < THREADS; t++)
        for (size_t i = 0; i < BLOCKS; i++) {
            uintptr_t p = (uintptr_t)block[t][i];
            line[n++] = (struct line){p / LINE, t};
            line[n++] = (struct line){(p + size_of(i) - 1) / LINE, t};
        }
    qsort(line, n, sizeof line[0], by_number);
    for (size_t i = 1; i < n; i++)
        shared += line[i].number == line[i - 1].number && line[i].owner != line[i - 1].owner;
    return shared;
}

static size_t used_at_first;

static size_t used_after_trim(void) {
    struct granary_stats stats;
    granary_trim();
    granary_get_stats(&stats);
    return stats.used_bytes;
}

static void others_lines_stay_theirs(make *how, void (*give)(void *ptr, size_t size)) {
    pthread_t thread[THREADS];
    plan = (struct plan){how, give};
    memset(block, 0, sizeof block);
    pthread_barrier_init(&step, NULL, THREADS);
    for (size_t t = 0; t < THREADS; t++)
        must(pthread_create(&thread[t], NULL, live, (void *)t) == 0);
    for (size_t t = 0; t < THREADS; t++)
        must(pthread_join(thread[t], NULL) == 0);
    pthread_barrier_destroy(&step);
    assert_int_equal(shared_lines(), 0);
    for (size_t t = 0; t < THREADS; t++)
        for (size_t i = 0; i < BLOCKS; i++) {
            must(all_bytes_are(block[t][i], size_of(i), (unsigned char)t)); /* nobody else was given it */
            give(block[t][i], size_of(i));
        }
    assert_int_equal(used_after_trim(), used_at_first);
}

static void *by_calloc(size_t size) {
    void *p = granary_calloc(1, size);
    must(p && all_bytes_are(p, granary_malloc_usable_size(p), 0));
    return p;
}

static void *by_realloc(size_t size) { return granary_realloc(granary_malloc(size + 32), size); }

static void *by_aligned_alloc(size_t size) { return granary_aligned_alloc(size <= 32 ? 32 : 8, size); }

static void give_plain(void *ptr, size_t size) {
    (void)size;
    granary_free(ptr);
}

static void shards_malloc(void **state) {
    (void)state;
    others_lines_stay_theirs(granary_malloc, give_plain);
}

static void shards_calloc(void **state) {
    (void)state;
    others_lines_stay_theirs(by_calloc, give_plain);
}

static void shards_realloc(void **state) {
    (void)state;
    others_lines_stay_theirs(by_realloc, give_plain);
}

static void shards_aligned_alloc(void **state) {
    (void)state;
    others_lines_stay_theirs(by_aligned_alloc, give_plain);
}

static void shards_sized_free(void **state) {
    (void)state;
    others_lines_stay_theirs(granary_malloc, granary_free_sized);
}

int main(void) {
    granary_free(
        granary_malloc(1)); /* its cache comes first, so that those of the threads follow one another each time */
    used_at_first = used_after_trim();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_malloc),        cmocka_unit_test(shards_calloc),     cmocka_unit_test(shards_realloc),
        cmocka_unit_test(shards_aligned_alloc), cmocka_unit_test(shards_sized_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
