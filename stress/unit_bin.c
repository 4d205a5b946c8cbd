/* unit_bin.c -- central/bin.h: claiming in order, returning with checks, who lists and who retires, trim that reaches all. */
/* Not in the hardened build, which takes blocks at random: misuse_place.c. */
/* test: hardened=off wrap=mmap,munmap,madvise,mremap,mprotect */
#include "oom_fault.h"

#include "central/bin.h"
#include "os/options.h"
#include "page/page_map.h"

enum { MOST = 8192 };

static unsigned class; /* of the test at hand: a threshold above 1, more than one bitmap word */
static const struct size_class *k;
static void *block[MOST];

/* Claims exactly `want` blocks of one slab into out[]. */
static uint32_t claim(struct holding *h, void **out, unsigned want, bool *clean) {
    must(gr_bin_claim(h, class, out, want, clean) == want);
    return h->slab;
}

static void give(void **blocks, unsigned n) { gr_bin_return(class, blocks, n, "free"); }

/* No slab of the class is left: all blocks are home. */
static int all_home(void **state) {
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        gr_bin_trim(class, UINT32_MAX, false);
    must(gr_bin_granules(class) == 0);
    return 0;
}

/* ---- claiming ---- */

static void bin_claim_in_address_order_from_one_slab(void **state) {
    (void)state;
    for (class = 1; class <= CLASSES; class ++) {
        struct holding h = {0, 0, 0, 0};
        bool clean;
        k = &gr_classes[class];
        uint32_t slab = claim(&h, block, k->capacity, &clean);
        for (unsigned i = 0; i < k->capacity; i++) {
            must(block[i] == block_address(slab, class, i));
            must(page_class_of(block[i]) == class);
            pattern_sprinkle(block[i], k->bytes, i);
        }
        for (unsigned i = 0; i < k->capacity; i++)
            must(pattern_sprinkled(block[i], k->bytes, i));
        assert_int_equal(gr_bin_granules(class), k->granules);
        assert_int_equal(h.budget, 0);
        gr_bin_release(&h, class);
        assert_int_equal(h.slab, 0);
        give(block, k->capacity);
        all_home(NULL);
    }
}

static void bin_claim_makes_one_new_slab_at_most(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0};
    bool clean;
    assert_int_equal(gr_bin_claim(&h, class, block, k->capacity + 100u, &clean), k->capacity);
    assert_int_equal(gr_bin_granules(class), k->granules);
    assert_int_equal(gr_bin_claim(&h, class, block + k->capacity, 1, &clean), 1);
    assert_int_equal(gr_bin_granules(class), 2u * k->granules);
    gr_bin_release(&h, class);
    give(block, k->capacity + 1u);
}

static void bin_claim_the_held_slab_first(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0};
    bool clean;
    uint32_t slab = claim(&h, block, 5, &clean);
    assert_int_equal(claim(&h, block + 5, 5, &clean), slab);
    give(block, 10); /* counted while it is held: the owner takes them when his budget is out */
    assert_int_equal(claim(&h, block, k->capacity, &clean), slab);
    gr_bin_release(&h, class);
    give(block, k->capacity);
}

static void bin_claim_goes_on_over_several_listed_slabs(void **state) {
    (void)state;
    struct holding h[3] = {{0, 0, 0, 0}};
    bool clean;
    unsigned some = k->threshold + 7u;
    for (unsigned i = 0; i < 3; i++) {
        claim(&h[i], block + i * some, some, &clean);
        assert_true(i == 0 || h[i].slab != h[i - 1].slab);
    }
    for (unsigned i = 0; i < 3; i++)
        gr_bin_release(&h[i], class);
    struct holding one = {0, 0, 0, 0};
    unsigned rest = 3u * (k->capacity - some), got = gr_bin_claim(&one, class, block + 3 * some, rest + 50, &clean);
    assert_int_equal(got, rest);
    assert_int_equal(gr_bin_granules(class), 3u * k->granules);
    gr_bin_release(&one, class);
    give(block, 3 * some + rest);
}

static void bin_claim_clean_until_handed_out_once(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0};
    bool clean;
    claim(&h, block, 1, &clean);
    assert_true(clean); /* the first test: no memory was ever used */
    for (unsigned n = 1; n < k->capacity; n += 9) {
        unsigned want = (unsigned)min_size(9, k->capacity - n);
        claim(&h, block + n, want, &clean);
        assert_true(clean);
        for (unsigned i = n; i < n + want; i++)
            assert_true(all_bytes_are(block[i], k->bytes, 0));
        if (n % 3 == 0) { /* parked with what is known of it, and adopted again */
            give(block, 1);
            gr_bin_release(&h, class);
            claim(&h, block, 1, &clean);
            assert_false(clean);
        }
    }
    give(block, 3);
    claim(&h, block, 2, &clean);
    assert_false(clean);
    claim(&h, block + 2, 1, &clean);
    gr_bin_release(&h, class);
    give(block, k->capacity);
}

static void bin_claim_without_memory(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0};
    bool clean;
    unsigned n = 0;
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    static void *all[1 << 20];
    while (n < COUNT_OF(all) && gr_bin_claim(&h, class, &all[n], 1, &clean))
        n++;
    fault_disarm();
    assert_true(n < COUNT_OF(all));
    assert_int_equal(h.slab, 0);
    for (unsigned i = 0; i < n; i++)
        give(&all[i], 1);
}

/* ---- who lists, who retires ---- */

static void bin_release_below_threshold_parks(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0}, other = {0, 0, 0, 0};
    bool clean;
    unsigned out = k->capacity - k->threshold + 1u;
    uint32_t slab = claim(&h, block, out, &clean);
    gr_bin_release(&h, class);
    assert_int_not_equal(claim(&other, block + out, 1, &clean), slab); /* nobody finds it */
    gr_bin_release(&other, class);
    give(block, out + 1);
}

static void bin_release_at_threshold_lists(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0}, other = {0, 0, 0, 0};
    bool clean;
    unsigned out = k->capacity - k->threshold;
    uint32_t slab = claim(&h, block, out, &clean);
    gr_bin_release(&h, class);
    assert_int_equal(claim(&other, block + out, k->threshold, &clean), slab);
    gr_bin_release(&other, class);
    give(block, k->capacity);
}

static void bin_release_whole_retires(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0};
    bool clean;
    uint32_t slab = claim(&h, block, 3, &clean);
    give(block, 3);
    uint64_t vacant = gr_arena_totals().vacant;
    gr_bin_release(&h, class);
    assert_int_equal(gr_arena_totals().vacant, vacant + k->granules);
    assert_int_equal(page_class(slab), 0);
    gr_bin_release(&h, class); /* holds nothing: does nothing */
}

static void bin_return_lists_at_the_threshold(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0}, other = {0, 0, 0, 0};
    bool clean;
    void *extra;
    uint32_t slab = claim(&h, block, k->capacity, &clean);
    gr_bin_release(&h, class);
    give(block, k->threshold - 1u);
    assert_int_not_equal(claim(&other, &extra, 1, &clean), slab);
    gr_bin_release(&other, class); /* listed, below */
    give(block + k->threshold - 1u, 1);
    assert_int_equal(claim(&other, block, k->threshold, &clean), slab); /* last listed, first taken */
    gr_bin_release(&other, class);
    give(block, k->capacity);
    give(&extra, 1);
}

static void bin_return_of_the_last_retires(void **state) {
    (void)state;
    class = SIZE_CLASSES; /* the threshold is 1: all at once go from parked to whole */
    k = &gr_classes[class];
    struct holding h = {0, 0, 0, 0};
    bool clean;
    claim(&h, block, k->capacity, &clean);
    gr_bin_release(&h, class);
    give(block, k->capacity);
    assert_int_equal(gr_bin_granules(class), 0);
}

/* ---- trim ---- */

/* Slabs listed with one block out each; the blocks are block[0 .. slabs). */
static void list_slabs(unsigned slabs) {
    bool clean;
    static struct holding h[MOST];
    for (unsigned i = 0; i < slabs; i++) {
        h[i] = (struct holding){0, 0, 0, 0};
        claim(&h[i], block + i, 1, &clean);
    }
    for (unsigned i = 0; i < slabs; i++)
        gr_bin_release(&h[i], class);
}

static void bin_trim_reaches_the_middle(void **state) {
    (void)state;
    enum { SLABS = 20 };
    list_slabs(SLABS);
    for (unsigned i = 1; i < SLABS; i += 7)
        give(block + i, 1); /* whole while listed: too few for a return to look */
    assert_int_equal(gr_bin_granules(class), (size_t)SLABS * k->granules);
    unsigned retired = gr_bin_trim(class, UINT32_MAX, false);
    retired += gr_bin_trim(class, UINT32_MAX, false);
    assert_int_equal(retired, 3);
    assert_int_equal(gr_bin_granules(class), (SLABS - 3) * (size_t)k->granules);
    struct holding h = {0, 0, 0, 0};
    bool clean;
    unsigned rest = (SLABS - 3) * (k->capacity - 1u);
    static void *others[64 * MOST];
    assert_int_equal(gr_bin_claim(&h, class, others, rest, &clean), rest); /* the others are still found */
    gr_bin_release(&h, class);
    give(others, rest);
    for (unsigned i = 0; i < SLABS; i++)
        if (i % 7 != 1)
            give(block + i, 1);
}

static void bin_trim_looks_at_no_more_than_told(void **state) {
    (void)state;
    list_slabs(3);
    give(block, 3);
    size_t before = gr_bin_granules(class);
    assert_int_equal(gr_bin_trim(class, 0, false), 0);
    assert_int_equal(gr_bin_trim(class, 1, false), 1);
    assert_int_equal(gr_bin_granules(class), before - k->granules);
}

static void bin_many_whole_slabs_go_by_themselves(void **state) {
    (void)state;
    enum { SLABS = 200 };
    list_slabs(SLABS);
    for (unsigned i = 0; i < SLABS; i++)
        give(block + i, 1);
    assert_true(gr_bin_granules(class) <= 32u * k->granules);
}

/* Pages of the slab in memory. */
static unsigned resident(uint32_t slab) {
    unsigned char page[64 * 32];
    size_t bytes = (size_t)k->granules * GRANULE_BYTES;
    unsigned n = 0;
    must(bytes / 4096 <= sizeof page && mincore(region_address(slab), bytes, page) == 0);
    for (size_t i = 0; i < bytes / 4096; i++)
        n += page[i] & 1;
    return n;
}

/* All blocks of one slab, written; those of which `stays` says so are kept, the others given back. */
static uint32_t riddled(bool (*stays)(unsigned i)) {
    struct holding h = {0, 0, 0, 0};
    bool clean;
    uint32_t slab = claim(&h, block, k->capacity, &clean);
    gr_bin_release(&h, class);
    for (unsigned i = 0; i < k->capacity; i++)
        pattern_fill(block[i], k->bytes, i);
    for (unsigned i = 0; i < k->capacity; i++)
        if (!stays(i))
            give(&block[i], 1);
    assert_true(resident(slab) * (size_t)4096 >= (size_t)k->capacity * k->bytes);
    return slab;
}
static void give_rest(bool (*stays)(unsigned i)) {
    for (unsigned i = 0; i < k->capacity; i++)
        if (stays(i)) {
            assert_true(pattern_holds(block[i], k->bytes, i));
            give(&block[i], 1);
        }
}
static void trim_pages(void) {
    gr_bin_trim(class, UINT32_MAX, true);
    gr_bin_trim(class, UINT32_MAX, true);
}

static bool first_and_middle(unsigned i) { return i == 0 || i == k->capacity / 2u; }
static bool first_half(unsigned i) { return i < k->capacity / 2u; }

static void bin_trim_purges_pages_between_live_blocks(void **state) {
    (void)state;
    for (class = 1; class <= CLASSES; class += 5) {
        k = &gr_classes[class];
        uint32_t slab = riddled(first_and_middle);
        trim_pages();
        unsigned pages_of_one = (unsigned)((k->bytes + 4095) / 4096 + 1);
        assert_true(resident(slab) <= 2 * pages_of_one);
        struct holding h = {0, 0, 0, 0}; /* all are free as before */
        bool clean;
        static void *again[MOST];
        assert_int_equal(claim(&h, again, k->capacity - 2u, &clean), slab);
        gr_bin_release(&h, class);
        give(again, k->capacity - 2u);
        give_rest(first_and_middle);
        all_home(NULL);
    }
}

static void bin_purged_end_reads_as_zero(void **state) {
    (void)state;
    riddled(first_half);
    trim_pages();
    struct holding h = {0, 0, 0, 0};
    bool clean;
    unsigned zero = 0;
    for (unsigned i = k->capacity / 2u; i < k->capacity; i++) {
        void *p;
        claim(&h, &p, 1, &clean);
        if (clean)
            assert_true(all_bytes_are(p, k->bytes, 0));
        zero += clean;
        block[i] = p;
        pattern_fill(p, k->bytes, i);
    }
    assert_true(zero + 1 + 4096 / k->bytes >= k->capacity - k->capacity / 2u && zero > 0); /* but for a page's share */
    gr_bin_release(&h, class);
    give(block + k->capacity / 2, k->capacity - k->capacity / 2u);
    give_rest(first_half);
}

static void bin_trim_purges_once(void **state) {
    (void)state;
    uint32_t slab = riddled(first_half);
    trim_pages();
    unsigned left = resident(slab);
    memset((char *)region_address(slab) + (size_t)k->capacity * k->bytes - 1, 0, 1); /* nobody may, so that it shows */
    assert_int_equal(resident(slab), left + 1);
    trim_pages();
    assert_int_equal(resident(slab), left + 1);
    struct holding h = {0, 0, 0, 0}; /* claimed from since: it is looked at again */
    bool clean;
    claim(&h, &block[k->capacity - 1], 1, &clean);
    gr_bin_release(&h, class);
    give(&block[k->capacity - 1], 1);
    trim_pages();
    assert_true(resident(slab) <= left);
    give_rest(first_half);
}

static void bin_tick_retires_the_few(void **state) {
    (void)state;
    list_slabs(3);
    give(block, 2);
    gr_bin_tick(class);
    gr_bin_tick(class);
    assert_int_equal(gr_bin_granules(class), k->granules);
    give(block + 2, 1);
}

/* ---- gathering ---- */

static void gather(unsigned times) {
    while (times--)
        gr_bin_gather(class, UINT32_MAX);
}

static void bin_gather_purges_what_nobody_claimed_from(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0};
    bool clean;
    void *p;
    uint32_t slab = riddled(first_and_middle);
    size_t all = resident(slab);
    gather(1);
    assert_int_equal(claim(&h, &p, 1, &clean), slab);
    gr_bin_release(&h, class);
    give(&p, 1);
    gather(1);
    assert_int_equal(resident(slab), all);
    gather(1);
    assert_true(resident(slab) < all / 2);
    give_rest(first_and_middle);
}

/* As a refill does: from one slab. */
static unsigned claim_some(void **out) {
    struct holding h = {0, 0, 0, 0};
    bool clean;
    unsigned n = gr_bin_claim(&h, class, out, 64, &clean);
    gr_bin_release(&h, class);
    return n;
}

static void bin_is_sparse_from_half_to_a_quarter_free(void **state) {
    (void)state;
    enum { SLABS = 40 };
    static void *more[SLABS * SLAB_MAX_BLOCKS];
    unsigned all = SLABS * k->capacity, n = 0;
    list_slabs(SLABS);
    assert_false(gr_bin_is_sparse(class));
    gather(1);
    assert_true(gr_bin_is_sparse(class));
    while (n < all / 100 * 60)
        n += claim_some(more + n);
    gather(2);
    assert_int_equal(gr_bin_granules(class), SLABS * (size_t)k->granules);
    assert_true(gr_bin_is_sparse(class));
    while (n < all / 100 * 85)
        n += claim_some(more + n);
    gather(1);
    assert_false(gr_bin_is_sparse(class));
    give(more, n);
    give(block, SLABS);
}

/* Where slabs stay, whatever is done, nobody goes without magazines for ever; until they have been full. */
/* Of slabs that are listed, the fullest give first; those that trim has not seen count as full. */
static void bin_claims_from_the_fullest(void **state) {
    (void)state;
    enum { SLABS = 12 };
    static struct holding h[SLABS];
    static void *mine[SLABS][SLAB_MAX_BLOCKS];
    unsigned kept[SLABS], order[SLABS];
    uint32_t slab[SLABS];
    bool clean;
    for (unsigned i = 0; i < SLABS; i++) {
        kept[i] =
            k->capacity * ((i * 5 % SLABS) + 1) / (SLABS + 2); /* from a fourteenth to six sevenths, in no order */
        slab[i] = claim(&h[i], mine[i], k->capacity, &clean);
    }
    for (unsigned i = 0; i < SLABS; i++) {
        gr_bin_release(&h[i], class);
        give(mine[i] + kept[i], k->capacity - kept[i]);
    }
    gather(1);
    for (unsigned n = 0; n < SLABS; n++) {
        struct holding next = {0, 0, 0, 0};
        void *p;
        uint32_t from = claim(&next, &p, 1, &clean);
        order[n] = 0;
        while (slab[order[n]] != from)
            order[n]++;
        h[n] = next; /* keeps it, so that another is next */
        give(&p, 1);
    }
    for (unsigned n = 1; n < SLABS; n++) /* by tiers: up to half of a slab more is as good */
        assert_true(kept[order[n]] <= kept[order[n - 1]] + k->capacity * 3u / 8);
    assert_true(kept[order[0]] > k->capacity * 3u / 4 && kept[order[SLABS - 1]] < k->capacity * 3u / 8);
    for (unsigned i = 0; i < SLABS; i++) {
        gr_bin_release(&h[i], class);
        give(mine[i], kept[i]);
    }
}

static void bin_gives_up_what_does_not_gather(void **state) {
    (void)state;
    enum { SLABS = 32 };
    list_slabs(SLABS);
    gather(100);
    assert_true(gr_bin_is_sparse(class));
    gather(100);
    assert_false(gr_bin_is_sparse(class));
    static void *full[2 * SLABS * SLAB_MAX_BLOCKS];
    unsigned n = 0;
    while (gr_bin_granules(class) < SLABS * (size_t)k->granules + 1)
        n += claim_some(full + n);
    gather(2);
    give(full, n);
    gather(1);
    assert_true(gr_bin_is_sparse(class));
    give(block, SLABS);
}

static void bin_is_not_sparse_when_nobody_looks(void **state) {
    (void)state;
    enum { SLABS = 40 };
    list_slabs(SLABS);
    for (unsigned times = 0; times < 3; times++) { /* it is not given up by that */
        gather(2);
        assert_true(gr_bin_is_sparse(class));
        gr_bin_gathered(class);
        assert_false(gr_bin_is_sparse(class));
    }
    give(block, SLABS);
}

static void bin_of_less_than_a_mib_is_not_sparse(void **state) {
    (void)state;
    unsigned slabs = 15u / k->granules;
    list_slabs(slabs);
    gather(1);
    assert_false(gr_bin_is_sparse(class));
    give(block, slabs);
}

static void bin_relist_what_its_owner_left(void **state) {
    (void)state;
    struct holding h = {0, 0, 0, 0}, other = {0, 0, 0, 0};
    bool clean;
    uint32_t slab = claim(&h, block, 10, &clean);
    gr_bin_relist(slab, class);
    assert_int_equal(claim(&other, block + 10, k->capacity - 10u, &clean), slab);
    assert_false(clean);
    gr_bin_release(&other, class);
    give(block, k->capacity); /* `h` vanished */
}

/* ---- what return refuses ---- */

static struct holding victim;
static int (*const crimes[])(void *);

static int return_twice_at_once(void *unused) {
    (void)unused;
    void *pair[2] = {block[3], block[3]};
    give(pair, 2);
    return 0;
}
static int return_twice(void *unused) {
    (void)unused;
    give(block + 3, 1);
    give(block + 3, 1);
    return 0;
}
static int return_inside(void *unused) {
    (void)unused;
    void *p = (char *)block[3] + 8;
    give(&p, 1);
    return 0;
}
static int return_to_another_class(void *unused) {
    (void)unused;
    gr_bin_return(class + 1, &block[3], 1, "free_sized");
    return 0;
}
static int return_foreign(void *unused) {
    (void)unused;
    void *p = malloc(100);
    give(&p, 1);
    return 0;
}
static int return_retired(void *unused) {
    (void)unused;
    give(block, k->capacity);
    gr_bin_release(&victim, class);
    give(block + 3, 1);
    return 0;
}
static int (*const crimes[])(void *) = {return_twice_at_once,    return_twice,   return_inside,
                                        return_to_another_class, return_foreign, return_retired};

static void bin_return_checks_each_block(void **state) {
    (void)state;
    static const char *const verdicts[] = {"double free: free(",      "double free: free(",  "invalid free: free(",
                                           "wrong size: free_sized(", "invalid free: free(", "invalid free: free("};
    bool clean;
    claim(&victim, block, k->capacity, &clean);
    for (unsigned i = 0; i < COUNT_OF(crimes); i++) {
        struct ending ending = in_child(crimes[i], NULL, 20);
        assert_int_equal(ending.signal, SIGABRT);
        assert_non_null(strstr(ending.text, "granary: FATAL "));
        if (!strstr(ending.text, verdicts[i]))
            fail_msg("crime %u: %s", i, ending.text);
    }
    gr_bin_release(&victim, class);
    give(block, k->capacity);
}

static int prepare(void **state) {
    (void)state;
    for (unsigned c = 1; c <= CLASSES; c++)
        if (gr_classes[c].threshold >= 8 && gr_classes[c].words >= 3)
            class = c;
    k = &gr_classes[class];
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, prepare, all_home)

int main(void) {
    gr_options_parse("purge_ms:never", "test: ");
    const struct CMUnitTest tests[] = {
        TEST(bin_claim_clean_until_handed_out_once),
        cmocka_unit_test(bin_claim_in_address_order_from_one_slab),
        TEST(bin_claim_makes_one_new_slab_at_most),
        TEST(bin_claim_the_held_slab_first),
        TEST(bin_claim_goes_on_over_several_listed_slabs),
        TEST(bin_claim_without_memory),
        TEST(bin_release_below_threshold_parks),
        TEST(bin_release_at_threshold_lists),
        TEST(bin_release_whole_retires),
        TEST(bin_return_lists_at_the_threshold),
        TEST(bin_return_of_the_last_retires),
        TEST(bin_trim_reaches_the_middle),
        TEST(bin_trim_looks_at_no_more_than_told),
        TEST(bin_many_whole_slabs_go_by_themselves),
        TEST(bin_tick_retires_the_few),
        cmocka_unit_test(bin_trim_purges_pages_between_live_blocks),
        TEST(bin_purged_end_reads_as_zero),
        TEST(bin_trim_purges_once),
        TEST(bin_gather_purges_what_nobody_claimed_from),
        TEST(bin_is_sparse_from_half_to_a_quarter_free),
        TEST(bin_claims_from_the_fullest),
        TEST(bin_gives_up_what_does_not_gather),
        TEST(bin_is_not_sparse_when_nobody_looks),
        TEST(bin_of_less_than_a_mib_is_not_sparse),
        TEST(bin_relist_what_its_owner_left),
        TEST(bin_return_checks_each_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
