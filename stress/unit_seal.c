/* unit_seal.c -- slab/seal.h: what a sealed block tells, what a free one is. These verbs are the same in every build. */
#include "test.h"

#include "slab/seal.h"

enum { ROOM = 256 * 1024 };
static char arena[ROOM] __attribute__((aligned(4096)));

static void seal_tells_what_was_asked_for(void **state) {
    (void)state;
    static const size_t bytes[] = {32, 48, 80, 256, 320, 4096, 20480, 36864, ROOM};
    gr_seal_boot();
    for (size_t i = 0; i < COUNT_OF(bytes); i++)
        for (size_t n = 0; n <= bytes[i] - SEAL_WORD; n += 1 + n / 7) {
            size_t room = bytes[i] - SEAL_WORD;
            memset(arena, 0, bytes[i]);
            seal_put(arena, bytes[i], n);
            memset(arena, 0xff, n); /* all that its user may write */
            must(seal_slack(arena, seal_look(arena, bytes[i])) == room - n);
            must(slack_is_whole(arena + room, room - n, SLACK_LOOK) &&
                 slack_is_whole(arena + room, room - n, SIZE_MAX));
            must(seal_slack(arena, seal_take(arena, bytes[i])) == room - n);
            must(taken_slack_is_whole(arena, room, room - n));
            must(seal_take(arena, bytes[i]) == 0); /* the second of two finds none */
            block_clear(arena, bytes[i]);
            must(block_is_clear(arena, bytes[i]));
            must(seal_slack(arena, seal_look(arena, bytes[i])) > room);
        }
}

/* Any other value in any byte between the user's last and the block's end. */
static void seal_tells_every_byte_behind(void **state) {
    (void)state;
    enum { BYTES = 48, CAN = BYTES - SEAL_WORD };
    gr_seal_boot();
    for (size_t n = 0; n <= CAN; n++)
        for (size_t at = n; at < BYTES; at++)
            for (unsigned change = 1; change < 256; change++) {
                memset(arena, 0, BYTES);
                seal_put(arena, BYTES, n);
                arena[at] = (char)(arena[at] ^ (char)change);
                uint64_t slack = seal_slack(arena, seal_look(arena, BYTES));
                bool whole = slack <= CAN && slack_is_whole(arena + CAN, slack, SLACK_LOOK);
                must(seal_slack(arena, seal_take(arena, BYTES)) == slack);
                must(whole == (slack <= CAN && taken_slack_is_whole(arena, CAN, slack)));
                /* The slack itself is the seal's last 18 bits: another length is believed if the slack fits that. */
                must(!whole || (at >= BYTES - 3 && slack != CAN - n));
                must(!whole || arena[CAN - slack] == (char)SLACK_MARK || slack == 0);
            }
}

static void seal_is_of_one_place(void **state) {
    (void)state;
    gr_seal_boot();
    memset(arena, 0, ROOM);
    seal_put(arena, 64, 40);
    memcpy(arena + 64, arena, 64); /* a block copied whole, its seal with it */
    assert_true(seal_slack(arena, seal_look(arena, 64)) == 16);
    assert_true(seal_slack(arena + 64, seal_look(arena + 64, 64)) > 56);
}

static void seal_every_byte_of_a_free_block_counts(void **state) {
    (void)state;
    static const size_t bytes[] = {32, 48, 64, 80, 112, 256, 320, 1024, 5120, 36864, 65536};
    memset(arena, 0, ROOM);
    for (size_t i = 0; i < COUNT_OF(bytes); i++)
        for (size_t at = 0; at < bytes[i] && bytes[i] <= WIDE_BYTES; at += 1 + at / 40) {
            must(block_is_clear(arena, bytes[i]));
            arena[at] = (char)0x80;
            must(!block_is_clear(arena, bytes[i]));
            must(gr_first_written(arena, bytes[i]) == arena + at);
            arena[at] = 0;
        }
}

/* Whatever its size is, a block is cleared and looked at from end to end, and no further. */
static void seal_short_blocks_end_where_they_do(void **state) {
    (void)state;
    enum { AROUND = 512 };
    char *p = arena + AROUND;
    for (size_t bytes = 32; bytes <= 1280; bytes += 16) {
        memset(arena, 0x80, AROUND + bytes + AROUND);
        block_clear(p, bytes);
        must(all_bytes_are(p, bytes, 0) && block_is_clear(p, bytes));
        must(all_bytes_are(arena, AROUND, 0x80) && all_bytes_are(p + bytes, AROUND, 0x80));
        for (size_t at = 0; at < bytes; at++) {
            p[at] = 1;
            must(!block_is_clear(p, bytes));
            p[at] = 0;
        }
    }
    memset(arena, 0, ROOM);
}

/* A slack that is longer than the look: its first bytes are looked at, all of them where that is asked. */
static void seal_slack_is_looked_at_where_it_begins(void **state) {
    (void)state;
    enum { BYTES = 4096, CAN = BYTES - SEAL_WORD };
    gr_seal_boot();
    for (size_t n = CAN - 300; n < CAN - 1; n++)
        for (size_t at = n; at < CAN; at++) {
            memset(arena, 0, BYTES);
            seal_put(arena, BYTES, n);
            arena[at] = (char)(arena[at] ^ 0x10);
            must(!slack_is_whole(arena + CAN, CAN - n, SIZE_MAX));
            must(at >= n + SLACK_LOOK - 8 || !slack_is_whole(arena + CAN, CAN - n, SLACK_LOOK));
            seal_take(arena, BYTES);
            must(at >= n + SLACK_LOOK || !taken_slack_is_whole(arena, CAN, CAN - n));
        }
}

/* Pages that nobody wrote do not come to memory, be the block cleared or looked at; those that somebody did are cleared. */
static void seal_wide_blocks_stay_away(void **state) {
    (void)state;
    enum { WIDE = 4096 * 4096 };
    char *p = mmap(NULL, WIDE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(p != MAP_FAILED);
    madvise(p, WIDE, MADV_NOHUGEPAGE);
    p[5 * 4096] = p[4095 * 4096 + 9] = 1;
    size_t before = rss_bytes();
    must(!block_is_clear(p, WIDE)); /* the last page is looked at always */
    block_clear(p, WIDE);
    must(all_bytes_are(p, WIDE, 0));
    for (unsigned i = 0; i < 20; i++)
        must(block_is_clear(p, WIDE));
    if (!GR_TSAN) /* its shadow of what was read is resident, too */
        assert_in_range(rss_bytes(), 1, before + WIDE / 4);
    munmap(p, WIDE);
}

/* In the first 4 KiB and the last eighth always, elsewhere in one look of eight. */
static void seal_wide_blocks_are_looked_at_in_part(void **state) {
    (void)state;
    memset(arena, 0, ROOM);
    for (unsigned i = 0; i < 100; i++) {
        size_t at = i % 2 ? i * 40u : ROOM - 1 - i * (ROOM / 8 / 100);
        arena[at] = 1;
        must(!block_is_clear(arena, ROOM));
        arena[at] = 0;
    }
    arena[ROOM / 2] = 1;
    unsigned found = 0;
    for (unsigned i = 0; i < 4000; i++)
        found += !block_is_clear(arena, ROOM);
    assert_in_range(found, 350, 650);
    block_clear(arena, ROOM);
    must(all_bytes_are(arena, ROOM, 0));
}

static void seal_random_bits_are_some_of_those(void **state) {
    (void)state;
    uint64_t ever = 0;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t v = gr_seal_random() & gr_seal_random();
        unsigned k = 1 + i % 20, have = bits_count(v);
        uint64_t some = gr_random_bits(v, k);
        must((some & ~v) == 0);
        must(bits_count(some) == (have < k ? have : k));
        ever |= gr_random_bits(~0ull, 1);
    }
    assert_true(ever == ~0ull);
    uint64_t start = 1;
    unsigned seen[10] = {0};
    for (unsigned i = 0; i < 100000; i++)
        seen[random_below(&start, 10)]++;
    for (unsigned i = 0; i < 10; i++)
        assert_in_range(seen[i], 9000, 11000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seal_tells_what_was_asked_for),
        cmocka_unit_test(seal_tells_every_byte_behind),
        cmocka_unit_test(seal_is_of_one_place),
        cmocka_unit_test(seal_every_byte_of_a_free_block_counts),
        cmocka_unit_test(seal_wide_blocks_stay_away),
        cmocka_unit_test(seal_random_bits_are_some_of_those),
        cmocka_unit_test(seal_short_blocks_end_where_they_do),
        cmocka_unit_test(seal_slack_is_looked_at_where_it_begins),
        cmocka_unit_test(seal_wide_blocks_are_looked_at_in_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
