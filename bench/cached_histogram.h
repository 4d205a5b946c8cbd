/* cached_histogram.h -- times in buckets whose width grows with the time: 32 a power of two, so 3 % wide or
 * less. */
#ifndef CACHED_HISTOGRAM_H
#define CACHED_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS   32 /* buckets in each power of two */
#define HISTOGRAM_BUCKETS (60 * HISTOGRAM_STEPS)

struct histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The time that `fraction` of all stay at or below, as the upper end of its bucket and at most the largest
 * time. */
uint64_t histogram_at(const struct histogram *histogram, double fraction);

#endif
