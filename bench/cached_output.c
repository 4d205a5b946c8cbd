/* cached_output.c -- see cached_output.h. */
#include "cached_output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define CHUNK_BYTES      2000
#define COPIED_MAX_BYTES 1024 /* larger values are sent from where they are */
#define VECTORS          64

struct chunk {
    struct chunk *next;
    struct item *item; /* whose value this is, or NULL: the bytes below */
    size_t size;
    size_t sent;
    char bytes[];
};

static struct chunk *add_chunk(struct output *output, size_t capacity) {
    struct chunk *chunk = malloc(sizeof *chunk + capacity);
    if (!chunk) {
        output->failed = true;
        return NULL;
    }
    *chunk = (struct chunk){.size = 0};
    *(output->last ? &output->last->next : &output->first) = chunk;
    output->last = chunk;
    return chunk;
}

void output_add(struct output *output, const char *bytes, size_t size) {
    while (size && !output->failed) {
        struct chunk *chunk = output->last;
        if (!chunk || chunk->item || chunk->size == CHUNK_BYTES)
            chunk = add_chunk(output, CHUNK_BYTES);
        if (!chunk)
            return;
        size_t part = size < CHUNK_BYTES - chunk->size ? size : CHUNK_BYTES - chunk->size;
        memcpy(chunk->bytes + chunk->size, bytes, part);
        chunk->size += part;
        output->pending += part;
        bytes += part;
        size -= part;
    }
}

void output_add_value(struct output *output, struct item *item) {
    struct chunk *chunk = NULL;
    if (item->value_size <= COPIED_MAX_BYTES)
        output_add(output, item_value(item), item->value_size);
    else if (!output->failed && (chunk = add_chunk(output, 0)))
        chunk->item = item;
    if (!chunk) {
        item_drop(item);
        return;
    }
    chunk->size = item->value_size;
    output->pending += chunk->size;
}

static void drop_first(struct output *output) {
    struct chunk *chunk = output->first;
    output->first = chunk->next;
    if (!output->first)
        output->last = NULL;
    if (chunk->item)
        item_drop(chunk->item);
    free(chunk);
}

/* One call of sendmsg. Bytes sent, or -1 with errno. */
static ssize_t send_some(struct output *output, int fd) {
    struct iovec vectors[VECTORS];
    struct msghdr message = {.msg_iov = vectors};
    for (struct chunk *chunk = output->first; chunk && message.msg_iovlen < VECTORS; chunk = chunk->next) {
        char *bytes = chunk->item ? item_value(chunk->item) : chunk->bytes;
        vectors[message.msg_iovlen++] =
            (struct iovec){.iov_base = bytes + chunk->sent, .iov_len = chunk->size - chunk->sent};
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

enum flush output_flush(struct output *output, int fd) {
    while (output->first) {
        ssize_t sent = send_some(output, fd);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? FLUSH_BLOCKED : FLUSH_BROKEN;
        output->pending -= (size_t)sent;
        while (output->first) {
            struct chunk *chunk = output->first;
            size_t left = chunk->size - chunk->sent;
            if ((size_t)sent < left) {
                chunk->sent += (size_t)sent;
                break;
            }
            sent -= (ssize_t)left;
            drop_first(output);
        }
    }
    return FLUSH_DONE;
}

void output_clear(struct output *output) {
    while (output->first)
        drop_first(output);
    output->pending = 0;
}
