/* cached_connection.c -- see cached_connection.h. What the commands mean: cached_command.c. */
#include "cached_connection.h"

#include "cached_command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#define INPUT_FIRST_BYTES  16384
#define INPUT_MAX_BYTES    65536
#define OUTPUT_PAUSE_BYTES (1u << 20) /* with more than this unsent no further command is run */

_Static_assert(INPUT_MAX_BYTES >= 2 * LINE_MAX_BYTES, "a buffer without a whole line can always take more");

struct connection *connection_create(struct server *server, int socket, uint64_t id, const char *peer) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) {
        close(socket);
        return NULL;
    }
    connection->socket = socket;
    connection->server = server;
    connection->active_ms = clock_ms();
    connection->session = session_create(id, peer);
    if (!connection->session) {
        connection_destroy(connection);
        return NULL;
    }
    return connection;
}

void connection_destroy(struct connection *connection) {
    close(connection->socket);
    output_clear(&connection->output);
    if (connection->incoming)
        item_drop(connection->incoming);
    command_forget(connection);
    free(connection->input);
    if (connection->session)
        session_destroy(connection->session);
    free(connection);
}

void connection_reply(struct connection *connection, const char *line) {
    if (!connection->quiet)
        output_add(&connection->output, line, strlen(line));
}

void connection_replyf(struct connection *connection, const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    connection_reply(connection, line);
}

uint32_t connection_interest(const struct connection *connection) {
    return connection->output.pending ? EPOLLOUT : EPOLLIN;
}

/* ---- input ---- */

/* Room for more input: the buffer is made, moved up or doubled. False without memory. */
static bool make_room(struct connection *connection) {
    size_t waiting = connection->input_end - connection->input_begin;
    if (connection->input_begin) {
        memmove(connection->input, connection->input + connection->input_begin, waiting);
        connection->input_begin = 0;
        connection->input_end = waiting;
    }
    size_t capacity = connection->input_capacity;
    if (capacity - waiting < INPUT_FIRST_BYTES / 2 && capacity < INPUT_MAX_BYTES) {
        capacity = capacity ? capacity * 2 : INPUT_FIRST_BYTES;
        char *grown = realloc(connection->input, capacity);
        if (!grown)
            return false;
        connection->input = grown;
        connection->input_capacity = capacity;
    }
    return true;
}

/* An idle connection holds no buffer. */
static void drop_empty_input(struct connection *connection) {
    if (connection->input_begin != connection->input_end)
        return;
    free(connection->input);
    connection->input = NULL;
    connection->input_capacity = connection->input_begin = connection->input_end = 0;
}

/* Reads once: what is missing of the incoming value goes there, the rest into the buffer.
 * Returns bytes, 0 at the end of the stream, -1 when nothing can be read now, -2 on errors. */
static ssize_t read_some(struct connection *connection) {
    if (!make_room(connection))
        return -2;
    struct iovec vectors[2];
    int count = 0;
    size_t missing = 0;
    if (connection->incoming && connection->received < connection->incoming->value_size) {
        missing = connection->incoming->value_size - connection->received;
        vectors[count++] = (struct iovec){item_value(connection->incoming) + connection->received, missing};
    }
    vectors[count++] =
        (struct iovec){connection->input + connection->input_end, connection->input_capacity - connection->input_end};
    ssize_t got = readv(connection->socket, vectors, count);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -1 : -2;
    size_t direct = (size_t)got < missing ? (size_t)got : missing;
    connection->received += direct;
    connection->input_end += (size_t)got - direct;
    return got;
}

/* Moves buffered bytes into the incoming value and its line end. True when both are complete. */
static bool receive_value(struct connection *connection, const char *bytes, size_t size) {
    struct item *item = connection->incoming;
    size_t whole = (size_t)item->value_size + sizeof connection->line_end, used = 0;
    if (connection->received < item->value_size) {
        used = item->value_size - connection->received;
        used = used < size ? used : size;
        memcpy(item_value(item) + connection->received, bytes, used);
        connection->received += used;
    }
    while (connection->received >= item->value_size && connection->received < whole && used < size)
        connection->line_end[connection->received++ - item->value_size] = bytes[used++];
    connection->input_begin += used;
    return connection->received == whole;
}

static void value_complete(struct connection *connection) {
    struct item *item = connection->incoming;
    connection->incoming = NULL;
    if (memcmp(connection->line_end, "\r\n", 2) == 0) {
        command_finish(connection, item);
    } else {
        item_drop(item);
        connection->skip_line = connection->line_end[1] != '\n';
        connection_reply(connection, "CLIENT_ERROR bad data chunk\r\n");
    }
    command_forget(connection);
}

/* One command line from the buffer. False if it is not complete. */
static bool consume_line(struct connection *connection, char *bytes, size_t size) {
    char *end = memchr(bytes, '\n', size);
    size_t length = end ? (size_t)(end - bytes) : size;
    if (length > LINE_MAX_BYTES) {
        connection->input_begin += length;
        connection->skip_line = true;
        connection->quiet = false;
        connection_reply(connection, "CLIENT_ERROR line too long\r\n");
        return true;
    }
    if (!end)
        return false;
    connection->input_begin += length + 1;
    if (length && bytes[length - 1] == '\r')
        length--;
    command_run(connection, bytes, length);
    return true;
}

/* Runs the complete commands in the buffer. False if it stopped before the last one to let output go. */
static bool connection_consume(struct connection *connection) {
    while (!connection->closing) {
        char *bytes = connection->input + connection->input_begin;
        size_t size = connection->input_end - connection->input_begin;
        if (size == 0)
            break;
        if (connection->output.pending > OUTPUT_PAUSE_BYTES)
            return false;
        if (connection->skip_bytes) {
            size_t skipped = size < connection->skip_bytes ? size : (size_t)connection->skip_bytes;
            connection->skip_bytes -= skipped;
            connection->input_begin += skipped;
        } else if (connection->incoming) {
            if (receive_value(connection, bytes, size))
                value_complete(connection);
        } else if (connection->skip_line) {
            char *end = memchr(bytes, '\n', size);
            connection->input_begin += end ? (size_t)(end + 1 - bytes) : size;
            connection->skip_line = !end;
        } else if (!consume_line(connection, bytes, size)) {
            break;
        }
    }
    drop_empty_input(connection);
    return true;
}

/* Runs commands and sends replies until one or the other can go no further. */
static enum flush run_and_flush(struct connection *connection) {
    bool all_run;
    enum flush flush;
    do {
        all_run = connection_consume(connection);
        if (connection->output.failed)
            return FLUSH_BROKEN;
        flush = output_flush(&connection->output, connection->socket);
    } while (flush == FLUSH_DONE && !all_run);
    return flush;
}

bool connection_serve(struct connection *connection, uint32_t events) {
    if (events & EPOLLERR)
        return false;
    connection->active_ms = clock_ms();
    bool ended = false;
    enum flush flush = run_and_flush(connection);
    /* Nothing more is read before all replies are sent: a client that does not read its replies is not read
     * either. */
    if (flush == FLUSH_DONE && !connection->closing && events & (EPOLLIN | EPOLLHUP)) {
        ssize_t got = read_some(connection);
        if (got == -2)
            return false;
        ended = got == 0;
        flush = run_and_flush(connection);
    }
    return flush == FLUSH_BLOCKED || (flush == FLUSH_DONE && !connection->closing && !ended);
}
