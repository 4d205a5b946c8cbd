/* slab/slab.h -- a run of granules cut into blocks of one size.
 *
 * PURPOSE     Which blocks of a slab are free, and who may claim, list, retire it. One bit a block, out of band. The word is
 *             {count of blocks given back, OWNED, RETIRED}; the one add that lifts the count of a slab that nobody owns to
 *             its class's threshold takes the token with that same add.
 *
 * LIFETIME    A block in somebody's hand pins its slab: an uncounted block keeps the count below capacity, and a slab below
 *             capacity is never retired. So class, capacity, threshold and record are read before the add; after it the
 *             giver touches nothing of the slab unless the add gave him the token. Records are type-stable.
 *
 * INVARIANTS
 *   one-token    Exactly one of: OWNED by one thread; in one thread's hand; on one stack of its class; parked (not OWNED, not
 *                RETIRED, count < threshold); retired.
 *   one-claimer  Only the owner clears bits.
 *   accounting   bits set == count + owner's budget + blocks of givers between `or` and `add`.
 *   whole        count + budget == capacity: every block is home, every giver has counted, no user holds a pointer.
 *
 * STATES      from                step     who              operation, order              to
 *             ------------------  -------  ---------------  ----------------------------  --------------------------------
 *             any but RETIRED     or       holder of block  bits or RELEASE               bit free; already set: double free
 *             OWNED               add      same, after or   word add ACQ_REL              OWNED, count + k; giver is done
 *             count >= T          add      same             same                          count + k; giver is done
 *             parked, sum < T     add      same             same                          parked, count + k; giver is done
 *             parked, sum >= T    add      same             same                          in the giver's hand
 *             in hand             list     token            push on the class's stack     listed
 *             listed              pop      any              pop                           in hand
 *             in hand             take     token            word swap OWNED, ACQUIRE      OWNED; budget = old count
 *             OWNED               take     owner            word swap OWNED, ACQUIRE      OWNED; budget + old count
 *             OWNED               look     owner            bits load ACQUIRE             at most `budget` of the set bits to claim
 *             OWNED               claim    owner            bits and ~mask, RELAXED       blocks are the owner's
 *             OWNED               release  owner            word add budget - OWNED,      sum < T: parked
 *                                                           ACQ_REL                       else in hand
 *             in hand, whole      retire   token            word store RETIRED            retired; then the run is freed
 *             retired             reborn   run's holder     bits, then word store OWNED   OWNED; budget = capacity
 *             in hand             peek     token            word load ACQUIRE             in hand; whole or not
 *
 * EDGES       give-back  or -> look                   the block's last writes by its user, also of blocks not yet counted
 *             counted    add -> take                  the bits of every counted block are set for the taker
 *             park       release -> add               parked fields and cleared bits, to the giver who takes the token
 *             home       add -> take, release, peek   all users' accesses before retire
 *
 * WHY the add decides: between two releases the count of a slab that nobody owns only grows, so exactly one add crosses the
 *     threshold. There is no second look and no compare, hence no ABA. Whoever adds a step that acts on a slab without its
 *     token brings it back.
 * WHY budget before bits: a claimer who sees more bits than budget leaves them; they belong to givers who have not counted.
 *     He may take theirs instead of counted ones, so the `or` itself releases and the look acquires.
 * WHY retire looks at the count, never at the bits: the bits are full one step before the last giver's add.
 * WHY reborn writes the word last: until then a forked child must see RETIRED.
 *
 * PROGRESS    or, add, take, claim, release, retire: wait-free.
 * ELSEWHERE   Where slabs wait: `central/bin.h`. Models: `stress/model_slab.cc`.
 */
#ifndef SLAB_SLAB_H
#define SLAB_SLAB_H

#include "page/arena.h"
#include "page/region.h"
#include "slab/seal.h"
#include "slab/size_class.h"

enum slab_flags { SLAB_OWNED = 1 << 16, SLAB_RETIRED = 1 << 17, SLAB_COUNT_MASK = 0xffff };

/* Slabs are numbered by their first granule. */
GR_INLINE struct slab *slab_at(uint32_t index) { return &arena_of(index)->slab[index % ARENA_GRANULES]; }

/* A word of a slab's bits. */
GR_INLINE struct word *slab_bits(uint32_t index, unsigned word) {
    struct arena *a = arena_of(index);
    size_t granule = index % ARENA_GRANULES;
    return word < SLAB_NEAR_WORDS ? &a->slab[granule].bits[word] : &a->slab_far_bits[granule][word - SLAB_NEAR_WORDS];
}

/* What the giver has to do next. */
enum slab_given { SLAB_DONE, SLAB_LIST, SLAB_RETIRE, SLAB_WHOLE };

/* Sets the bits of blocks that the caller holds. Returns those that were free already: a double free. */
GR_INLINE uint64_t slab_or_any(uint32_t index, unsigned word, uint64_t mask) {
    return word_or_release(slab_bits(index, word), mask) & mask; /* [release give-back] */
}

/* Counts k blocks whose bits were set. SLAB_LIST, SLAB_RETIRE: the caller has the token and must do so. SLAB_WHOLE: the slab
 * is whole, but somebody else's to retire: a hint. */
GR_INLINE enum slab_given slab_add_any(struct slab *s, const struct size_class *k, uint32_t blocks) {
    uint32_t threshold = k->threshold, capacity = k->capacity;
    uint32_t old =
        half_add_acq_rel(&s->word, blocks); /* [release counted] [release home] [acquire park] [acquire home] */
    if (old & (SLAB_OWNED | SLAB_RETIRED))
        return SLAB_DONE;
    uint32_t count = old + blocks;
    if (old < threshold && count >= threshold)
        return count == capacity ? SLAB_RETIRE : SLAB_LIST;
    return count == capacity ? SLAB_WHOLE : SLAB_DONE;
}

/* The holder of the token becomes the owner, or the owner asks for more: the blocks counted so far, his to claim. */
GR_INLINE uint32_t slab_take_owner(struct slab *s) {
    return half_swap_acquire(&s->word, SLAB_OWNED) & SLAB_COUNT_MASK; /* [acquire counted] [acquire home] */
}

/* Claims up to `budget` blocks of one word; returns their bits. */
GR_INLINE uint64_t slab_claim_owner(uint32_t index, unsigned word, uint32_t budget) {
    struct word *bits = slab_bits(index, word);
    uint64_t seen = word_load_acquire(bits); /* [acquire give-back] */
    uint64_t mask = HARDENED ? gr_random_bits(seen, budget) : bits_lowest_k(seen, budget);
    if (mask)
        word_and_relaxed(bits, ~mask);
    return mask;
}

/* Which blocks of a word are free; the owner alone can claim them. */
GR_INLINE uint64_t slab_look_owner(uint32_t index, unsigned word) {
    return word_load_acquire(slab_bits(index, word)); /* [acquire give-back] */
}

/* The owner lets go, with the budget he did not use. SLAB_DONE: parked. Else he has the token. */
GR_INLINE enum slab_given slab_release_owner(struct slab *s, const struct size_class *k, uint32_t budget) {
    uint32_t old = half_add_acq_rel(&s->word, budget - SLAB_OWNED); /* [release park] [acquire home] */
    uint32_t count = (old & SLAB_COUNT_MASK) + budget;
    if (count < k->threshold)
        return SLAB_DONE;
    return count == k->capacity ? SLAB_RETIRE : SLAB_LIST;
}

/* Is a slab in hand whole? */
GR_INLINE bool slab_is_whole_token(struct slab *s, const struct size_class *k) {
    return (half_load_acquire(&s->word) & SLAB_COUNT_MASK) == k->capacity; /* [acquire home] */
}

/* A new slab of the class, OWNED by the caller with budget == capacity, on a run of its own. `only`: the class has no other, and may
 * never use more than a few of its blocks. *clean: the run reads as zero. 0 without memory. */
uint32_t gr_slab_birth(unsigned class, bool only, bool *clean);

/* The holder of the token gives a whole slab's run back. */
void gr_slab_retire(uint32_t index, unsigned class);

/* Hardened, in slabs of blocks above SHORT_BYTES, which have one word of bits: the blocks of memory that nobody was ever given. Who is
 * given one clears its bit. */
GR_INLINE struct word *slab_fresh(uint32_t slab) { return slab_bits(slab, 1); }
_Static_assert(GRANULE_BYTES / 1024 <= 64 && SLAB_NEAR_WORDS >= 2, "a bit for each block, and room beside");

/* What a pointer into a slab's granule is: the slab's number, and block_bit the block's place; false: not a block's start. */
struct block_place {
    uint32_t slab;
    uint32_t index; /* of the block */
};
GR_INLINE bool block_find(const void *p, unsigned class, struct block_place *out) {
    const struct size_class *k = &gr_classes[class];
    size_t granule = region_granule(p);
    size_t first = granule & ~(size_t)(k->granules - 1u);
    size_t offset = (uintptr_t)p - (region_base() + (first << GRANULE_SHIFT));
    out->slab = (uint32_t)first;
    out->index = block_index(k, offset);
    return (size_t)out->index * k->bytes == offset && out->index < k->capacity;
}

/* Whether a pointer is the start of a block, and nothing else, by one multiplication. A class's size is an odd number times a power
 * of two; an offset times the odd number's inverse modulo 2^32, turned by that power, is the block's index where it is a multiple of
 * the size, and larger than any index where it is none. Of a rule that is all zero nothing is a block. */
struct block_rule {
    uint32_t bytes;
    uint32_t inverse;
    uint32_t offset_mask; /* of an offset in the region: that in the slab */
    uint16_t capacity;
    uint8_t turn;
};
struct block_rule gr_block_rule_of(unsigned class);

GR_INLINE bool block_rule_holds(const struct block_rule *k, size_t offset_in_region) {
    uint32_t product = ((uint32_t)offset_in_region & k->offset_mask) * k->inverse;
    return (product >> k->turn | product << (32 - k->turn) % 32) < k->capacity;
}

GR_INLINE void *block_address(uint32_t slab, unsigned class, uint32_t index) {
    return (char *)region_address(slab) + (size_t)index * gr_classes[class].bytes;
}

/* Single-threaded repair after fork: counts what the bits say. */
uint32_t gr_slab_recount(uint32_t index, unsigned class);

/* Debug builds: the record's numbers agree. The caller holds the token. */
void gr_slab_check(uint32_t index, unsigned class, uint32_t budget);

#endif
