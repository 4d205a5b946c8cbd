/* cached_client.c -- see cached_client.h: the requests. The replies: cached_replies.c. */
#include "cached_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES        65536
#define APPEND_MAX_BYTES  80
#define BASKET_MAX_BYTES  1500
#define BASKET_WORD_BYTES 60

static int connect_to(uint32_t port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client < 0)
        return -1;
    if (connect(client, (struct sockaddr *)&address, sizeof address) != 0) {
        close(client);
        return -1;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return client;
}

/* Room for `more` bytes at the buffer's end. Without memory the load generator ends. */
static char *room(struct buffer *buffer, size_t more) {
    if (buffer->begin && buffer->begin == buffer->end)
        buffer->begin = buffer->end = 0;
    if (buffer->capacity - buffer->end < more && buffer->begin) {
        memmove(buffer->bytes, buffer->bytes + buffer->begin, buffer->end - buffer->begin);
        buffer->end -= buffer->begin;
        buffer->begin = 0;
    }
    if (buffer->capacity - buffer->end < more) {
        buffer->capacity = 2 * buffer->capacity + more;
        char *grown = realloc(buffer->bytes, buffer->capacity);
        if (!grown) {
            fprintf(stderr, "cachedload: out of memory\n");
            exit(1);
        }
        buffer->bytes = grown;
    }
    return buffer->bytes + buffer->end;
}

bool client_open(struct client *client, const struct settings *settings, struct tally *tally, uint32_t index,
                 const char **what) {
    *client = (struct client){.settings = settings, .tally = tally, .index = index, .socket = -1};
    client->random.state = (uint64_t)settings->seed * 1000003 + index;
    client->quota = settings->requests / settings->connections + (index < settings->requests % settings->connections);
    client->pending = calloc(settings->pipeline, sizeof *client->pending);
    client->keys = calloc(settings->keys / settings->connections, sizeof *client->keys);
    *what = "out of memory";
    if (!client->pending || !client->keys)
        return false;
    client->socket = connect_to(settings->port);
    *what = strerror(errno);
    return client->socket >= 0;
}

static void lose(struct client *client) {
    if (client->socket >= 0)
        close(client->socket);
    client->socket = -1;
    client->pending_count = 0;
}

void client_close(struct client *client) {
    lose(client);
    free(client->pending);
    free(client->keys);
    free(client->outgoing.bytes);
    free(client->incoming.bytes);
}

bool client_renew(struct client *client, bool *renewed) {
    *renewed = false;
    if (!client->settings->reconnect || client->served < client->settings->reconnect)
        return true;
    lose(client);
    client->served = 0;
    client->basket_size = 0;
    client->tally->reconnects++;
    client->socket = connect_to(client->settings->port);
    *renewed = true;
    return client->socket >= 0;
}

/* ---- requests ---- */

static struct key_state *state_of(struct client *client, uint32_t key) {
    return &client->keys[key / client->settings->connections];
}

static struct pending *add_pending(struct client *client, enum request_type type, uint32_t key) {
    struct pending *pending = &client->pending[client->pending_first + client->pending_count++];
    *pending = (struct pending){.type = type, .key = key};
    return pending;
}

static __attribute__((format(printf, 2, 3))) void add_line(struct client *client, const char *format, ...) {
    va_list arguments;
    char *text = room(&client->outgoing, 256);
    va_start(arguments, format);
    client->outgoing.end += (size_t)vsnprintf(text, 256, format, arguments);
    va_end(arguments);
}

static void add_segment(struct client *client, uint32_t size, uint32_t key, uint32_t version, uint32_t number) {
    segment_write(room(&client->outgoing, size + 2), size, key, version, number);
    client->outgoing.end += size;
    memcpy(client->outgoing.bytes + client->outgoing.end, "\r\n", 2);
    client->outgoing.end += 2;
}

static void add_set(struct client *client, uint32_t key, const char *name, double progress) {
    const struct settings *settings = client->settings;
    struct key_state *state = state_of(client, key);
    uint32_t size = load_size(settings, &client->random, progress);
    bool expires = random_below(&client->random, 100) < settings->expire_percent;
    *state = (struct key_state){.version = state->version + 1, .segments = 1, .present = true};
    add_line(client, "set %s %u %u %u\r\n", name, state->version & 0xffff, expires ? settings->expire_seconds : 0,
             size);
    add_segment(client, size, key, state->version, 0);
    add_pending(client, SET, key)->version = state->version;
}

static void add_append(struct client *client, uint32_t key, const char *name) {
    struct key_state *state = state_of(client, key);
    uint32_t size = SEGMENT_MIN_BYTES + random_below(&client->random, APPEND_MAX_BYTES);
    add_line(client, "append %s 0 0 %u\r\n", name, size);
    add_segment(client, size, key, state->version, state->segments++);
    add_pending(client, APPEND, key)->version = state->version;
}

static void add_get(struct client *client, uint32_t key, const char *name, bool own) {
    struct key_state *state = own ? state_of(client, key) : NULL;
    /* What an earlier run has left of a key that this one has not written yet is like another's. */
    bool known = state && state->version;
    add_line(client, "get %s\r\n", name);
    struct pending *pending = add_pending(client, known ? GET_OWN : GET_OTHER, key);
    if (known) {
        pending->version = state->version;
        pending->segments = state->present ? state->segments : 0;
    }
}

static void add_incr(struct client *client) {
    if (client->counter_known) {
        uint32_t step = random_below(&client->random, 1000);
        client->counter += step;
        add_line(client, "incr counter:%u %u\r\n", client->index, step);
        add_pending(client, INCR, 0)->number = client->counter;
    } else {
        client->counter = 0;
        client->counter_known = true;
        add_line(client, "set counter:%u 0 0 1\r\n0\r\n", client->index);
        add_pending(client, INCR_START, 0);
    }
}

/* The session's field is a prefix of one endless text; words are the next piece of it. */
static void add_session(struct client *client) {
    char word[BASKET_WORD_BYTES + 1];
    bool anew = client->basket_size == 0 || client->basket_size > BASKET_MAX_BYTES;
    if (!anew && random_below(&client->random, 4) == 0) {
        add_line(client, "session get basket\r\n");
        add_pending(client, SESSION_GET, 0)->number = client->basket_size;
        return;
    }
    if (anew)
        client->basket_size = 0;
    uint32_t size = 1 + random_below(&client->random, BASKET_WORD_BYTES);
    for (uint32_t i = 0; i < size; i++)
        word[i] = basket_letter(client->basket_size + i);
    word[size] = '\0';
    client->basket_size += size;
    add_line(client, "session %s basket %s\r\n", anew ? "set" : "append", word);
    add_pending(client, SESSION_WRITE, 0)->number = client->basket_size;
}

static void add_request(struct client *client, double progress) {
    const struct settings *settings = client->settings;
    enum kind kind = load_kind(settings, &client->random);
    uint32_t key = load_key(settings, &client->random);
    /* Half of the reads are of any key, all else is of the client's own. */
    bool own = kind != KIND_GET || random_below(&client->random, 2);
    if (own)
        key += client->index - key % settings->connections;
    char name[64];
    load_key_name(key, name);
    struct key_state *state = own ? state_of(client, key) : NULL;
    bool refill = state && !state->present;
    switch (kind) {
    case KIND_GET:
        /* A read that is known to miss becomes the write that fills the cache, mostly. */
        if (refill && random_below(&client->random, 8))
            add_set(client, key, name, progress);
        else
            add_get(client, key, name, own);
        break;
    case KIND_APPEND:
        if (refill || state->segments == SEGMENTS_MAX)
            add_set(client, key, name, progress);
        else
            add_append(client, key, name);
        break;
    case KIND_DELETE:
        state->present = false;
        add_line(client, "delete %s\r\n", name);
        add_pending(client, DELETE, key)->version = state->version;
        break;
    case KIND_INCR:
        add_incr(client);
        break;
    case KIND_SESSION:
        add_session(client);
        break;
    default:
        add_set(client, key, name, progress);
        break;
    }
}

/* ---- the socket ---- */

static size_t chopped(struct client *client, size_t size) {
    uint32_t chop = client->settings->chop;
    size_t part = chop ? 1 + random_below(&client->random, chop) : size;
    return part < size ? part : size;
}

/* False when the connection is lost. */
static bool send_some(struct client *client) {
    struct buffer *buffer = &client->outgoing;
    while (buffer->begin < buffer->end) {
        ssize_t sent = send(client->socket, buffer->bytes + buffer->begin, chopped(client, buffer->end - buffer->begin),
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
        buffer->begin += (size_t)sent;
    }
    buffer->begin = buffer->end = 0;
    return true;
}

/* False when the connection is lost. */
static bool receive_some(struct client *client) {
    /* A NUL stands behind what was read, for the functions that parse numbers. */
    char *free_bytes = room(&client->incoming, READ_BYTES);
    size_t size = client->incoming.capacity - client->incoming.end - 1;
    ssize_t got = recv(client->socket, free_bytes, chopped(client, size), MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    client->incoming.end += (size_t)got;
    client->incoming.bytes[client->incoming.end] = '\0';
    return got > 0;
}

static void fail(struct client *client, const char *what) {
    replies_report_error(client, what, "");
    lose(client);
}

void client_start_batch(struct client *client, double progress) {
    uint64_t count = client->settings->pipeline;
    if (client->quota && client->quota - client->done < count)
        count = client->quota - client->done;
    client->pending_first = 0;
    while (count--)
        add_request(client, progress);
    client->done += client->pending_count;
    client->served += client->pending_count;
    client->sent_ns = client->settings->rate ? client->due_ns : now_ns();
    if (!send_some(client))
        fail(client, "lost the connection");
}

bool client_go_on(struct client *client) {
    if (!send_some(client) || !receive_some(client))
        fail(client, "lost the connection");
    else if (!replies_take(client))
        lose(client);
    return client->pending_count == 0;
}
