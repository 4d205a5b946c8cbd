/* unit_slab.c -- slab/slab.h: each row of the STATES table by its name, then all of them at random against an oracle.
 * covers: S124
 */
#include "test.h"

#include "os/options.h"
#include "page/page_map.h"
#include "slab/slab.h"

/* A class whose threshold is above 1 and below its capacity, and a class with threshold 1. */
static unsigned slow_class, quick_class;
static const struct size_class *k; /* slow_class's */
static uint32_t number;            /* the slab of the test at hand, of slow_class, OWNED with budget == capacity */
static struct slab *s;

static int new_slab(void **state) {
    (void)state;
    bool clean;
    number = gr_slab_birth(slow_class, false, &clean);
    s = slab_at(number);
    return number == 0;
}

static uint32_t state_word(void) { return half_load_relaxed(&s->word); }

static void set_all_bits(bool set) {
    for (unsigned w = 0; w < k->words; w++) {
        unsigned in_word = k->capacity - w * 64 < 64 ? k->capacity - w * 64 : 64;
        word_store_relaxed(slab_bits(number, w), set ? bits_span(0, in_word) : 0);
    }
}

/* All blocks out, the slab parked with `count` back. */
static void park(uint32_t count) {
    set_all_bits(false);
    half_store_relaxed(&s->word, count);
    for (uint32_t b = 0; b < count; b++)
        word_or_relaxed(slab_bits(number, b / 64), 1ull << b % 64);
}

static int drop_slab(void **state) {
    (void)state;
    if (state_word() & SLAB_RETIRED)
        return 0;
    set_all_bits(true);
    half_store_relaxed(&s->word, k->capacity);
    gr_slab_retire(number, slow_class);
    return 0;
}

/* ---- birth ---- */

static void slab_reborn_to_owned(void **state) {
    (void)state;
    assert_int_equal(state_word(), SLAB_OWNED);
    assert_int_equal(number % k->granules, 0);
    assert_int_equal(gr_slab_recount(number, slow_class), k->capacity);
    for (unsigned g = 0; g < k->granules; g++)
        assert_int_equal(page_class(number + g), slow_class);
    gr_slab_check(number, slow_class, k->capacity);
}

static void slab_reborn_of_every_class(void **state) {
    (void)state;
    for (unsigned class = 1; class <= CLASSES; class ++) {
        bool clean;
        uint32_t index = gr_slab_birth(class, false, &clean);
        assert_true(index && index % gr_classes[class].granules == 0);
        assert_int_equal(gr_slab_recount(index, class), gr_classes[class].capacity);
        half_store_relaxed(&slab_at(index)->word, gr_classes[class].capacity);
        gr_slab_retire(index, class);
    }
}

static void slab_reborn_clean_only_on_memory_never_used(void **state) {
    (void)state;
    bool clean;
    uint32_t index = gr_slab_birth(quick_class, false, &clean); /* its run may be another's of before */
    uint32_t fresh = 0;
    for (unsigned i = 0; i < 200 && !fresh; i++) {
        uint32_t next = gr_slab_birth(quick_class, false, &clean);
        fresh = clean ? next : 0;
    }
    assert_true(fresh && index);
    size_t bytes = gr_classes[quick_class].granules * (size_t)GRANULE_BYTES - (HARDENED ? GUARD_BYTES : 0);
    assert_true(all_bytes_are(region_address(fresh), bytes, 0));
    assert_int_equal(slab_at(fresh)->parked_clean_from, 0);
    half_store_relaxed(&slab_at(fresh)->word, gr_classes[quick_class].capacity);
    gr_slab_retire(fresh, quick_class);
    uint32_t again = gr_slab_birth(quick_class, false, &clean);
    assert_false(clean);
    assert_int_equal(slab_at(again)->parked_clean_from, gr_classes[quick_class].capacity);
}

/* ---- or ---- */

static void slab_or_any_but_retired(void **state) {
    (void)state;
    park(0);
    assert_true(slab_or_any(number, 0, 5) == 0);
    assert_true(word_load_relaxed(slab_bits(number, 0)) == 5);
    assert_true(slab_or_any(number, 0, 12) == 4); /* free already: a double free */
    assert_true(slab_or_any(number, 0, 16) == 0);
    assert_int_equal(state_word(), 0); /* not counted */
}

/* ---- add ---- */

static void slab_add_owned_to_owned(void **state) {
    (void)state;
    set_all_bits(false);
    for (uint32_t count = 1; count <= k->capacity; count++) {
        assert_int_equal(slab_add_any(s, k, 1), SLAB_DONE);
        assert_int_equal(state_word(), SLAB_OWNED + count);
    }
}

static void slab_add_count_at_threshold_or_above(void **state) {
    (void)state;
    for (uint32_t count = k->threshold; count + 1 < k->capacity; count++) {
        park(count);
        assert_int_equal(slab_add_any(s, k, 1), SLAB_DONE);
        assert_int_equal(state_word(), count + 1);
    }
    park(k->threshold);
    assert_int_equal(slab_add_any(s, k, k->capacity - k->threshold), SLAB_WHOLE); /* somebody else's to retire */
}

static void slab_add_parked_sum_below_threshold(void **state) {
    (void)state;
    park(0);
    for (uint32_t count = 1; count < k->threshold; count++) {
        assert_int_equal(slab_add_any(s, k, 1), SLAB_DONE);
        assert_int_equal(state_word(), count);
    }
    assert_int_equal(slab_add_any(s, k, 1), SLAB_LIST);
}

static void slab_add_parked_sum_at_threshold_or_above(void **state) {
    (void)state;
    for (uint32_t before = 0; before < k->threshold; before++)
        for (uint32_t sum = k->threshold; sum <= k->capacity && sum - before <= 64; sum++) {
            park(before);
            assert_int_equal(slab_add_any(s, k, sum - before), sum == k->capacity ? SLAB_RETIRE : SLAB_LIST);
            assert_int_equal(state_word(), sum);
        }
}

static void slab_add_all_blocks_at_once(void **state) {
    (void)state;
    const struct size_class *q = &gr_classes[quick_class];
    park(0);
    assert_int_equal(slab_add_any(s, q, q->capacity), SLAB_RETIRE); /* threshold 1: from nothing to whole */
    park(0);
    assert_int_equal(slab_add_any(s, q, 1), SLAB_LIST);
    assert_int_equal(slab_add_any(s, q, 1), SLAB_DONE);
    assert_int_equal(slab_add_any(s, q, q->capacity - 2u), SLAB_WHOLE);
}

/* ---- take, look, claim ---- */

static void slab_take_in_hand_to_owned(void **state) {
    (void)state;
    park(k->threshold + 3u);
    assert_int_equal(slab_take_owner(s), k->threshold + 3);
    assert_int_equal(state_word(), SLAB_OWNED);
}

static void slab_take_owned_asks_for_more(void **state) {
    (void)state;
    set_all_bits(false);
    assert_int_equal(slab_take_owner(s), 0);
    slab_or_any(number, 0, 6);
    slab_add_any(s, k, 2);
    assert_int_equal(slab_take_owner(s), 2);
    assert_int_equal(slab_take_owner(s), 0);
    assert_int_equal(state_word(), SLAB_OWNED);
}

static void slab_look_and_claim_within_the_budget(void **state) {
    (void)state;
    park(0);
    assert_true(slab_claim_owner(number, 0, 5) == 0);
    word_store_relaxed(slab_bits(number, 0), 0xf0f0);
    uint64_t three = slab_claim_owner(number, 0, 3);
    assert_true(HARDENED ? bits_count(three & 0xf0f0) == 3 && bits_count(three) == 3 : three == 0x70); /* the lowest */
    assert_true(word_load_relaxed(slab_bits(number, 0)) == (0xf0f0 & ~three));
    assert_true(slab_claim_owner(number, 0, 64) == (0xf0f0 & ~three));
    assert_true(word_load_relaxed(slab_bits(number, 0)) == 0);
    word_store_relaxed(slab_bits(number, 0), ~0ull);
    assert_true(slab_claim_owner(number, 0, 64) == ~0ull);
}

/* ---- release ---- */

static void slab_release_below_threshold_to_parked(void **state) {
    (void)state;
    for (uint32_t budget = 0; budget < k->threshold; budget++)
        for (uint32_t count = 0; budget + count < k->threshold; count++) {
            half_store_relaxed(&s->word, SLAB_OWNED + count);
            assert_int_equal(slab_release_owner(s, k, budget), SLAB_DONE);
            assert_int_equal(state_word(), count + budget);
        }
}

static void slab_release_at_threshold_or_above_to_in_hand(void **state) {
    (void)state;
    for (uint32_t sum = k->threshold; sum <= k->capacity; sum++) {
        uint32_t budget = sum / 2;
        half_store_relaxed(&s->word, SLAB_OWNED + sum - budget);
        assert_int_equal(slab_release_owner(s, k, budget), sum == k->capacity ? SLAB_RETIRE : SLAB_LIST);
        assert_int_equal(state_word(), sum);
    }
}

static void slab_bits_of_neighbours_stand_apart(void **state) {
    (void)state;
    bool clean;
    uint32_t other = gr_slab_birth(slow_class, false, &clean);
    assert_true(other);
    for (unsigned w = 0; w < SLAB_WORDS; w++) {
        assert_ptr_not_equal(slab_bits(number, w), slab_bits(other, w));
        word_store_relaxed(slab_bits(number, w), 0);
    }
    assert_int_equal(gr_slab_recount(other, slow_class), k->capacity);
    assert_int_equal(state_word(), SLAB_OWNED);
    half_store_relaxed(&slab_at(other)->word, k->capacity);
    gr_slab_retire(other, slow_class);
}

/* ---- retire, peek ---- */

static void slab_in_hand_whole_to_retired(void **state) {
    (void)state;
    set_all_bits(true);
    half_store_relaxed(&s->word, k->capacity);
    uint64_t vacant = gr_arena_totals().vacant;
    gr_slab_retire(number, slow_class);
    assert_int_equal(state_word(), SLAB_RETIRED);
    assert_int_equal(gr_arena_totals().vacant, vacant + k->granules);
    for (unsigned g = 0; g < k->granules; g++)
        assert_int_equal(page_class(number + g), 0);
}

static void slab_peek_in_hand_whole_or_not(void **state) {
    (void)state;
    for (uint32_t count = 0; count <= k->capacity; count++) {
        half_store_relaxed(&s->word, count);
        assert_int_equal(slab_is_whole_token(s, k), count == k->capacity);
    }
}

static void slab_recount_counts_what_the_bits_say(void **state) {
    (void)state;
    struct rng rng = rng_for(3);
    for (unsigned turn = 0; turn < 100; turn++) {
        uint32_t want = 0;
        set_all_bits(false);
        for (uint32_t b = 0; b < k->capacity; b++)
            if (rng_below(&rng, 2)) {
                slab_or_any(number, b / 64, 1ull << b % 64);
                want++;
            }
        assert_int_equal(gr_slab_recount(number, slow_class), want);
    }
}

/* ---- all rows at random: accounting and one-token hold after each step ---- */

static void slab_accounting_and_one_token(void **state) {
    (void)state;
    enum { PARKED, OWNED, LISTED } is = OWNED;
    struct rng rng = rng_for(4);
    uint32_t budget = k->capacity, out = 0;
    bool held[4096] = {false}; /* by a user */
    for (unsigned turn = 0; turn < 200000; turn++) {
        size_t act = rng_below(&rng, 8);
        if (act < 3 && is == OWNED) {
            budget += budget ? 0 : slab_take_owner(s);
            unsigned w = (unsigned)rng_below(&rng, k->words);
            uint64_t got = slab_claim_owner(number, w, (uint32_t)min_size(budget, 1 + rng_below(&rng, 70)));
            budget -= bits_count(got);
            out += bits_count(got);
            for (; got; got &= got - 1) {
                must(!held[w * 64 + bits_lowest(got)]);
                held[w * 64 + bits_lowest(got)] = true;
            }
        } else if (act < 6 && out) {
            unsigned w = (unsigned)rng_below(&rng, k->words);
            uint64_t mask = 0;
            for (unsigned b = 0; b < 64; b++)
                if (held[w * 64 + b] && rng_below(&rng, 3) == 0) {
                    held[w * 64 + b] = false;
                    mask |= 1ull << b;
                }
            if (!mask)
                continue;
            uint32_t before = state_word() & SLAB_COUNT_MASK;
            must(slab_or_any(number, w, mask) == 0);
            out -= bits_count(mask);
            enum slab_given given = slab_add_any(s, k, bits_count(mask));
            bool crosses = is == PARKED && before < k->threshold && before + bits_count(mask) >= k->threshold;
            must((given == SLAB_LIST || given == SLAB_RETIRE) == crosses);
            must((given == SLAB_RETIRE || given == SLAB_WHOLE) == (is != OWNED && out == 0));
            is = crosses ? LISTED : is;
        } else if (act == 6 && is == OWNED) {
            enum slab_given given = slab_release_owner(s, k, budget);
            budget = 0;
            must((given == SLAB_RETIRE) == (out == 0));
            is = given == SLAB_DONE ? PARKED : LISTED;
        } else if (act == 7 && is == LISTED) {
            must(slab_is_whole_token(s, k) == (out == 0));
            budget = slab_take_owner(s);
            must(budget >= k->threshold);
            is = OWNED;
        }
        must(gr_slab_recount(number, slow_class) == k->capacity - out);
        must((state_word() & SLAB_COUNT_MASK) + budget == k->capacity - out);
        must(((state_word() & SLAB_OWNED) != 0) == (is == OWNED));
    }
}

#define ROW(test) cmocka_unit_test_setup_teardown(test, new_slab, drop_slab)

int main(void) {
    gr_options_parse("purge_ms:never", "test: ");
    for (unsigned class = 1; class <= CLASSES; class ++) {
        if (gr_classes[class].threshold >= 8 && gr_classes[class].words > SLAB_NEAR_WORDS &&
            gr_classes[class].capacity % 64)
            slow_class = class;
        if (!quick_class && gr_classes[class].threshold == 1)
            quick_class = class;
    }
    must(slow_class && quick_class);
    k = &gr_classes[slow_class];
    const struct CMUnitTest tests[] = {
        ROW(slab_reborn_to_owned),
        ROW(slab_reborn_of_every_class),
        ROW(slab_reborn_clean_only_on_memory_never_used),
        ROW(slab_or_any_but_retired),
        ROW(slab_add_owned_to_owned),
        ROW(slab_add_count_at_threshold_or_above),
        ROW(slab_add_parked_sum_below_threshold),
        ROW(slab_add_parked_sum_at_threshold_or_above),
        ROW(slab_add_all_blocks_at_once),
        ROW(slab_bits_of_neighbours_stand_apart),
        ROW(slab_take_in_hand_to_owned),
        ROW(slab_take_owned_asks_for_more),
        ROW(slab_look_and_claim_within_the_budget),
        ROW(slab_release_below_threshold_to_parked),
        ROW(slab_release_at_threshold_or_above_to_in_hand),
        ROW(slab_in_hand_whole_to_retired),
        ROW(slab_peek_in_hand_whole_or_not),
        ROW(slab_recount_counts_what_the_bits_say),
        ROW(slab_accounting_and_one_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
