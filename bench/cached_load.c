/* cached_load.c -- see cached_load.h. */
#include "cached_load.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LARGE_MIN_BYTES 4096

const char *const kind_names[KINDS] = {"get", "set", "append", "delete", "incr", "session"};

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t random_next(struct random *random) { return mix64(random->state += 0x9e3779b97f4a7c15u); }

uint32_t random_below(struct random *random, uint32_t limit) {
    return (uint32_t)(((random_next(random) >> 32) * limit) >> 32);
}

/* Above 0, up to 1. */
static double random_unit(struct random *random) { return (double)((random_next(random) >> 11) + 1) * 0x1p-53; }

void tally_merge(struct tally *into, const struct tally *from) {
    into->requests += from->requests;
    into->hits += from->hits;
    into->misses += from->misses;
    into->verified_bytes += from->verified_bytes;
    into->wrong += from->wrong;
    into->errors += from->errors;
    into->reconnects += from->reconnects;
    histogram_merge(&into->times, &from->times);
}

void load_prepare(struct settings *settings) {
    struct random random = {settings->seed};
    for (uint32_t i = 0; i < LOAD_SIZES; i++) {
        /* Two numbers make one of the normal distribution (Box-Muller). */
        double radius = sqrt(-2 * log(random_unit(&random))), angle = 6.283185307179586 * random_unit(&random);
        double bytes = settings->median_bytes * exp(settings->sigma * radius * cos(angle));
        settings->sizes[i] = bytes < LARGE_MIN_BYTES ? (uint32_t)bytes : LARGE_MIN_BYTES;
    }
    settings->mix_sum = 0;
    for (int i = 0; i < KINDS; i++)
        settings->mix_sum += settings->mix[i];
}

enum kind load_kind(const struct settings *settings, struct random *random) {
    uint32_t pick = random_below(random, settings->mix_sum);
    enum kind kind = KIND_GET;
    while (pick >= settings->mix[kind])
        pick -= settings->mix[kind++];
    return kind;
}

uint32_t load_key(const struct settings *settings, struct random *random) {
    double unit = 1 - random_unit(random);
    return (uint32_t)(unit * unit * unit * settings->keys);
}

uint32_t load_size(const struct settings *settings, struct random *random, double progress) {
    uint32_t pick = (uint32_t)random_next(random);
    double bytes = settings->sizes[pick % LOAD_SIZES] * (1 + (settings->shift - 1) * progress);
    if (random_unit(random) * 100 <= settings->large_percent)
        bytes = LARGE_MIN_BYTES * pow((double)settings->large_max_bytes / LARGE_MIN_BYTES, random_unit(random));
    if (bytes > LOAD_VALUE_MAX / 2)
        bytes = LOAD_VALUE_MAX / 2;
    return bytes < SEGMENT_MIN_BYTES ? SEGMENT_MIN_BYTES : (uint32_t)bytes;
}

int load_key_name(uint32_t key, char *name) {
    static const char *const forms[] = {"u:%u", "user:%u:profile", "session:%u", "page:%u:rendered:fragment"};
    return sprintf(name, forms[mix64(key) % 4], key);
}

/* ---- the pattern ---- */

struct segment {
    uint32_t size;
    uint32_t key;
    uint32_t version;
    uint32_t number;
};

_Static_assert(sizeof(struct segment) == SEGMENT_MIN_BYTES, "a segment is its head, then the pattern");

static uint64_t pattern_start(const struct segment *head) {
    return mix64(((uint64_t)head->key << 32 | head->version) + head->number * 0x9e3779b97f4a7c15u);
}

#define PATTERN_STEP 0xd1342543de82ef95u

void segment_write(char *bytes, uint32_t size, uint32_t key, uint32_t version, uint32_t number) {
    struct segment head = {.size = size, .key = key, .version = version, .number = number};
    uint64_t word = pattern_start(&head);
    memcpy(bytes, &head, sizeof head);
    uint32_t i = sizeof head;
    for (; i + sizeof word <= size; i += sizeof word, word += PATTERN_STEP)
        memcpy(bytes + i, &word, sizeof word);
    memcpy(bytes + i, &word, size - i);
}

static bool segment_verify(const char *bytes, const struct segment *head) {
    uint64_t word = pattern_start(head), found, differences = 0;
    uint32_t i = sizeof *head;
    for (; i + sizeof word <= head->size; i += sizeof word, word += PATTERN_STEP) {
        memcpy(&found, bytes + i, sizeof found);
        differences |= found ^ word;
    }
    return differences == 0 && memcmp(bytes + i, &word, head->size - i) == 0;
}

bool segments_verify(const char *bytes, size_t size, uint32_t key, uint32_t *version, uint32_t *count) {
    for (*count = 0; size; (*count)++) {
        struct segment head;
        if (size < sizeof head)
            return false;
        memcpy(&head, bytes, sizeof head);
        if (*count == 0)
            *version = head.version;
        if (head.size < sizeof head || head.size > size || head.key != key || head.version != *version ||
            head.number != *count || !segment_verify(bytes, &head))
            return false;
        bytes += head.size;
        size -= head.size;
    }
    return *count > 0;
}
