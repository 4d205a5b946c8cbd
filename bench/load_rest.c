/* load_rest.c -- what a process holds when the load is over: a burst to 1 GiB, frees at random, then nothing.
 *
 * An op is a MiB. Modes: all (everything is freed), kept (a random 5 % stays), cold_all and cold_kept (the
 * same, in a process with 1000 threads that allocated a little and sleep), stay_all and stay_kept (the threads of the
 * burst live on and sleep, caches and all). --rest, 10 seconds unless given, is how long it waits. Then rest_kib is what
 * is resident; live_kib and page_kib are the bytes in blocks alive and in the distinct pages that hold them; start_kib
 * was resident before the burst, with all threads started; harness_kib is this program's own part of it.
 */
#include "load.h"

enum { SLEEPERS = 1000, SLEEPER_BLOCKS = 20, STACK_BYTES = 64 * 1024, KEPT_PERCENT = 5, BLOCK_BYTES_LEAST = 1024 };

static const struct load_shape shape = {
    .name = "rest",
    .modes = {{"all", 1024, 1},
              {"kept", 1024, 1},
              {"cold_all", 1024, 1},
              {"cold_kept", 1024, 1},
              {"stay_all", 1024, 1},
              {"stay_kept", 1024, 1}},
    .min_size = 16,
    .max_size = 8192, /* log-uniform: 1.3 KiB on average, more than BLOCK_BYTES_LEAST */
};

static pthread_barrier_t asleep, together; /* the sleepers and main; the workers */
static uint64_t start_kib;

static bool mode_is_one_of(const char *one, const char *two) { return load_mode_is(one) || load_mode_is(two); }

static uint64_t blocks_at_most(void) { return (load.ops << 20) / load.threads / BLOCK_BYTES_LEAST + 1; }

static void *sleeper(void *arg) {
    struct worker w = {.rng = 2 * (uintptr_t)arg + 1};
    void *block[SLEEPER_BLOCKS];
    for (unsigned i = 0; i < SLEEPER_BLOCKS; i++)
        block[i] = block_make(&w, load_size(&w));
    for (unsigned i = 0; i < SLEEPER_BLOCKS; i++)
        block_drop(&w, block[i]);
    if (w.bad)
        load_die("a sleeper's block is broken");
    pthread_barrier_wait(&asleep);
    for (;;)
        pause();
}

static void start_sleepers(void) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_barrier_init(&asleep, NULL, SLEEPERS + 1);
    for (uintptr_t i = 0; i < SLEEPERS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &attr, sleeper, (void *)i) != 0)
            load_die("cannot start a thread");
    }
    pthread_barrier_wait(&asleep);
    pthread_attr_destroy(&attr);
}

/* Allocates the share, then frees it in random order down to what is to be kept, which stays at the front of
 * slots. */
static void burst(struct worker *w) {
    uint64_t n = 0;
    pthread_barrier_wait(&together);
    if (w->id == 0)
        start_kib = load_status_kib("VmRSS");
    pthread_barrier_wait(&together);
    for (uint64_t bytes = 0; bytes < w->ops << 20 && n < blocks_at_most(); n++) {
        size_t size = load_size(w);
        w->slots[n] = block_make(w, size);
        block_touch(w->slots[n], 0, size);
        bytes += size;
    }
    pthread_barrier_wait(&together);
    bool keep = mode_is_one_of("kept", "cold_kept") || load_mode_is("stay_kept");
    for (uint64_t stay = keep ? n * KEPT_PERCENT / 100 : 0; n > stay; n--) {
        void **gone = &w->slots[load_below(w, n)];
        block_drop(w, *gone);
        *gone = w->slots[n - 1];
        w->slots[n - 1] = NULL;
    }
    if (!mode_is_one_of("stay_all", "stay_kept"))
        return;
    pthread_barrier_wait(&together);
    if (w->id == 0)
        load_rest();
    pthread_barrier_wait(&together);
}

static int compare_pages(const void *a, const void *b) {
    uintptr_t left = *(const uintptr_t *)a, right = *(const uintptr_t *)b;
    return (left > right) - (left < right);
}

/* After the rest: counts what is alive and its pages, and only then frees it. */
static void summary(void) {
    uint64_t live_bytes = 0, pages = 0, distinct = 0;
    uintptr_t *page = load_pages(blocks_at_most() * load.threads * sizeof *page);
    for (unsigned i = 0; i < load.threads; i++) {
        struct worker *w = &load.workers[i];
        for (void **slot = w->slots; slot < w->slots + blocks_at_most() && *slot; slot++) {
            uintptr_t first = (uintptr_t)*slot / LOAD_PAGE_BYTES;
            size_t size = block_check(w, *slot);
            live_bytes += size;
            for (uintptr_t p = first; p <= ((uintptr_t)*slot + size - 1) / LOAD_PAGE_BYTES; p++)
                page[pages++] = p;
            free(*slot);
        }
    }
    qsort(page, pages, sizeof *page, compare_pages);
    for (uint64_t i = 0; i < pages; i++)
        distinct += i == 0 || page[i] != page[i - 1];
    load_note("live_kib", live_bytes >> 10);
    load_note("page_kib", distinct * (LOAD_PAGE_BYTES / 1024));
    load_note("start_kib", start_kib);
    load_note("harness_kib", blocks_at_most() * load.threads * sizeof(void *) >> 10);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    if (load.rest_seconds == 0)
        load.rest_seconds = 10;
    load.summary = summary;
    pthread_barrier_init(&together, NULL, load.threads);
    if (mode_is_one_of("cold_all", "cold_kept"))
        start_sleepers();
    return load_run(burst, blocks_at_most());
}
