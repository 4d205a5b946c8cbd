/* cached_worker.c -- the threads that serve: one epoll loop each over the connections it was handed.
 *
 * The acceptor puts a connection into a worker's inbox and wakes it by its event descriptor. From then on the
 * connection is the worker's alone. Ten times a second each worker frees what has expired in its shards.
 */
#include "cached_connection.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_PER_TURN 64
#define TICK_MS         100
#define TICKS_PER_CHECK 10 /* of idle connections */

struct worker {
    /* constant after init */
    _Alignas(64) struct server *server;
    uint32_t index;
    int epoll;
    int wake;
    pthread_t thread;
    /* this worker only */
    struct connection *connections;
    uint64_t next_tick_ms;
    uint64_t ticks;
    /* written by this worker, read by any thread */
    _Atomic uint64_t commands;
    /* under the lock */
    pthread_mutex_t lock;
    struct connection *inbox;
};

static _Thread_local struct worker *this_worker;

void worker_count_command(void) {
    struct worker *worker = this_worker;
    uint64_t count = atomic_load_explicit(&worker->commands, memory_order_relaxed);
    atomic_store_explicit(&worker->commands, count + 1, memory_order_relaxed);
}

static void close_connection(struct worker *worker, struct connection *connection) {
    if (connection->next)
        connection->next->previous = connection->previous;
    *(connection->previous ? &connection->previous->next : &worker->connections) = connection->next;
    connection_destroy(connection);
    atomic_fetch_sub_explicit(&worker->server->connections_open, 1, memory_order_relaxed);
}

static void adopt(struct worker *worker, struct connection *connection) {
    connection->previous = NULL;
    connection->next = worker->connections;
    if (connection->next)
        connection->next->previous = connection;
    worker->connections = connection;
    connection->interest = EPOLLIN;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, connection->socket, &event) != 0)
        close_connection(worker, connection);
}

static void empty_inbox(struct worker *worker) {
    uint64_t count;
    if (read(worker->wake, &count, sizeof count) < 0)
        return;
    pthread_mutex_lock(&worker->lock);
    struct connection *connection = worker->inbox;
    worker->inbox = NULL;
    pthread_mutex_unlock(&worker->lock);
    while (connection) {
        struct connection *next = connection->next;
        adopt(worker, connection);
        connection = next;
    }
}

static void serve(struct worker *worker, struct connection *connection, uint32_t events) {
    bool goes_on = connection_serve(connection, events);
    uint32_t interest = goes_on ? connection_interest(connection) : 0;
    if (goes_on && interest != connection->interest) {
        struct epoll_event event = {.events = interest, .data.ptr = connection};
        goes_on = epoll_ctl(worker->epoll, EPOLL_CTL_MOD, connection->socket, &event) == 0;
        connection->interest = interest;
    }
    if (!goes_on)
        close_connection(worker, connection);
}

static void close_idle(struct worker *worker, uint64_t now) {
    uint64_t limit = (uint64_t)worker->server->idle_seconds * 1000;
    for (struct connection *connection = worker->connections, *next; connection && limit; connection = next) {
        next = connection->next;
        if (now - connection->active_ms > limit)
            close_connection(worker, connection);
    }
}

static void tick(struct worker *worker) {
    uint64_t now = clock_ms();
    if (now < worker->next_tick_ms)
        return;
    worker->next_tick_ms = now + TICK_MS;
    store_sweep(worker->server->store, worker->index, worker->server->worker_count);
    if (++worker->ticks % TICKS_PER_CHECK == 0)
        close_idle(worker, now);
}

static void *work(void *argument) {
    struct worker *worker = this_worker = argument;
    struct epoll_event events[EVENTS_PER_TURN];
    while (!atomic_load_explicit(&worker->server->stopping, memory_order_acquire)) {
        int count = epoll_wait(worker->epoll, events, EVENTS_PER_TURN, TICK_MS);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == worker)
                empty_inbox(worker);
            else
                serve(worker, events[i].data.ptr, events[i].events);
        }
        tick(worker);
    }
    empty_inbox(worker);
    while (worker->connections)
        close_connection(worker, worker->connections);
    return NULL;
}

/* ---- called by main ---- */

static bool start(struct server *server, struct worker *worker) {
    worker->server = server;
    pthread_mutex_init(&worker->lock, NULL);
    worker->epoll = epoll_create1(EPOLL_CLOEXEC);
    worker->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = worker};
    if (worker->epoll >= 0 && worker->wake >= 0 && epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->wake, &event) == 0 &&
        pthread_create(&worker->thread, NULL, work, worker) == 0)
        return true;
    return false;
}

bool workers_start(struct server *server, uint32_t count) {
    server->workers = aligned_alloc(64, count * sizeof *server->workers);
    if (!server->workers)
        return false;
    memset(server->workers, 0, count * sizeof *server->workers);
    server->worker_count = count; /* the sweep's step, so constant before the first worker runs */
    for (uint32_t i = 0; i < count; i++) {
        server->workers[i].index = i;
        if (!start(server, &server->workers[i]))
            return false;
    }
    return true;
}

void workers_stop(struct server *server) {
    atomic_store_explicit(&server->stopping, true, memory_order_release);
    for (uint32_t i = 0; i < server->worker_count; i++) {
        struct worker *worker = &server->workers[i];
        uint64_t one = 1;
        if (write(worker->wake, &one, sizeof one) < 0 && errno != EAGAIN)
            continue; /* it wakes by its tick */
    }
    for (uint32_t i = 0; i < server->worker_count; i++) {
        struct worker *worker = &server->workers[i];
        pthread_join(worker->thread, NULL);
        close(worker->epoll);
        close(worker->wake);
        pthread_mutex_destroy(&worker->lock);
    }
    free(server->workers);
}

void workers_take(struct server *server, struct connection *connection) {
    uint64_t number = atomic_load_explicit(&server->connections_made, memory_order_relaxed);
    struct worker *worker = &server->workers[number % server->worker_count];
    pthread_mutex_lock(&worker->lock);
    connection->next = worker->inbox;
    worker->inbox = connection;
    pthread_mutex_unlock(&worker->lock);
    uint64_t one = 1;
    while (write(worker->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

uint64_t workers_commands(const struct server *server) {
    uint64_t commands = 0;
    for (uint32_t i = 0; i < server->worker_count; i++)
        commands += atomic_load_explicit(&server->workers[i].commands, memory_order_relaxed);
    return commands;
}
