/* cached_load.h -- what the load consists of: the mix of requests, the keys and sizes drawn, and the values'
 * pattern.
 *
 * A value is one or more segments (set writes the first, each append one more). A segment tells its key, the
 * version of the value and its number, and the rest of it is a pattern made of these, so that a reader can
 * verify every byte of a value without knowing who wrote it.
 */
#ifndef CACHED_LOAD_H
#define CACHED_LOAD_H

#include "cached_histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEGMENTS_MAX   32 /* then a key is set anew */
#define LOAD_SIZES     4096
#define LOAD_VALUE_MAX (1u << 20)

enum kind { KIND_GET, KIND_SET, KIND_APPEND, KIND_DELETE, KIND_INCR, KIND_SESSION, KINDS };
extern const char *const kind_names[KINDS];

struct settings {
    uint32_t port;
    uint32_t threads;
    uint32_t connections;
    uint32_t pipeline; /* requests sent together */
    uint32_t keys;     /* a multiple of connections */
    double seconds;    /* 0: until `requests` are done */
    uint32_t requests;
    uint32_t rate; /* requests a second over all connections; 0: as fast as replies come */
    uint32_t seed;
    uint32_t mix[KINDS]; /* weights */
    uint32_t mix_sum;
    double median_bytes; /* of small values, log-normal */
    double sigma;
    double large_percent; /* values between 4 KiB and the next, even in the logarithm */
    uint32_t large_max_bytes;
    double shift; /* sizes of small values grow by this factor from start to end */
    uint32_t expire_percent;
    uint32_t expire_seconds;
    uint32_t reconnect; /* requests after which a connection is closed and made anew; 0: never */
    uint32_t chop;      /* sends and receives at most so many bytes at once; 0: no bound */
    /* drawn at the start, the same for the same seed */
    uint32_t sizes[LOAD_SIZES];
};

struct tally {
    uint64_t requests;
    uint64_t hits;
    uint64_t misses;
    uint64_t verified_bytes;
    uint64_t wrong;  /* values that are not what was written */
    uint64_t errors; /* replies that the request does not allow, and lost connections */
    uint64_t reconnects;
    struct histogram times;
};

void tally_merge(struct tally *into, const struct tally *from);

struct random {
    uint64_t state;
};

uint64_t random_next(struct random *random);
uint32_t random_below(struct random *random, uint32_t limit);

/* Fills settings->sizes and mix_sum. */
void load_prepare(struct settings *settings);

enum kind load_kind(const struct settings *settings, struct random *random);

/* A key below settings->keys; low ones are more frequent: the first tenth is drawn almost half the time. */
uint32_t load_key(const struct settings *settings, struct random *random);

/* The size of a new value when `progress` (0 .. 1) of the load is done. */
uint32_t load_size(const struct settings *settings, struct random *random, double progress);

/* The name of a key, shorter than 64 bytes with its end. Returns its length. */
int load_key_name(uint32_t key, char *name);

#define SEGMENT_MIN_BYTES 16

/* Writes a segment of `size` bytes, at least SEGMENT_MIN_BYTES. */
void segment_write(char *bytes, uint32_t size, uint32_t key, uint32_t version, uint32_t number);

/* True if these are segments 0, 1, 2 ... of one version of the key. */
bool segments_verify(const char *bytes, size_t size, uint32_t key, uint32_t *version, uint32_t *count);

uint64_t now_ns(void);

#endif
