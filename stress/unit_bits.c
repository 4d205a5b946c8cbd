/* unit_bits.c -- base/bits.h against loops that count one bit at a time.
 * covers: S120 C12
 */
#include "test.h"

#include "base/bits.h"

/* All words of one bit, of two, of one run, and many at random. */
static void for_many_words(void (*check)(uint64_t word)) {
    struct rng rng = rng_for(1);
    for (unsigned a = 0; a < 64; a++)
        for (unsigned b = 0; b < 64; b++) {
            check(1ull << a | 1ull << b);
            check(~(1ull << a | 1ull << b));
            if (a + b < 64)
                check(bits_span(a, b + 1 > 64 - a ? 64 - a : b + 1));
        }
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t word = rng_next(&rng);
        check(word);
        check(word & rng_next(&rng) & rng_next(&rng));
        check(word | rng_next(&rng) | rng_next(&rng));
    }
}

static void check_ends_and_count(uint64_t word) {
    unsigned lowest = 64, highest = 64, count = 0;
    for (unsigned bit = 0; bit < 64; bit++)
        if (word >> bit & 1) {
            lowest = lowest < 64 ? lowest : bit;
            highest = bit;
            count++;
        }
    must(bits_count(word) == count);
    must(!word || bits_lowest(word) == lowest);
    must(!word || bits_highest(word) == highest);
}

static void bits_lowest_highest_count(void **state) {
    (void)state;
    check_ends_and_count(0);
    check_ends_and_count(~0ull);
    for_many_words(check_ends_and_count);
}

static void check_lowest_k(uint64_t word) {
    static unsigned turn;
    unsigned ks[] = {0, 1, 2, 63, 64, 65, turn++ % 64};
    for (unsigned i = 0; i < COUNT_OF(ks); i++) {
        uint64_t want = 0, rest = word;
        for (unsigned k = 0; k < ks[i] && rest; k++, rest &= rest - 1)
            want |= rest & (0 - rest);
        must(bits_lowest_k(word, ks[i]) == want);
    }
}

static void bits_lowest_k_keeps_the_lowest(void **state) {
    (void)state;
    check_lowest_k(0);
    check_lowest_k(~0ull);
    for_many_words(check_lowest_k);
}

static void bits_span_is_exhaustively_right(void **state) {
    (void)state;
    for (unsigned from = 0; from < 64; from++)
        for (unsigned n = 0; from + n <= 64; n++) {
            uint64_t want = 0;
            for (unsigned bit = from; bit < from + n; bit++)
                want |= 1ull << bit;
            assert_true(bits_span(from, n) == want);
        }
}

static void bits_powers_and_rounding(void **state) {
    (void)state;
    assert_false(is_power_of_two(0));
    for (unsigned bit = 0; bit < 64; bit++) {
        assert_true(is_power_of_two((size_t)1 << bit));
        assert_int_equal(is_power_of_two(((size_t)1 << bit) + 1), bit == 0);
    }
    for (size_t unit = 1; unit <= 4096; unit *= 2)
        for (size_t n = 0; n < 3 * unit; n++) {
            size_t up = round_up(n, unit);
            assert_true(up >= n && up - n < unit && up % unit == 0);
        }
    assert_int_equal(round_up(SIZE_MAX - 4095, 4096), SIZE_MAX - 4095);
    assert_int_equal(min_size(1, SIZE_MAX), 1);
    assert_int_equal(max_size(1, SIZE_MAX), SIZE_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_lowest_highest_count),
        cmocka_unit_test(bits_lowest_k_keeps_the_lowest),
        cmocka_unit_test(bits_span_is_exhaustively_right),
        cmocka_unit_test(bits_powers_and_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
