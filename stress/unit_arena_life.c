/* unit_arena_life.c -- page/arena.h: chunks that grow, are refused, go and come again; repair after fork; threads. Each test in a
 * process that has not claimed anything yet.
 */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect timeout=120 */
#include "oom_fault.h"

#include "os/options.h"
#include "page/arena.h"
#include "page/region.h"

enum { ORACLE = 16 * ARENA_GRANULES };

struct run {
    size_t first, n;
};

static uint32_t chunk_state(size_t granule) {
    return half_load_relaxed(&arena_of(granule)->chunk[granule % ARENA_GRANULES / CHUNK_GRANULES]);
}

static size_t claim_dirty(size_t n) {
    size_t first = gr_run_claim(n, 1);
    must(first);
    gr_run_mark_dirty(first, n);
    memset(region_address(first), 1, n * GRANULE_BYTES);
    return first;
}

/* ---- going and coming again ---- */

static int unmap(void *unused) {
    (void)unused;
    size_t keep = claim_dirty(2), wide = claim_dirty(3 * CHUNK_GRANULES);
    uint64_t mapped = gr_granules_mapped();
    size_t vsz = vsz_bytes();
    must(gr_arenas_unmap_vacant() == 0); /* no chunk is wholly vacant */
    gr_run_free(wide, 3 * CHUNK_GRANULES);
    uint64_t gone = gr_arenas_unmap_vacant();
    must(gone >= 2 * CHUNK_GRANULES && gone % CHUNK_GRANULES == 0);
    must(gr_granules_mapped() == mapped - gone);
    must(vsz_bytes() + gone * GRANULE_BYTES <= vsz + MIB);
    struct arena_totals t = gr_arena_totals();
    must(t.vacant_dirty == gr_vacant_dirty() && t.mapped == gr_granules_mapped());
    must(all_bytes_are(region_address(keep), 2 * GRANULE_BYTES, 1));
    size_t again = gr_run_claim(3 * CHUNK_GRANULES, 1);
    must(again == wide); /* the addresses serve again */
    for (size_t done = 0; done < 3 * CHUNK_GRANULES;) {
        bool dirty;
        size_t n = gr_run_same_dirt(again + done, 3 * CHUNK_GRANULES - done, &dirty);
        must(dirty || all_bytes_are(region_address(again + done), n * GRANULE_BYTES, 0)); /* dirty-known */
        done += n;
    }
    return 0;
}

static void arena_vacant_unmap_to_unmapped_and_mapped_again(void **state) {
    (void)state;
    must_end_well(in_child(unmap, NULL, 60), "unmap");
}

static int unmap_refused(void *unused) {
    (void)unused;
    size_t keep = claim_dirty(2), wide = claim_dirty(3 * CHUNK_GRANULES);
    uint64_t mapped = gr_granules_mapped();
    gr_run_free(wide, 3 * CHUNK_GRANULES);
    uint64_t vacant = gr_arena_totals().vacant;
    fault_arm(FAULT_MUNMAP, 1, true, ENOMEM);
    must(gr_arenas_unmap_vacant() == 0);
    fault_disarm();
    must(gr_granules_mapped() == mapped && gr_arena_totals().vacant == vacant);
    must(gr_arena_totals().vacant_dirty == gr_vacant_dirty());
    must(chunk_state(keep) == CHUNK_MAPPED);
    must(gr_run_claim(3 * CHUNK_GRANULES, 1) == wide);
    return 0;
}

static void arena_vacant_unmap_refused_to_vacant(void **state) {
    (void)state;
    must_end_well(in_child(unmap_refused, NULL, 60), "refused");
}

/* ---- chunks for runs of one granule, and the others ---- */

static int kinds(void *unused) {
    (void)unused;
    size_t one = gr_run_claim(1, 1), two = gr_run_claim(2, 1), aligned = gr_run_claim(1, 2);
    must(one / CHUNK_GRANULES != two / CHUNK_GRANULES);
    must(aligned / CHUNK_GRANULES == two / CHUNK_GRANULES);
    for (unsigned i = 0; i < CHUNK_GRANULES / 2; i++) {
        must(gr_run_claim(1, 1) / CHUNK_GRANULES == one / CHUNK_GRANULES);
        gr_run_mark_dirty(one + 1 + i, 1);
    }
    gr_run_mark_dirty(two, 2);
    gr_run_free(two, 2);
    must(gr_run_claim(1, 1) == two); /* dirty memory first, whoever had it */
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    for (unsigned left = (unsigned)gr_arena_totals().vacant; left; left--)
        must(gr_run_claim(1, 1)); /* without memory both kinds serve */
    must(!gr_run_claim(1, 1));
    fault_disarm();
    return 0;
}

static void arena_small_slabs_have_chunks_of_their_own(void **state) {
    (void)state;
    must_end_well(in_child(kinds, NULL, 60), "kinds");
}

static int grow_at(void *unused) {
    (void)unused;
    size_t first = gr_run_claim(2, 1), end = (first / CHUNK_GRANULES + 1) * CHUNK_GRANULES;
    must(gr_run_claim_at(first + 2, end - first - 2));
    must(chunk_state(end) == CHUNK_UNMAPPED);
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    must(!gr_run_claim_at(end, 3));
    fault_disarm();
    must(chunk_state(end) == CHUNK_UNMAPPED);
    must(gr_run_claim_at(end, 3));
    must(chunk_state(end) == CHUNK_MAPPED);
    must(all_bytes_are(region_address(end), 3 * GRANULE_BYTES, 0));
    must(!gr_run_claim_at(end + 2, 3)); /* its first granule is held: nothing is mapped for it, nothing is taken */
    must(gr_run_claim_at(end + 3, 3));
    return 0;
}

static void arena_claim_at_maps_what_it_needs(void **state) {
    (void)state;
    must_end_well(in_child(grow_at, NULL, 60), "grow at");
}

/* ---- huge pages ---- */

static bool asks_for_huge_pages(size_t granule) {
    return half_load_relaxed(&arena_of(granule)->huge) >> granule % ARENA_GRANULES / CHUNK_GRANULES & 1;
}

/* Under every chunk, also under the one that the region is founded with. */
static int ask_always(void *unused) {
    (void)unused;
    gr_options_parse("thp:always", "test: ");
    size_t first = gr_run_claim(1, 1), wide = gr_run_claim(2 * CHUNK_GRANULES, 1);
    must(first && wide && first / CHUNK_GRANULES != wide / CHUNK_GRANULES);
    must(asks_for_huge_pages(first) && asks_for_huge_pages(wide));
    return 0;
}

static void arena_asks_for_huge_pages_from_the_first_chunk_on(void **state) {
    (void)state;
    must_end_well(in_child(ask_always, NULL, 20), "thp:always");
}

/* A huge page holds memory of granules that were never used: it goes back when the chunk has holes. */
static int never_used(void *unused) {
    (void)unused;
    gr_options_parse("thp:always", "test: ");
    size_t used = gr_run_claim(1, 1), vacant = used + 1;
    uint8_t there = 1;
    must(used && asks_for_huge_pages(used));
    memset(region_address(used), 1, GRANULE_BYTES);
    memset(region_address(vacant), 0, GRANULE_BYTES); /* as a huge page would */
    gr_run_has_holes(used);
    must(!asks_for_huge_pages(used));
    must(os_residence(region_address(vacant), os_page_bytes(), &there) && !there);
    must(os_residence(region_address(used), os_page_bytes(), &there) && there);
    bool dirty = true;
    must(gr_run_claim_at(vacant, 1) && gr_run_same_dirt(vacant, 1, &dirty) == 1 && !dirty);
    return 0;
}

static void arena_gives_back_what_huge_pages_held_of_vacant_granules(void **state) {
    (void)state;
    must_end_well(in_child(never_used, NULL, 20), "never used");
}

/* ---- repair after fork ---- */

static size_t kept, lost;
static bool is_kept(size_t granule) { return granule >= kept && granule < kept + 3; }

static int repair(void *unused) {
    (void)unused;
    kept = gr_run_claim(3, 1);
    lost = gr_run_claim(5, 1);
    struct arena *a = arena_of(kept);
    unsigned last = ARENA_CHUNKS - 1;
    must(half_load_relaxed(&a->chunk[last]) == CHUNK_UNMAPPED);
    half_store_relaxed(&a->chunk[last], CHUNK_GROWING); /* its grower vanished */
    gr_arenas_repair(is_kept);
    must(half_load_relaxed(&a->chunk[last]) == CHUNK_UNMAPPED);
    struct arena_totals t = gr_arena_totals();
    must(t.vacant == t.mapped - 4); /* granule 0 as well */
    must(t.vacant_dirty == gr_vacant_dirty());
    bool dirty;
    must(gr_run_claim_at(lost, 5) && gr_run_same_dirt(lost, 5, &dirty) == 5 && dirty); /* nobody knows what it holds */
    must(!gr_run_claim_at(kept + 1, 1));
    return 0;
}

static void arena_repair_frees_what_nobody_holds(void **state) {
    (void)state;
    must_end_well(in_child(repair, NULL, 20), "repair");
}

/* ---- no memory ---- */

static int refuse(void *unused) {
    (void)unused;
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    must(gr_run_claim(1, 1) == 0);
    fault_disarm();
    size_t first = gr_run_claim(1, 1);
    must(first);
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    must(gr_run_claim(LARGE_MAX_GRANULES, 1) == 0);
    must(gr_run_claim(1, 1) == first + 1); /* what is mapped serves on */
    fault_disarm();
    must(gr_run_claim(LARGE_MAX_GRANULES, 1) != 0);
    return 0;
}

static void arena_growing_refused_to_unmapped_again(void **state) {
    (void)state;
    must_end_well(in_child(refuse, NULL, 20), "refused");
}

static int foreign(void *unused) {
    (void)unused;
    must(gr_run_claim(1, 1));
    char *taken = region_address(2 * CHUNK_GRANULES);
    must(__real_mmap(taken, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == taken);
    for (unsigned i = 0; i < 5 * CHUNK_GRANULES; i++) {
        size_t first = gr_run_claim(1, 1);
        must(first && first / CHUNK_GRANULES != 2);
        memset(region_address(first), 1, 64);
    }
    size_t wide = gr_run_claim(3 * CHUNK_GRANULES, 1);
    must(wide > 2 * CHUNK_GRANULES);
    must(half_load_relaxed(&arena_of(wide)->chunk[2]) == CHUNK_FOREIGN || wide >= ARENA_GRANULES);
    return 0;
}

static void arena_growing_refused_to_foreign_for_ever(void **state) {
    (void)state;
    must_end_well(in_child(foreign, NULL, 20), "foreign");
}

/* ---- threads ---- */

static _Atomic uint8_t owner[ORACLE];

static void *claim_and_free(void *name) {
    uint8_t me = (uint8_t)(uintptr_t)name;
    struct rng rng = rng_for(100u + me);
    struct run held[16] = {{0, 0}};
    for (unsigned turn = 0; turn < 20000; turn++) {
        struct run *r = &held[rng_below(&rng, COUNT_OF(held))];
        if (r->n) {
            for (size_t g = r->first; g < r->first + r->n; g++)
                must(owner[g] == me), owner[g] = 0;
            gr_run_free(r->first, r->n);
            r->n = 0;
        } else {
            size_t n = 1 + rng_below(&rng, rng_below(&rng, 4) ? 6 : 100), first = gr_run_claim(n, 1);
            must(first && first + n <= ORACLE);
            for (size_t g = first; g < first + n; g++)
                must(owner[g] == 0), owner[g] = me;
            gr_run_mark_dirty(first, n);
            *r = (struct run){first, n};
        }
    }
    for (unsigned i = 0; i < COUNT_OF(held); i++)
        if (held[i].n) {
            for (size_t g = held[i].first; g < held[i].first + held[i].n; g++)
                owner[g] = 0;
            gr_run_free(held[i].first, held[i].n);
        }
    return NULL;
}

static int work_together(void *unused) {
    (void)unused;
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        must(pthread_create(&threads[i], NULL, claim_and_free, (void *)(i + 1)) == 0);
    for (unsigned i = 0; i < 4; i++)
        must(pthread_join(threads[i], NULL) == 0);
    struct arena_totals t = gr_arena_totals();
    must(t.vacant == t.mapped - 1);
    must(t.vacant_dirty == gr_vacant_dirty());
    return 0;
}

static void arena_run_held_by_one_thread(void **state) {
    (void)state;
    must_end_well(in_child(work_together, NULL, 60), "threads");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_growing_refused_to_unmapped_again),
        cmocka_unit_test(arena_growing_refused_to_foreign_for_ever),
        cmocka_unit_test(arena_vacant_unmap_to_unmapped_and_mapped_again),
        cmocka_unit_test(arena_vacant_unmap_refused_to_vacant),
        cmocka_unit_test(arena_small_slabs_have_chunks_of_their_own),
        cmocka_unit_test(arena_claim_at_maps_what_it_needs),
        cmocka_unit_test(arena_asks_for_huge_pages_from_the_first_chunk_on),
        cmocka_unit_test(arena_gives_back_what_huge_pages_held_of_vacant_granules),
        cmocka_unit_test(arena_repair_frees_what_nobody_holds),
        cmocka_unit_test(arena_run_held_by_one_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
