/* main.c -- a program of somebody else's: is malloc granary's where it should be, and only there? Exit code 0
 * says so. */
#include <granary.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef WANT_OVERRIDE
#define WANT_OVERRIDE 1
#endif

/* How many bytes are in use as granary counts them: grows by a block it has made, by no other. */
static size_t counted(void) {
    struct granary_stats stats;
    granary_get_stats(&stats);
    return stats.used_bytes;
}

int main(void) {
    enum { BYTES = 8 << 20 }; /* too large for a cache to have it at hand */
    char *own = granary_malloc(100);
    if (!own) {
        return 1;
    }
    memset(own, 7, 100);
    granary_free(own);

    size_t before = counted();
    char *volatile block = malloc(BYTES);
    if (!block) {
        return 2;
    }
    memset(block, 1, BYTES);
    int override = counted() >= before + BYTES;
    free(block);
    printf("granary %s: malloc is %s\n", granary_version(), override ? "granary's" : "the C library's");
    return override == WANT_OVERRIDE ? 0 : 3;
}
