/* cached_histogram.c -- see cached_histogram.h. Times below 32 ns have a bucket each. */
#include "cached_histogram.h"

static uint32_t bucket_of(uint64_t ns) {
    if (ns < HISTOGRAM_STEPS)
        return (uint32_t)ns;
    uint32_t shift = 58 - (uint32_t)__builtin_clzll(ns); /* leaves the top six bits: 32 .. 63 */
    return shift * HISTOGRAM_STEPS + (uint32_t)(ns >> shift);
}

static uint64_t bucket_end(uint32_t bucket) {
    if (bucket < 2 * HISTOGRAM_STEPS)
        return bucket;
    uint32_t shift = bucket / HISTOGRAM_STEPS - 1;
    uint64_t top = bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
    return ((top + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t ns) {
    histogram->count++;
    histogram->sum_ns += ns;
    histogram->max_ns = ns > histogram->max_ns ? ns : histogram->max_ns;
    histogram->buckets[bucket_of(ns)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from) {
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    into->max_ns = from->max_ns > into->max_ns ? from->max_ns : into->max_ns;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t histogram_at(const struct histogram *histogram, double fraction) {
    uint64_t wanted = (uint64_t)(fraction * (double)histogram->count + 0.5), seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= wanted && seen) {
            uint64_t end = bucket_end(i);
            return end < histogram->max_ns ? end : histogram->max_ns;
        }
    }
    return histogram->max_ns;
}
