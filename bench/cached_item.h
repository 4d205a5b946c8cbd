/* cached_item.h -- one value of the cache with its key: one block of malloc.
 *
 * LIFETIME    An item is counted: the store holds one reference, each reply that still has to send it
 * another. Whoever drops the last one frees it, so a value set by one worker is often freed by another.
 *
 * INVARIANTS  shared-is-constant  Key, value and sizes change only under the lock of the item's shard and
 * only while the store holds the only reference.
 */
#ifndef CACHED_ITEM_H
#define CACHED_ITEM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define ITEM_KEY_MAX_BYTES 250

struct item {
    /* constant while shared */
    uint64_t hash;
    uint32_t flags;
    uint32_t value_size;
    uint32_t key_size;
    /* any thread writes */
    _Atomic uint32_t references;
    /* under the shard's lock */
    uint64_t expires_ms; /* on the clock of clock_ms(); 0: never */
    struct item *chain;  /* next in the bucket; also links items on their way to be freed */
    struct item *newer;
    struct item *older;
    /* constant while shared: the key, then the value */
    char bytes[];
};

/* A fresh item with an undefined value, held by the caller; NULL without memory. */
struct item *item_create(const char *key, size_t key_size, size_t value_size, uint32_t flags, uint64_t expires_ms);
void item_drop(struct item *item);

char *item_value(struct item *item);
size_t item_bytes(const struct item *item);
uint64_t item_hash(const char *key, size_t key_size);

/* Coarse monotonic time, the clock of expiry. */
uint64_t clock_ms(void);

#endif
