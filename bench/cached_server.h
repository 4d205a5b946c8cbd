/* cached_server.h -- the server as a whole: its settings, its store, its workers and their counters.
 *
 * LIFETIME    One, made by main before the first worker and destroyed after the last one is joined.
 */
#ifndef CACHED_SERVER_H
#define CACHED_SERVER_H

#include "cached_store.h"

#include <stdatomic.h>
#include <stdio.h>

struct worker;
struct connection;

struct server {
    /* constant after init */
    struct store *store;
    struct worker *workers;
    uint32_t worker_count;
    uint32_t connection_max;
    uint32_t idle_seconds; /* a connection without traffic for so long is closed; 0: never */
    size_t value_max_bytes;
    uint64_t start_ms;
    /* any thread writes */
    _Atomic uint64_t connections_made;
    _Atomic uint32_t connections_open;
    _Atomic bool stopping;
};

/* False if not all could be started; the process is to end then. */
bool workers_start(struct server *server, uint32_t count);

/* Lets the workers end and waits for them; their connections are closed. */
void workers_stop(struct server *server);

/* Hands a connection over, to each worker in turn. Called by the acceptor alone. */
void workers_take(struct server *server, struct connection *connection);

/* Commands that all workers have run. */
uint64_t workers_commands(const struct server *server);

/* One more command of the calling worker. */
void worker_count_command(void);

/* Writes the answer to `stats`: one "STAT name value\r\n" each, and "END\r\n". Returns its size. */
size_t report_stats(struct server *server, char *text, size_t size);

/* The malloc that this process uses: the path of the object that holds it. */
const char *report_malloc(void);

#endif
