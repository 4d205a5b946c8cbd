/* cached_output.h -- replies on their way to a client: a list of chunks, written when the socket takes them.
 *
 * PURPOSE     Small replies share a chunk; a large value is not copied but held by reference until it is
 * sent.
 *
 * OWNS        Its chunks and one reference to each item in them; used by the connection's worker alone.
 */
#ifndef CACHED_OUTPUT_H
#define CACHED_OUTPUT_H

#include "cached_item.h"

#include <stdbool.h>

struct chunk;

struct output {
    struct chunk *first;
    struct chunk *last;
    size_t pending; /* bytes that are still to be sent */
    bool failed;    /* memory ran out, so a reply is incomplete: the connection has to close */
};

enum flush { FLUSH_DONE, FLUSH_BLOCKED, FLUSH_BROKEN };

void output_add(struct output *output, const char *bytes, size_t size);

/* Adds the item's value and takes over the caller's reference. */
void output_add_value(struct output *output, struct item *item);

/* Sends what the socket takes and frees what was sent. */
enum flush output_flush(struct output *output, int fd);

void output_clear(struct output *output);

#endif
