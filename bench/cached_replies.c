/* cached_replies.c -- the replies that a client of the load generator gets, compared with what they must be.
 */
#include "cached_client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    pthread_mutex_t lock;
    /* under the lock */
    char text[256];
} first_error = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keep_first(const char *what, const char *line) {
    pthread_mutex_lock(&first_error.lock);
    if (!first_error.text[0])
        snprintf(first_error.text, sizeof first_error.text, "%s: %.*s", what, (int)strcspn(line, "\r\n"), line);
    pthread_mutex_unlock(&first_error.lock);
}

void replies_report_error(struct client *client, const char *what, const char *line) {
    client->tally->errors++;
    keep_first(what, line);
}

const char *replies_first_error(void) { return first_error.text[0] ? first_error.text : NULL; }

char basket_letter(uint32_t place) { return (char)('a' + place * 7 % 26); }

/* A line has its end, so this reads no further than that. */
static bool starts_with(const char *line, const char *start) { return strncmp(line, start, strlen(start)) == 0; }

static void wrong_value(struct client *client, const char *what, const char *line) {
    client->tally->wrong++;
    keep_first(what, line);
}

/* The server does not hold this version of the key (any more): read or append to it no further. */
static void note_absent(struct client *client, const struct pending *pending) {
    struct key_state *state = &client->keys[pending->key / client->settings->connections];
    if (state->version == pending->version)
        state->present = false;
}

static void verify_value(struct client *client, const struct pending *pending, const char *line, const char *value,
                         size_t size) {
    uint32_t version = 0, segments = 0;
    if (!segments_verify(value, size, pending->key, &version, &segments))
        wrong_value(client, "a value is not what was written", line);
    else if (pending->type == GET_OWN && !pending->segments)
        wrong_value(client, "a deleted value came back", line);
    else if (pending->type == GET_OWN && (version != pending->version || segments != pending->segments))
        wrong_value(client, "a value is not the last one written", line);
}

static void verify_basket(struct client *client, const struct pending *pending, const char *line, const char *value,
                          size_t size) {
    bool right = size == pending->number;
    for (size_t i = 0; right && i < size; i++)
        right = value[i] == basket_letter((uint32_t)i);
    if (!right)
        wrong_value(client, "a session's field is not what was written", line);
}

/* The size of the reply to a get at `line`, whose first line is complete: 0 if more has to come, -1 if
 * malformed. */
static long take_value(struct client *client, const struct pending *pending, const char *line, size_t available) {
    if (starts_with(line, "END\r\n")) {
        client->tally->misses++;
        if (pending->type == SESSION_GET)
            wrong_value(client, "a session's field is lost", line);
        else if (pending->type == GET_OWN)
            note_absent(client, pending);
        return 5;
    }
    char name[64] = "basket";
    if (pending->type != SESSION_GET)
        load_key_name(pending->key, name);
    size_t name_size = strlen(name);
    if (!starts_with(line, "VALUE ") || strncmp(line + 6, name, name_size) != 0 || line[6 + name_size] != ' ')
        return -1;
    char *rest;
    strtoul(line + 6 + name_size, &rest, 10);
    unsigned long size = strtoul(rest, &rest, 10);
    if (rest[0] != '\r' || size > LOAD_VALUE_MAX)
        return -1;
    const char *value = rest + 2;
    size_t head = (size_t)(value - line), whole = head + size + 7;
    if (available < whole)
        return 0;
    if (memcmp(value + size, "\r\nEND\r\n", 7) != 0)
        return -1;
    client->tally->hits++;
    client->tally->verified_bytes += size;
    if (pending->type == SESSION_GET)
        verify_basket(client, pending, line, value, size);
    else
        verify_value(client, pending, line, value, size);
    return (long)whole;
}

/* A reply of one line. False if the request does not allow it. */
static bool take_line(struct client *client, const struct pending *pending, const char *line) {
    switch (pending->type) {
    case SET:
    case INCR_START:
        return starts_with(line, "STORED\r\n");
    case APPEND:
        if (starts_with(line, "NOT_STORED\r\n")) {
            note_absent(client, pending);
            return true;
        }
        return starts_with(line, "STORED\r\n");
    case DELETE:
        return starts_with(line, "DELETED\r\n") || starts_with(line, "NOT_FOUND\r\n");
    case INCR:
        if (starts_with(line, "NOT_FOUND\r\n"))
            client->counter_known = false;
        else if (line[0] < '0' || line[0] > '9')
            return false;
        else if (strtoull(line, NULL, 10) != pending->number)
            wrong_value(client, "a counter is not what it was counted to", line);
        return true;
    case SESSION_WRITE:
        if (!starts_with(line, "LENGTH "))
            return false;
        if (strtoull(line + 7, NULL, 10) != pending->number)
            wrong_value(client, "a session's field has another size", line);
        return true;
    default:
        return false;
    }
}

bool replies_take(struct client *client) {
    struct buffer *buffer = &client->incoming;
    uint64_t now = now_ns();
    while (client->pending_count) {
        const struct pending *pending = &client->pending[client->pending_first];
        const char *line = buffer->bytes + buffer->begin;
        size_t available = buffer->end - buffer->begin;
        const char *end = available ? memchr(line, '\n', available) : NULL;
        if (!end)
            return true;
        long size = end + 1 - line;
        bool is_value = pending->type == GET_OWN || pending->type == GET_OTHER || pending->type == SESSION_GET;
        if (is_value)
            size = take_value(client, pending, line, available);
        if (size == 0)
            return true;
        if (size < 0 || (!is_value && !take_line(client, pending, line))) {
            replies_report_error(client, "unexpected reply", line);
            return false;
        }
        buffer->begin += (size_t)size;
        client->pending_first++;
        client->pending_count--;
        client->tally->requests++;
        histogram_add(&client->tally->times, now > client->sent_ns ? now - client->sent_ns : 0);
    }
    if (buffer->begin != buffer->end) {
        replies_report_error(client, "a reply that nothing asked for", buffer->bytes + buffer->begin);
        return false;
    }
    return true;
}
