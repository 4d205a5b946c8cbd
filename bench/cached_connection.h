/* cached_connection.h -- one client: bytes in, commands run, bytes out.
 *
 * PURPOSE     Cut the stream into command lines and data blocks however it arrives, and never wait: a client
 * that sends half a request, or does not read its replies, costs its buffers and nobody's time.
 *
 * OWNS        Its socket, session, buffers and the value that is being received.
 *
 * LIFETIME    Made by the acceptor, then used, and in the end freed, by one worker alone.
 *
 * STATES      of the input, in the order of the tests in connection_consume():
 *             skip_bytes > 0     the data block of a command that was refused
 *             incoming           the data block of a value that is being received, with its line in `request`
 *             skip_line          the rest of a line that was refused
 *             otherwise          a command line is next
 */
#ifndef CACHED_CONNECTION_H
#define CACHED_CONNECTION_H

#include "cached_output.h"
#include "cached_server.h"
#include "cached_session.h"

#define LINE_MAX_BYTES 8192

struct request;

struct connection {
    /* constant after init */
    int socket;
    struct server *server;
    struct session *session;
    /* the worker's list */
    struct connection *next;
    struct connection *previous;
    uint64_t active_ms; /* when bytes last moved */
    uint32_t interest;  /* what epoll watches for */
    /* input */
    char *input; /* NULL while nothing waits in it */
    size_t input_capacity;
    size_t input_begin;
    size_t input_end;
    uint64_t skip_bytes;
    bool skip_line;
    struct item *incoming;
    struct request *request;
    size_t received; /* of the value and the line end after it */
    char line_end[2];
    /* output */
    struct output output;
    bool quiet;   /* the command asked for no reply */
    bool closing; /* close when the output is sent */
};

/* Takes over the socket, also on failure. NULL without memory. */
struct connection *connection_create(struct server *server, int socket, uint64_t id, const char *peer);
void connection_destroy(struct connection *connection);

/* Does what can be done without waiting. False when the connection is over. */
bool connection_serve(struct connection *connection, uint32_t events);

/* What epoll should watch for now. */
uint32_t connection_interest(const struct connection *connection);

/* Adds a line of reply, "\r\n" included, unless the command asked for none. */
void connection_reply(struct connection *connection, const char *line);
__attribute__((format(printf, 2, 3))) void connection_replyf(struct connection *connection, const char *format, ...);

#endif
