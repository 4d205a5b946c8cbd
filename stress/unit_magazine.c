/* unit_magazine.c -- central/magazine.h: kinds, ids, the marks below the bottom and above the top, one holder. */
/* test: wrap=mmap,munmap,madvise,mremap,mprotect */
#include "oom_fault.h"

#include "central/magazine.h"
#include "slab/size_class.h"

enum { HOME = 3 };

static unsigned most_rounds(void) {
    unsigned most = 0;
    for (unsigned class = 1; class <= CLASSES; class ++)
        most = (unsigned)max_size(most, gr_classes[class].rounds);
    return most;
}

static void magazine_new_is_empty_between_its_marks(void **state) {
    (void)state;
    for (unsigned rounds = 1; rounds <= most_rounds(); rounds++) {
        struct magazine *m = gr_magazine_new(HOME, rounds);
        assert_non_null(m);
        assert_int_equal(m->rounds, rounds);
        assert_int_equal(m->count, 0);
        assert_null(m->slot[0]);
        assert_ptr_equal(m->slot[rounds + 1], MAGAZINE_FULL);
        assert_ptr_equal(gr_magazine_at(m->id), m);
        assert_true(m->id && m->id <= STACK_INDEX_MASK);
        gr_magazine_free(HOME, m);
    }
}

/* Every slot of every magazine belongs to it alone. */
static void magazine_slots_do_not_overlap(void **state) {
    (void)state;
    enum { COUNT = 300 };
    static struct magazine *held[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        held[i] = gr_magazine_new(HOME, 1 + i * 7 % most_rounds());
        assert_non_null(held[i]);
        for (unsigned r = 1; r <= held[i]->rounds; r++)
            held[i]->slot[r] = (void *)((uintptr_t)i << 16 | r);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(held[i]->rounds, 1 + i * 7 % most_rounds());
        assert_null(held[i]->slot[0]);
        assert_ptr_equal(held[i]->slot[held[i]->rounds + 1], MAGAZINE_FULL);
        for (unsigned r = 1; r <= held[i]->rounds; r++)
            assert_ptr_equal(held[i]->slot[r], (void *)((uintptr_t)i << 16 | r));
        for (unsigned j = 0; j < i; j++)
            assert_int_not_equal(held[i]->id, held[j]->id);
    }
    for (unsigned i = 0; i < COUNT; i++)
        gr_magazine_free(HOME, held[i]);
}

static void magazine_freed_serves_again_as_new(void **state) {
    (void)state;
    struct magazine *m = gr_magazine_new(HOME, 9);
    for (unsigned r = 1; r <= 9; r++)
        m->slot[r] = m;
    m->count = 9;
    gr_magazine_free(HOME, m);
    for (unsigned rounds = 4; rounds <= 12; rounds += 4) { /* the same kind: less than before, then more */
        struct magazine *again = gr_magazine_new(HOME, rounds);
        assert_ptr_equal(again, m);
        assert_int_equal(again->count, 0);
        assert_int_equal(again->rounds, rounds);
        assert_null(again->slot[0]);
        for (unsigned r = 1; r <= rounds; r++)
            assert_ptr_not_equal(again->slot[r], MAGAZINE_FULL); /* of its former size */
        assert_ptr_equal(again->slot[rounds + 1], MAGAZINE_FULL);
        gr_magazine_free(HOME, again);
    }
}

/* What was freed at one home serves each other one, its own first. */
static void magazine_homes_help_each_other(void **state) {
    (void)state;
    struct magazine *held[HEADS], *m;
    for (unsigned home = 0; home < HEADS; home++)
        held[home] = gr_magazine_new(home, 9);
    for (unsigned home = 0; home < HEADS; home++)
        gr_magazine_free(home, held[home]);
    for (unsigned home = HEADS; home--;) {
        assert_ptr_equal(m = gr_magazine_new(home, 9), held[home]);
        gr_magazine_free(home, m);
    }
    bool seen[HEADS] = {false};
    for (unsigned n = 0; n < HEADS; n++) {
        unsigned home = 0;
        m = gr_magazine_new(HOME, 9);
        while (home < HEADS && held[home] != m)
            home++;
        assert_true(home < HEADS && !seen[home]);
        seen[home] = true;
    }
    for (unsigned home = 0; home < HEADS; home++)
        gr_magazine_free(HOME, held[home]);
}

static void magazine_small_ones_cost_little(void **state) {
    (void)state;
    struct magazine *small = gr_magazine_new(HOME, 8), *large = gr_magazine_new(HOME, most_rounds());
    assert_int_not_equal(small->id & 3, large->id & 3);
    struct magazine *next = gr_magazine_new(HOME, 8);
    assert_true((size_t)((char *)next - (char *)small) <= 128 || next < small);
    gr_magazine_free(HOME, small);
    gr_magazine_free(HOME, large);
    gr_magazine_free(HOME, next);
}

static void magazine_without_memory(void **state) {
    (void)state;
    enum { MOST = 2000 };
    static struct magazine *held[MOST];
    unsigned count = 0;
    fault_arm(FAULT_MMAP, 1, true, ENOMEM);
    while (count < MOST && (held[count] = gr_magazine_new(HOME, 60)) != NULL)
        count++;
    fault_disarm();
    assert_true(count < MOST);
    struct magazine *m = gr_magazine_new(HOME, 60);
    assert_non_null(m);
    gr_magazine_free(HOME, m);
    while (count)
        gr_magazine_free(HOME, held[--count]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(magazine_homes_help_each_other), /* first: it knows what each home has */
        cmocka_unit_test(magazine_new_is_empty_between_its_marks),
        cmocka_unit_test(magazine_slots_do_not_overlap),
        cmocka_unit_test(magazine_freed_serves_again_as_new),
        cmocka_unit_test(magazine_small_ones_cost_little),
        cmocka_unit_test(magazine_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
