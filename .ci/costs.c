/* costs.c -- preloaded beside the library by .ci/costs: a clock that stands still, so that what the library does once a
 * second does not depend on how busy the machine is. */
#define _GNU_SOURCE
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    (void)clock;
    now->tv_sec = 1000;
    now->tv_nsec = 0;
    return 0;
}
