/* cached_item.c -- see cached_item.h. */
#include "cached_item.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* FNV-1a, with a last mix because shards take the upper bits and buckets the lower ones. */
uint64_t item_hash(const char *key, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)key[i]) * 0x100000001b3u;
    hash ^= hash >> 32;
    hash *= 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
}

size_t item_bytes(const struct item *item) { return sizeof *item + item->key_size + item->value_size; }

char *item_value(struct item *item) { return item->bytes + item->key_size; }

struct item *item_create(const char *key, size_t key_size, size_t value_size, uint32_t flags, uint64_t expires_ms) {
    struct item *item = malloc(sizeof *item + key_size + value_size);
    if (!item)
        return NULL;
    item->hash = item_hash(key, key_size);
    item->flags = flags;
    item->value_size = (uint32_t)value_size;
    item->key_size = (uint32_t)key_size;
    atomic_init(&item->references, 1);
    item->expires_ms = expires_ms;
    item->chain = item->newer = item->older = NULL;
    memcpy(item->bytes, key, key_size);
    return item;
}

void item_drop(struct item *item) {
    if (atomic_fetch_sub_explicit(&item->references, 1, memory_order_acq_rel) == 1)
        free(item);
}
