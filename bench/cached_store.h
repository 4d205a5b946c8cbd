/* cached_store.h -- the server's values: a sharded hash table with LRU eviction under a byte limit.
 *
 * PURPOSE     Keep items by key, forget the least recently used when the limit is reached and the expired
 * ones when their time has come.
 *
 * LIFETIME    The store holds one reference to each item in it. References for others are added under the
 *             shard's lock alone, and an item that leaves its shard is dropped after the lock is released.
 *
 * INVARIANTS  limit   After each call the bytes of a shard are at most its share of the limit.
 */
#ifndef CACHED_STORE_H
#define CACHED_STORE_H

#include "cached_item.h"

#include <stdbool.h>

struct store_totals {
    uint64_t items;
    uint64_t bytes; /* as asked of malloc */
    uint64_t hits;
    uint64_t misses;
    uint64_t sets;
    uint64_t evictions;
    uint64_t expirations;
};

enum store_answer { STORE_OK, STORE_MISSING, STORE_TOO_LARGE, STORE_NO_MEMORY, STORE_NOT_A_NUMBER };

struct store;

/* NULL without memory. `shards` is a power of two. */
struct store *store_create(uint32_t shards, size_t limit_bytes);
void store_destroy(struct store *store);

/* The largest value that fits beside a key of the greatest length. */
size_t store_value_max(const struct store *store);

/* The item with a reference for the caller, or NULL. */
struct item *store_get(struct store *store, const char *key, size_t key_size);

/* Takes over the caller's reference. */
enum store_answer store_set(struct store *store, struct item *item);

/* Adds to the end of a value, in place by realloc where nobody else holds it. */
enum store_answer store_append(struct store *store, const char *key, size_t key_size, const char *text, size_t size);

/* The value as a decimal number plus `delta` (or minus, not below 0). */
enum store_answer store_count(struct store *store, const char *key, size_t key_size, uint64_t delta, bool down,
                              uint64_t *result);

enum store_answer store_touch(struct store *store, const char *key, size_t key_size, uint64_t expires_ms);
enum store_answer store_delete(struct store *store, const char *key, size_t key_size);
void store_flush(struct store *store);

/* Frees what has expired in a tenth of the buckets of shards index, index + step, ... */
void store_sweep(struct store *store, uint32_t index, uint32_t step);

void store_totals(struct store *store, struct store_totals *totals);

#endif
