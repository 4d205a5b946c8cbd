/* unit_stack.c -- base/stack.h: each row of its table, the tag, and what a popper sees who slept.
 * covers: C3
 */
#include "test.h"

#include "base/stack.h"

enum { RECORDS = 8 };

static struct half links[RECORDS];
static unsigned links_asked[RECORDS];

static struct half *link_of(void *context, uint32_t index) {
    must(context == links && index > 0);
    links_asked[index % RECORDS]++;
    return &links[index % RECORDS];
}

static void push(struct stack *s, uint32_t index) { stack_push(s, index, link_of, links); }
static uint32_t pop(struct stack *s) { return stack_pop(s, link_of, links); }
static uint64_t tag_of(const struct stack *s) { return word_load_relaxed(&s->head) >> STACK_INDEX_BITS; }

static void stack_push_in_hand_to_on_the_stack(void **state) {
    (void)state;
    struct stack s = {{0}};
    assert_true(stack_is_empty(&s));
    push(&s, 3);
    assert_false(stack_is_empty(&s));
    assert_int_equal(stack_top(word_load_relaxed(&s.head)), 3);
    assert_int_equal(half_load_relaxed(&links[3]), 0);
    push(&s, 5);
    assert_int_equal(stack_top(word_load_relaxed(&s.head)), 5);
    assert_int_equal(half_load_relaxed(&links[5]), 3);
}

static void stack_pop_on_a_stack_to_in_hand(void **state) {
    (void)state;
    struct stack s = {{0}};
    for (uint32_t i = 1; i < RECORDS; i++)
        push(&s, i);
    for (uint32_t i = RECORDS - 1; i > 0; i--)
        assert_int_equal(pop(&s), i);
    assert_true(stack_is_empty(&s));
}

static void stack_pop_of_an_empty_one_changes_nothing(void **state) {
    (void)state;
    struct stack s = {{0}};
    assert_int_equal(pop(&s), 0);
    assert_int_equal(word_load_relaxed(&s.head), 0);
    push(&s, 1);
    assert_int_equal(pop(&s), 1);
    uint64_t head = word_load_relaxed(&s.head);
    assert_int_equal(pop(&s), 0);
    assert_int_equal(word_load_relaxed(&s.head), head);
}

static void stack_tag_moves_by_one_at_every_change(void **state) {
    (void)state;
    struct stack s = {{0}};
    struct rng rng = rng_for(1);
    bool on[RECORDS] = {false};
    for (uint64_t changes = 0; changes < 10000;) {
        uint64_t before = tag_of(&s);
        uint32_t index = 1 + (uint32_t)rng_below(&rng, RECORDS - 1);
        bool changed = true;
        if (!on[index]) {
            push(&s, index);
            on[index] = true;
        } else {
            index = pop(&s);
            changed = index != 0;
            on[index] = false;
        }
        assert_int_equal(tag_of(&s), before + changed);
        changes += changed;
    }
}

static void stack_tag_wraps_and_leaves_the_index_alone(void **state) {
    (void)state;
    struct stack s = {{0}};
    word_store_relaxed(&s.head, ~0ull << STACK_INDEX_BITS);
    push(&s, STACK_INDEX_MASK); /* the highest number there can be */
    assert_int_equal(tag_of(&s), 0);
    assert_int_equal(stack_top(word_load_relaxed(&s.head)), STACK_INDEX_MASK);
    assert_int_equal(half_load_relaxed(&links[STACK_INDEX_MASK % RECORDS]), 0);
    assert_int_equal(pop(&s), STACK_INDEX_MASK);
    assert_int_equal(tag_of(&s), 1);
    assert_true(stack_is_empty(&s));
}

/* The ABA case by hand: what a popper read is on top again, with another record below. */
static void stack_tag_stops_a_popper_who_slept(void **state) {
    (void)state;
    struct stack s = {{0}};
    push(&s, 1);
    push(&s, 2);
    uint64_t head = word_load_acquire(&s.head);
    uint32_t below = half_load_relaxed(&links[2]);
    assert_int_equal(pop(&s), 2);
    assert_int_equal(pop(&s), 1);
    push(&s, 3);
    push(&s, 2);
    assert_int_equal(stack_top(head), stack_top(word_load_relaxed(&s.head)));
    uint64_t seen = head;
    assert_false(word_cas_acquire(&s.head, &seen, stack_next_head(head, below)));
    assert_int_equal(pop(&s), 2);
    assert_int_equal(pop(&s), 3);
    assert_int_equal(pop(&s), 0);
}

/* A record belongs to its holder once it is popped, so a push or pop may touch the link of the top alone. */
static void stack_touches_the_link_of_the_top_alone(void **state) {
    (void)state;
    struct stack s = {{0}};
    for (uint32_t i = 1; i < RECORDS; i++)
        push(&s, i);
    memset(links_asked, 0, sizeof links_asked);
    pop(&s);
    push(&s, RECORDS - 1);
    for (uint32_t i = 0; i < RECORDS; i++)
        assert_int_equal(links_asked[i] != 0, i == RECORDS - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stack_push_in_hand_to_on_the_stack),
        cmocka_unit_test(stack_pop_on_a_stack_to_in_hand),
        cmocka_unit_test(stack_pop_of_an_empty_one_changes_nothing),
        cmocka_unit_test(stack_tag_moves_by_one_at_every_change),
        cmocka_unit_test(stack_tag_wraps_and_leaves_the_index_alone),
        cmocka_unit_test(stack_tag_stops_a_popper_who_slept),
        cmocka_unit_test(stack_touches_the_link_of_the_top_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
