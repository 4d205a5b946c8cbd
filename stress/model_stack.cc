/* model_stack.cc -- base/stack.h: records move between two stacks, and what they carry moves with them.
 * covers: S125 C2 C3
 */
#include "model/c.h"

#include "base/stack.h"

namespace {

enum { THREADS = 3, RECORDS = 3, FULL = 0, EMPTY = 1 };

struct record {
    struct half next;
};
record records[RECORDS + 1];
struct stack stacks[2];

struct half *link_of(void *context, uint32_t index) {
    RL_ASSERT(context == records && index >= 1 && index <= RECORDS);
    return &records[index].next;
}

struct stack_model : model::suite<stack_model, THREADS, RECORDS, 2> {
    rl::var<unsigned> slot[RECORDS + 1]; /* what a record carries: plain memory of its holder */
    bool held[RECORDS + 1];

    /* Records 1 and 2 are full, 3 is empty. */
    void set_up() {
        for (unsigned i = 0; i < RECORDS; i++)
            bind(&records[i + 1].next, i == 1 ? 1 : 0);
        bind(&stacks[FULL].head, stack_next_head(0, 2));
        bind(&stacks[EMPTY].head, stack_next_head(0, 3));
        for (unsigned i = 1; i <= RECORDS; i++) {
            slot[i]($) = i < 3 ? i : 0;
            held[i] = false;
        }
    }

    uint32_t pop(unsigned which) {
        uint32_t r = stack_pop(&stacks[which], link_of, records);
        if (r) {
            RL_ASSERT(!held[r]);
            held[r] = true;
            RL_ASSERT((slot[r]($) != 0) == (which == FULL));
        }
        return r;
    }
    void push(unsigned which, uint32_t r) {
        slot[r]($) = which == FULL ? r : 0;
        held[r] = false;
        stack_push(&stacks[which], r, link_of, records);
    }
    /* A full one becomes empty, then an empty one full. */
    void exchange() {
        if (uint32_t r = pop(FULL))
            push(EMPTY, r);
        if (uint32_t r = pop(EMPTY))
            push(FULL, r);
    }
    /* Two in hand at once, put back in the other order: the case that the tag is for. */
    void turn(unsigned which) {
        uint32_t a = pop(which), b = pop(which);
        if (a)
            push(which, a);
        if (b)
            push(which, b);
    }

    void run(unsigned t) {
        switch (model::program) {
        case 0:
            exchange();
            if (t != 2)
                exchange();
            break;
        case 1:
            if (t == 0)
                turn(FULL);
            else
                exchange();
            break;
        default:
            if (t == 2)
                exchange();
            else
                turn(t);
        }
    }

    void check() {
        unsigned seen[RECORDS + 1] = {0}, count = 0;
        for (unsigned which = 0; which < 2; which++)
            for (uint32_t r = stack_top(model::final_value(&stacks[which].head)); r;
                 r = model::final_value(&records[r].next)) {
                RL_ASSERT(++count <= RECORDS);
                RL_ASSERT(!seen[r]++);
                RL_ASSERT((slot[r]($) != 0) == (which == FULL));
            }
        RL_ASSERT(count == RECORDS);
    }
};

uint64_t without_tag(const seam::site &s, const void *, uint64_t value) {
    return seam::mutant_is("no-tag") && s.kind == seam::CAS ? value & STACK_INDEX_MASK : value;
}

} // namespace

int main(int argc, char **argv) {
    seam::alter_operand = without_tag;
    return model::main_of<stack_model>(argc, argv,
                                       {"stack", {"exchange", "turn", "turn-both"}, {"no-tag"}, {"base/stack.h"}});
}
