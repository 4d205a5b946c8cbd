/* cached_store.c -- see cached_store.h. Functions named _locked are called under the shard's lock. */
#include "cached_store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS     1024
#define SWEEPS_PER_PASS   10
#define NUMBER_MAX_DIGITS 20

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    /* under the lock */
    struct item **buckets;
    struct item *newest;
    struct item *oldest;
    size_t bucket_count; /* a power of two */
    size_t sweep_bucket;
    struct store_totals totals;
};

struct store {
    /* constant after init */
    uint32_t shard_count;
    uint32_t shard_bits;
    size_t shard_limit_bytes;
    struct shard shards[];
};

static void drop_chain(struct item *item) {
    while (item) {
        struct item *next = item->chain;
        item_drop(item);
        item = next;
    }
}

/* ---- one shard, under its lock ---- */

static struct shard *shard_of(struct store *store, uint64_t hash) {
    return &store->shards[store->shard_bits ? hash >> (64 - store->shard_bits) : 0];
}

static struct item **bucket_locked(struct shard *shard, uint64_t hash) {
    return &shard->buckets[hash & (shard->bucket_count - 1)];
}

/* Makes the item's neighbours in the list of use point at it: after it was moved by realloc too. */
static void tie_neighbours_locked(struct shard *shard, struct item *item) {
    *(item->newer ? &item->newer->older : &shard->newest) = item;
    *(item->older ? &item->older->newer : &shard->oldest) = item;
}

static void untie_neighbours_locked(struct shard *shard, struct item *item) {
    *(item->newer ? &item->newer->older : &shard->newest) = item->older;
    *(item->older ? &item->older->newer : &shard->oldest) = item->newer;
}

static void become_newest_locked(struct shard *shard, struct item *item) {
    item->newer = NULL;
    item->older = shard->newest;
    tie_neighbours_locked(shard, item);
}

/* Takes the item that `link` points at out of the shard and puts it in front of the chain `gone`. */
static void unlink_locked(struct shard *shard, struct item **link, struct item **gone) {
    struct item *item = *link;
    *link = item->chain;
    untie_neighbours_locked(shard, item);
    shard->totals.items--;
    shard->totals.bytes -= item_bytes(item);
    item->chain = *gone;
    *gone = item;
}

/* The link to the live item of this key, or NULL; an expired one is put on `gone`. */
static struct item **find_locked(struct shard *shard, uint64_t hash, const char *key, size_t key_size,
                                 struct item **gone) {
    for (struct item **link = bucket_locked(shard, hash); *link; link = &(*link)->chain) {
        struct item *item = *link;
        if (item->hash != hash || item->key_size != key_size || memcmp(item->bytes, key, key_size) != 0)
            continue;
        if (!item->expires_ms || item->expires_ms > clock_ms())
            return link;
        unlink_locked(shard, link, gone);
        shard->totals.expirations++;
        return NULL;
    }
    return NULL;
}

static void evict_locked(struct shard *shard, size_t limit_bytes, struct item **gone) {
    while (shard->totals.bytes > limit_bytes) {
        struct item *oldest = shard->oldest;
        struct item **link = bucket_locked(shard, oldest->hash);
        while (*link != oldest)
            link = &(*link)->chain;
        unlink_locked(shard, link, gone);
        shard->totals.evictions++;
    }
}

/* Doubles the buckets when there are more items than buckets. Without memory the chains just get longer. */
static void widen_locked(struct shard *shard) {
    if (shard->totals.items <= shard->bucket_count)
        return;
    struct item **wider = calloc(shard->bucket_count * 2, sizeof *wider);
    if (!wider)
        return;
    size_t count = shard->bucket_count * 2;
    for (size_t i = 0; i < shard->bucket_count; i++) {
        for (struct item *item = shard->buckets[i], *next; item; item = next) {
            next = item->chain;
            item->chain = wider[item->hash & (count - 1)];
            wider[item->hash & (count - 1)] = item;
        }
    }
    free(shard->buckets);
    shard->buckets = wider;
    shard->bucket_count = count;
}

/* Makes the item at `link` the store's alone, with a value of `size` bytes of which the old ones are kept.
 * Returns it, possibly moved, or NULL without memory. An old copy that a reply still holds goes to `gone`. */
static struct item *resize_locked(struct shard *shard, struct item **link, size_t size, struct item **gone) {
    struct item *old = *link;
    size_t old_bytes = item_bytes(old);
    struct item *item;
    if (atomic_load_explicit(&old->references, memory_order_acquire) == 1) {
        item = old->value_size == size ? old : realloc(old, sizeof *old + old->key_size + size);
        if (!item)
            return NULL;
    } else {
        item = item_create(old->bytes, old->key_size, size, old->flags, old->expires_ms);
        if (!item)
            return NULL;
        memcpy(item_value(item), item_value(old), old->value_size < size ? old->value_size : size);
        item->chain = old->chain;
        item->newer = old->newer;
        item->older = old->older;
        old->chain = *gone;
        *gone = old;
    }
    item->value_size = (uint32_t)size;
    *link = item;
    tie_neighbours_locked(shard, item);
    shard->totals.bytes += item_bytes(item) - old_bytes;
    return item;
}

/* ---- the verbs ---- */

struct item *store_get(struct store *store, const char *key, size_t key_size) {
    uint64_t hash = item_hash(key, key_size);
    struct shard *shard = shard_of(store, hash);
    struct item *gone = NULL, *item = NULL;
    pthread_mutex_lock(&shard->lock);
    struct item **link = find_locked(shard, hash, key, key_size, &gone);
    if (link) {
        item = *link;
        atomic_fetch_add_explicit(&item->references, 1, memory_order_relaxed);
        untie_neighbours_locked(shard, item);
        become_newest_locked(shard, item);
        shard->totals.hits++;
    } else {
        shard->totals.misses++;
    }
    pthread_mutex_unlock(&shard->lock);
    drop_chain(gone);
    return item;
}

enum store_answer store_set(struct store *store, struct item *item) {
    struct shard *shard = shard_of(store, item->hash);
    struct item *gone = NULL;
    enum store_answer answer = item_bytes(item) <= store->shard_limit_bytes ? STORE_OK : STORE_TOO_LARGE;
    pthread_mutex_lock(&shard->lock);
    struct item **link = find_locked(shard, item->hash, item->bytes, item->key_size, &gone);
    if (link)
        unlink_locked(shard, link, &gone);
    if (answer == STORE_OK) {
        struct item **bucket = bucket_locked(shard, item->hash);
        item->chain = *bucket;
        *bucket = item;
        become_newest_locked(shard, item);
        shard->totals.items++;
        shard->totals.sets++;
        shard->totals.bytes += item_bytes(item);
        evict_locked(shard, store->shard_limit_bytes, &gone);
        widen_locked(shard);
    }
    pthread_mutex_unlock(&shard->lock);
    if (answer != STORE_OK)
        item_drop(item);
    drop_chain(gone);
    return answer;
}

enum store_answer store_append(struct store *store, const char *key, size_t key_size, const char *text, size_t size) {
    uint64_t hash = item_hash(key, key_size);
    struct shard *shard = shard_of(store, hash);
    struct item *gone = NULL;
    enum store_answer answer = STORE_MISSING;
    pthread_mutex_lock(&shard->lock);
    struct item **link = find_locked(shard, hash, key, key_size, &gone);
    if (link && item_bytes(*link) + size > store->shard_limit_bytes) {
        answer = STORE_TOO_LARGE;
    } else if (link) {
        size_t before = (*link)->value_size;
        struct item *item = resize_locked(shard, link, before + size, &gone);
        answer = item ? STORE_OK : STORE_NO_MEMORY;
        if (item) {
            memcpy(item_value(item) + before, text, size);
            untie_neighbours_locked(shard, item);
            become_newest_locked(shard, item);
            evict_locked(shard, store->shard_limit_bytes, &gone);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    drop_chain(gone);
    return answer;
}

/* True if the item's value is a decimal number that fits. */
static bool read_number(struct item *item, uint64_t *number) {
    if (item->value_size == 0 || item->value_size > NUMBER_MAX_DIGITS)
        return false;
    uint64_t value = 0;
    for (uint32_t i = 0; i < item->value_size; i++) {
        unsigned digit = (unsigned char)item_value(item)[i] - (unsigned)'0';
        if (digit > 9 || __builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit, &value))
            return false;
    }
    *number = value;
    return true;
}

enum store_answer store_count(struct store *store, const char *key, size_t key_size, uint64_t delta, bool down,
                              uint64_t *result) {
    uint64_t hash = item_hash(key, key_size), number = 0;
    struct shard *shard = shard_of(store, hash);
    struct item *gone = NULL;
    enum store_answer answer = STORE_MISSING;
    pthread_mutex_lock(&shard->lock);
    struct item **link = find_locked(shard, hash, key, key_size, &gone);
    if (link && !read_number(*link, &number)) {
        answer = STORE_NOT_A_NUMBER;
    } else if (link) {
        char digits[NUMBER_MAX_DIGITS + 1];
        number = !down ? number + delta : number > delta ? number - delta : 0;
        int size = snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
        struct item *item = resize_locked(shard, link, (size_t)size, &gone);
        answer = item ? STORE_OK : STORE_NO_MEMORY;
        if (item) {
            memcpy(item_value(item), digits, (size_t)size);
            *result = number;
            evict_locked(shard, store->shard_limit_bytes, &gone);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    drop_chain(gone);
    return answer;
}

enum store_answer store_touch(struct store *store, const char *key, size_t key_size, uint64_t expires_ms) {
    uint64_t hash = item_hash(key, key_size);
    struct shard *shard = shard_of(store, hash);
    struct item *gone = NULL;
    pthread_mutex_lock(&shard->lock);
    struct item **link = find_locked(shard, hash, key, key_size, &gone);
    if (link)
        (*link)->expires_ms = expires_ms;
    pthread_mutex_unlock(&shard->lock);
    drop_chain(gone);
    return link ? STORE_OK : STORE_MISSING;
}

enum store_answer store_delete(struct store *store, const char *key, size_t key_size) {
    uint64_t hash = item_hash(key, key_size);
    struct shard *shard = shard_of(store, hash);
    struct item *gone = NULL;
    pthread_mutex_lock(&shard->lock);
    struct item **link = find_locked(shard, hash, key, key_size, &gone);
    if (link)
        unlink_locked(shard, link, &gone);
    pthread_mutex_unlock(&shard->lock);
    drop_chain(gone);
    return link ? STORE_OK : STORE_MISSING;
}

void store_flush(struct store *store) {
    for (uint32_t i = 0; i < store->shard_count; i++) {
        struct shard *shard = &store->shards[i];
        struct item *gone = NULL;
        pthread_mutex_lock(&shard->lock);
        for (size_t b = 0; b < shard->bucket_count; b++)
            while (shard->buckets[b])
                unlink_locked(shard, &shard->buckets[b], &gone);
        pthread_mutex_unlock(&shard->lock);
        drop_chain(gone);
    }
}

static void sweep_shard(struct shard *shard) {
    struct item *gone = NULL;
    uint64_t now = clock_ms();
    pthread_mutex_lock(&shard->lock);
    for (size_t left = shard->bucket_count / SWEEPS_PER_PASS + 1; left; left--) {
        struct item **link = &shard->buckets[shard->sweep_bucket++ & (shard->bucket_count - 1)];
        while (*link) {
            if ((*link)->expires_ms && (*link)->expires_ms <= now) {
                unlink_locked(shard, link, &gone);
                shard->totals.expirations++;
            } else {
                link = &(*link)->chain;
            }
        }
    }
    pthread_mutex_unlock(&shard->lock);
    drop_chain(gone);
}

void store_sweep(struct store *store, uint32_t index, uint32_t step) {
    for (uint32_t i = index; i < store->shard_count; i += step)
        sweep_shard(&store->shards[i]);
}

void store_totals(struct store *store, struct store_totals *totals) {
    memset(totals, 0, sizeof *totals);
    for (uint32_t i = 0; i < store->shard_count; i++) {
        struct shard *shard = &store->shards[i];
        pthread_mutex_lock(&shard->lock);
        totals->items += shard->totals.items;
        totals->bytes += shard->totals.bytes;
        totals->hits += shard->totals.hits;
        totals->misses += shard->totals.misses;
        totals->sets += shard->totals.sets;
        totals->evictions += shard->totals.evictions;
        totals->expirations += shard->totals.expirations;
        pthread_mutex_unlock(&shard->lock);
    }
}

size_t store_value_max(const struct store *store) {
    return store->shard_limit_bytes - sizeof(struct item) - ITEM_KEY_MAX_BYTES;
}

struct store *store_create(uint32_t shards, size_t limit_bytes) {
    struct store *store = aligned_alloc(64, sizeof *store + shards * sizeof(struct shard));
    if (!store)
        return NULL;
    memset(store, 0, sizeof *store + shards * sizeof(struct shard));
    store->shard_limit_bytes = limit_bytes / shards;
    while (1u << store->shard_bits < shards)
        store->shard_bits++;
    for (; store->shard_count < shards; store->shard_count++) {
        struct shard *shard = &store->shards[store->shard_count];
        shard->bucket_count = FIRST_BUCKETS;
        shard->buckets = calloc(FIRST_BUCKETS, sizeof *shard->buckets);
        if (!shard->buckets) {
            store_destroy(store);
            return NULL;
        }
        pthread_mutex_init(&shard->lock, NULL);
    }
    return store;
}

void store_destroy(struct store *store) {
    store_flush(store);
    for (uint32_t i = 0; i < store->shard_count; i++) {
        pthread_mutex_destroy(&store->shards[i].lock);
        free(store->shards[i].buckets);
    }
    free(store);
}
