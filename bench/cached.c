/* cached.c -- a small multithreaded cache server, for showing and measuring an allocator under a server's
 * load.
 *
 * It listens on 127.0.0.1, speaks a subset of memcached's text protocol (cached_command.h), keeps values in a
 * sharded table with eviction and expiry (cached_store.h), and calls malloc and free as servers do: requests,
 * replies, values and sessions are blocks of their own that one thread allocates and often another one frees.
 *
 *   main                accepts and hands connections over; ends on SIGTERM, SIGINT or after --seconds
 *   cached_worker       the threads: epoll, ticks
 *   cached_connection   bytes to commands and back
 *   cached_command      what commands do;      cached_session, cached_output: their strings and replies
 *   cached_store        the values;            cached_item: one value
 *   cached_report       the answer to `stats`
 */
#include "cached_connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define SHARDS               32
#define LISTEN_BACKLOG       1024
#define DESCRIPTORS_SHORT_MS 20 /* to wait when the process has no descriptor left */

struct options {
    unsigned long port;
    unsigned long threads;
    unsigned long limit_mib;
    unsigned long value_max_kib;
    unsigned long connections;
    unsigned long idle_seconds;
    unsigned long seconds;
};

static void usage(FILE *out) {
    fprintf(out, "usage: cached [options]        a cache server on 127.0.0.1; see cached_command.h\n"
                 "  --port N          0 takes a free one, which is printed (default 0)\n"
                 "  --threads N       workers (4)\n"
                 "  --limit-mib N     bytes of values, then the least recently used go (256)\n"
                 "  --value-kib N     the largest value (1024)\n"
                 "  --connections N   more are refused with one line (4096)\n"
                 "  --idle-seconds N  closes connections without traffic; 0: never (60)\n"
                 "  --seconds N       ends after so long; 0: only on SIGTERM or SIGINT (0)\n");
}

static void fail(const char *what) {
    fprintf(stderr, "cached: %s: %s\n", what, strerror(errno));
    exit(1);
}

static unsigned long parse_number(const char *text, unsigned long max, const char *name) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value > max) {
        fprintf(stderr, "cached: --%s wants a number up to %lu, not '%s'\n", name, max, text);
        exit(2);
    }
    return value;
}

static struct options parse_options(int count, char **words) {
    struct options options = {
        .threads = 4, .limit_mib = 256, .value_max_kib = 1024, .connections = 4096, .idle_seconds = 60};
    const struct {
        const char *name;
        unsigned long max;
        unsigned long *to;
    } numbers[] = {
        {"port", 65535, &options.port},
        {"threads", 1024, &options.threads},
        {"limit-mib", SHARDS * 1024, &options.limit_mib},
        {"value-kib", 1024 * 1024, &options.value_max_kib},
        {"connections", 1000000, &options.connections},
        {"idle-seconds", 1000000, &options.idle_seconds},
        {"seconds", 1000000, &options.seconds},
    };
    enum { NUMBERS = sizeof numbers / sizeof numbers[0] };
    struct option names[NUMBERS + 2] = {[NUMBERS] = {"help", no_argument, NULL, NUMBERS}};
    for (int i = 0; i < NUMBERS; i++)
        names[i] = (struct option){numbers[i].name, required_argument, NULL, i};
    for (int at; (at = getopt_long(count, words, "", names, NULL)) != -1;) {
        if (at == NUMBERS || at == '?') {
            usage(at == '?' ? stderr : stdout);
            exit(at == '?' ? 2 : 0);
        }
        *numbers[at].to = parse_number(optarg, numbers[at].max, numbers[at].name);
    }
    if (optind != count || !options.threads || !options.limit_mib) {
        usage(stderr);
        exit(2);
    }
    return options;
}

static int listen_on(unsigned long port, unsigned *got_port) {
    int one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, LISTEN_BACKLOG) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        fail("cannot listen on 127.0.0.1");
    *got_port = ntohs(address.sin_port);
    return listener;
}

static void refuse(int socket) {
    static const char line[] = "SERVER_ERROR too many connections\r\n";
    send(socket, line, sizeof line - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(socket);
}

/* Accepts one connection. False if none waits. */
static bool accept_one(struct server *server, int listener) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    char name[INET_ADDRSTRLEN] = "", peer[sizeof name + 8];
    int socket = accept4(listener, (struct sockaddr *)&address, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            poll(NULL, 0, DESCRIPTORS_SHORT_MS);
        return errno == ECONNABORTED || errno == EINTR;
    }
    if (atomic_load_explicit(&server->connections_open, memory_order_relaxed) >= server->connection_max) {
        refuse(socket);
        return true;
    }
    /* A reply that takes several sends must not wait for the client's delayed acknowledgement. */
    int one = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    inet_ntop(AF_INET, &address.sin_addr, name, sizeof name);
    snprintf(peer, sizeof peer, "%s:%u", name, ntohs(address.sin_port));
    uint64_t id = atomic_fetch_add_explicit(&server->connections_made, 1, memory_order_relaxed);
    struct connection *connection = connection_create(server, socket, id, peer);
    if (!connection)
        return true;
    atomic_fetch_add_explicit(&server->connections_open, 1, memory_order_relaxed);
    workers_take(server, connection);
    return true;
}

/* Until a signal comes or the time is over. */
static void accept_all(struct server *server, int listener, int signals, unsigned long seconds) {
    struct pollfd watched[] = {{.fd = signals, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    uint64_t end_ms = server->start_ms + (uint64_t)seconds * 1000;
    for (;;) {
        uint64_t now = clock_ms();
        if (seconds && now >= end_ms)
            return;
        int wait_ms = !seconds ? -1 : end_ms - now < 1000 ? (int)(end_ms - now) : 1000;
        if (poll(watched, 2, wait_ms) < 0 && errno != EINTR)
            fail("poll");
        if (watched[0].revents)
            return;
        while (accept_one(server, listener))
            ;
    }
}

static int catch_signals(void) {
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int count, char **words) {
    struct options options = parse_options(count, words);
    struct server server = {.value_max_bytes = options.value_max_kib * 1024,
                            .connection_max = (uint32_t)options.connections,
                            .idle_seconds = (uint32_t)options.idle_seconds,
                            .start_ms = clock_ms()};
    unsigned port;
    raise_descriptor_limit();
    int signals = catch_signals();
    int listener = listen_on(options.port, &port);
    server.store = store_create(SHARDS, options.limit_mib * 1024 * 1024);
    if (signals < 0 || !server.store)
        fail("cannot start");
    if (server.value_max_bytes > store_value_max(server.store)) {
        fprintf(stderr, "cached: a limit of %lu MiB holds values up to %zu KiB\n", options.limit_mib,
                store_value_max(server.store) / 1024);
        exit(2);
    }
    if (!workers_start(&server, (uint32_t)options.threads))
        fail("cannot start the workers");
    printf("cached: listening on 127.0.0.1:%u\n", port);
    printf("cached: malloc is %s\n", report_malloc());
    fflush(stdout);
    accept_all(&server, listener, signals, options.seconds);
    close(listener);
    workers_stop(&server);
    store_destroy(server.store);
    close(signals);
    return 0;
}
