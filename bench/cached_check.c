/* cached_check.c -- the tests of cached: usage `cached-check path/of/cached [path/of/cachedload]`.
 *
 * Starts the server, holds conversations with it as a good client, a slow one, a malformed one and one that
 * goes away, runs the load generator in small pieces, and ends the server by SIGTERM, which must end it with
 * status 0.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECTION_MAX 200 /* above what the load has open, or closed and not yet seen to be */
#define WAIT_MS        10000

static pid_t server;
static uint16_t port;
static int failures;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAILED: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    failures++;
}

static void give_up(const char *what) {
    fprintf(stderr, "cached-check: %s: %s\n", what, strerror(errno));
    if (server > 0)
        kill(server, SIGKILL);
    exit(1);
}

static void start_server(const char *path) {
    int ends[2];
    if (pipe(ends) != 0 || (server = fork()) < 0)
        give_up("cannot start");
    if (server == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        char connections[16];
        snprintf(connections, sizeof connections, "%d", CONNECTION_MAX);
        execl(path, path, "--threads", "3", "--connections", connections, "--limit-mib", "64", "--idle-seconds", "3",
              "--seconds", "120", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *out = fdopen(ends[0], "r");
    unsigned number = 0;
    if (!out || fscanf(out, "cached: listening on 127.0.0.1:%u", &number) != 1)
        give_up("the server does not say its port");
    port = (uint16_t)number;
    fclose(out);
}

static int connect_to_server(void) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client < 0 || connect(client, (struct sockaddr *)&address, sizeof address) != 0)
        give_up("cannot connect");
    return client;
}

/* False if the server closed the connection. */
static bool send_all(int client, const char *bytes, size_t size, size_t piece) {
    while (size) {
        ssize_t sent = send(client, bytes, piece && piece < size ? piece : size, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        bytes += sent;
        size -= (size_t)sent;
    }
    return true;
}

/* Bytes received until there are `size`, the stream ends, or WAIT_MS without any. */
static size_t receive(int client, char *bytes, size_t size) {
    size_t got = 0;
    while (got < size) {
        struct pollfd watched = {.fd = client, .events = POLLIN};
        if (poll(&watched, 1, WAIT_MS) <= 0)
            break;
        ssize_t part = recv(client, bytes + got, size - got, 0);
        if (part <= 0)
            break;
        got += (size_t)part;
    }
    return got;
}

static void expect_end(int client, const char *what) {
    char byte;
    if (receive(client, &byte, 1) != 0)
        fail("%s: the server goes on", what);
    close(client);
}

#define TEN    "0123456789"
#define FIFTY  TEN TEN TEN TEN TEN
#define KEY250 FIFTY FIFTY FIFTY FIFTY FIFTY
#define BAD    "CLIENT_ERROR bad command line format\r\n"

static const struct {
    const char *name;
    const char *sent;
    const char *expected;
} talks[] = {
    {"set and get", "set a 7 0 5\r\nhello\r\nget a\r\n", "STORED\r\nVALUE a 7 5\r\nhello\r\nEND\r\n"},
    {"get of many", "set b 1 0 2\r\nhi\r\nget a none b\r\n",
     "STORED\r\nVALUE a 7 5\r\nhello\r\nVALUE b 1 2\r\nhi\r\nEND\r\n"},
    {"empty value", "set e 0 0 0\r\n\r\nget e\r\nappend e 0 0 1\r\nx\r\nget e\r\n",
     "STORED\r\nVALUE e 0 0\r\n\r\nEND\r\nSTORED\r\nVALUE e 0 1\r\nx\r\nEND\r\n"},
    {"value with line ends", "set l 0 0 6\r\n\r\n\r\n\r\n\r\nget l\r\n",
     "STORED\r\nVALUE l 0 6\r\n\r\n\r\n\r\n\r\nEND\r\n"},
    {"append", "append a 9 9 3\r\n, x\r\nget a\r\nappend none 0 0 1\r\ny\r\n",
     "STORED\r\nVALUE a 7 8\r\nhello, x\r\nEND\r\nNOT_STORED\r\n"},
    {"delete", "delete a\r\ndelete a\r\nget a\r\n", "DELETED\r\nNOT_FOUND\r\nEND\r\n"},
    {"counting", "set n 0 0 2\r\n99\r\nincr n 1\r\ndecr n 95\r\ndecr n 6\r\nget n\r\n",
     "STORED\r\n100\r\n5\r\n0\r\nVALUE n 0 1\r\n0\r\nEND\r\n"},
    {"counting wraps", "set n 0 0 20\r\n18446744073709551615\r\nincr n 2\r\n", "STORED\r\n1\r\n"},
    {"counting what is no number", "incr b 1\r\nincr none 1\r\nincr n x\r\nincr n -1\r\n",
     "CLIENT_ERROR cannot increment or decrement non-numeric value\r\nNOT_FOUND\r\n" BAD BAD},
    {"expiry", "set x 0 -1 1\r\n1\r\nget x\r\nset x 0 100 1\r\n1\r\ntouch x -1\r\nget x\r\ntouch x 5\r\n",
     "STORED\r\nEND\r\nSTORED\r\nTOUCHED\r\nEND\r\nNOT_FOUND\r\n"},
    {"noreply", "set q 0 0 1 noreply\r\n1\r\nincr q 4 noreply\r\ndelete b noreply\r\nget q b\r\n",
     "VALUE q 0 1\r\n5\r\nEND\r\n"},
    {"bare line feeds", "get q\nversionx\n", "VALUE q 0 1\r\n5\r\nEND\r\nERROR\r\n"},
    {"unknown and empty", "\r\n  \r\nGET a\r\nfrobnicate 1 2 3\r\n", "ERROR\r\nERROR\r\nERROR\r\nERROR\r\n"},
    {"wrong words",
     "get\r\nset a 0 0\r\ndelete\r\ndelete a b\r\nset a 0 0 -1\r\nset a 0 0 1x\r\ntouch a\r\nstats x\r\n",
     BAD BAD BAD BAD BAD BAD BAD BAD},
    {"refused values are skipped", "set a x 0 5\r\nget b\r\nset a 0 z 5\r\nquit!\r\nget a\r\n", BAD BAD "END\r\n"},
    {"bad data chunk", "set a 0 0 3\r\nlonger\r\nget a\r\n", "CLIENT_ERROR bad data chunk\r\nEND\r\n"},
    {"key of 250 bytes", "set " KEY250 " 0 0 1\r\nk\r\nget " KEY250 "\r\n",
     "STORED\r\nVALUE " KEY250 " 0 1\r\nk\r\nEND\r\n"},
    {"key of 251 bytes", "set " KEY250 "1 0 0 1\r\nk\r\nget " KEY250 "1\r\ndelete " KEY250 "1\r\n", BAD BAD BAD},
    {"session",
     "session set s ab\r\nsession append s cd\r\nsession get s\r\nsession get t\r\nsession clear\r\nsession "
     "get s\r\n",
     "LENGTH 2\r\nLENGTH 4\r\nVALUE s 0 4\r\nabcd\r\nEND\r\nEND\r\nOK\r\nEND\r\n"},
    {"wrong session", "session\r\nsession get\r\nsession put a b\r\n", BAD BAD BAD},
    {"flush", "set a 0 0 1\r\n1\r\nflush_all\r\nget a\r\n", "STORED\r\nOK\r\nEND\r\n"},
};

static void check_talk(const char *name, const char *sent, size_t sent_size, const char *expected, size_t piece) {
    char got[8192];
    size_t size = strlen(expected);
    int client = connect_to_server();
    send_all(client, sent, sent_size, piece);
    shutdown(client, SHUT_WR);
    size_t received = receive(client, got, sizeof got);
    if (received != size || memcmp(got, expected, size) != 0)
        fail("%s (in pieces of %zu): got '%.*s'", name, piece, (int)received, got);
    close(client);
}

/* Each talk on a connection of its own, sent at once, byte by byte, and in pieces of three bytes. */
static void check_talks(void) {
    for (size_t piece = 0; piece <= 3; piece += piece + 1)
        for (size_t i = 0; i < sizeof talks / sizeof talks[0]; i++)
            check_talk(talks[i].name, talks[i].sent, strlen(talks[i].sent), talks[i].expected, piece);
}

static void check_malformed(void) {
    static char line[20000], words[512] = "get";
    static const char nul[] = "get a\0b\r\nversionx\r\n";
    memset(line, 'x', sizeof line);
    memcpy(line + sizeof line - 14, "x\r\nversionx\r\n", 13);
    check_talk("long line", line, sizeof line - 1, "CLIENT_ERROR line too long\r\nERROR\r\n", 0);
    check_talk("long line", line, sizeof line - 1, "CLIENT_ERROR line too long\r\nERROR\r\n", 1000);
    for (int i = 0; i < 66; i++)
        strcat(words, " k");
    strcat(words, "\r\n");
    check_talk("many words", words, strlen(words), "CLIENT_ERROR too many words\r\n", 0);
    check_talk("NUL in a line", nul, sizeof nul - 1, "ERROR\r\nERROR\r\n", 0);
    check_talk("stream ends within a line", "set a 0 0", 9, "", 0);
    check_talk("stream ends within a value", "set a 0 0 100\r\nabc", 18, "", 0);
    /* Noise of all lengths, line ends included: the server may answer what it likes, and must live. */
    uint32_t noise = 1;
    for (int round = 0; round < 200; round++) {
        int client = connect_to_server();
        for (size_t i = 0; i < sizeof line; i++) {
            noise = noise * 1664525 + 1013904223;
            line[i] = "get set append 0123456789 -\r\n\r\n session incr \0\xff"[(noise >> 16) % 48];
        }
        send_all(client, line, noise % sizeof line, 0);
        shutdown(client, SHUT_WR);
        while (receive(client, line, sizeof line))
            ;
        close(client);
    }
}

static void check_large(void) {
    size_t size = 1024 * 1024;
    char *value = malloc(size + 64), *got = malloc(size + 64), head[64];
    if (!value || !got)
        give_up("memory");
    for (size_t i = 0; i < size; i++)
        value[i] = (char)(i * 31 + i / 997);
    int client = connect_to_server();
    int head_size = snprintf(head, sizeof head, "set large 0 0 %zu\r\n", size);
    memcpy(value + size, "\r\nget large\r\n", 13);
    send_all(client, head, (size_t)head_size, 0);
    send_all(client, value, size + 13, 0);
    head_size = snprintf(head, sizeof head, "STORED\r\nVALUE large 0 %zu\r\n", size);
    size_t whole = (size_t)head_size + size + 7;
    if (receive(client, got, whole) != whole || memcmp(got, head, (size_t)head_size) != 0 ||
        memcmp(got + head_size, value, size) != 0)
        fail("a value of 1 MiB comes back otherwise");
    close(client);
    /* Refused with its data block skipped, and the old value gone. */
    client = connect_to_server();
    head_size = snprintf(head, sizeof head, "set large 0 0 %zu\r\n", size + 1);
    memmove(value + size + 1, value + size, 13);
    value[size] = 'x';
    send_all(client, head, (size_t)head_size, 0);
    send_all(client, value, size + 14, 0);
    const char *answer = "SERVER_ERROR object too large for cache\r\nEND\r\n";
    if (receive(client, got, strlen(answer)) != strlen(answer) || memcmp(got, answer, strlen(answer)) != 0)
        fail("a value above the limit: got '%.80s'", got);
    close(client);
    free(value);
    free(got);
}

/* One asks for 1 GiB of replies and does not read; others go on; then it reads all. */
static void check_slow_reader(void) {
    enum { VALUE = 1000000, GETS = 1000 };
    static char bytes[VALUE + 64];
    int slow = connect_to_server();
    memset(bytes, 's', sizeof bytes);
    send_all(slow, "set slow 0 0 1000000\r\n", 22, 0);
    memcpy(bytes + VALUE, "\r\n", 2);
    send_all(slow, bytes, VALUE + 2, 0);
    for (int i = 0; i < GETS; i++)
        send_all(slow, "get slow\r\n", 10, 0);
    for (int i = 0; i < 8; i++)
        check_talk("while another does not read", "set z 0 0 1\r\n1\r\nget z\r\n", 23,
                   "STORED\r\nVALUE z 0 1\r\n1\r\nEND\r\n", 0);
    size_t whole = 8, each = strlen("VALUE slow 0 1000000\r\n") + VALUE + 7, got = 0;
    whole += GETS * each;
    while (got < whole) {
        size_t part = receive(slow, bytes, whole - got < sizeof bytes ? whole - got : sizeof bytes);
        if (!part)
            break;
        got += part;
    }
    if (got != whole)
        fail("a slow reader got %zu of %zu bytes", got, whole);
    close(slow);
}

/* A connection to a server that has no other. */
static int connect_alone(void) {
    int client = connect_to_server();
    for (int waited = 0; waited < WAIT_MS; waited += 20) {
        char got[4096];
        size_t size = 0;
        send_all(client, "stats\r\n", 7, 0);
        while (size < 5 || memcmp(got + size - 5, "END\r\n", 5) != 0)
            if (size == sizeof got - 1 || receive(client, got + size++, 1) != 1)
                give_up("stats");
        got[size] = '\0';
        const char *count = strstr(got, "STAT curr_connections ");
        if (count && strtol(count + 22, NULL, 10) == 1)
            return client;
        usleep(20000);
    }
    fail("closed connections are still counted");
    return client;
}

static void check_limits(void) {
    enum { MAX = CONNECTION_MAX };
    int clients[MAX];
    const char *line = "SERVER_ERROR too many connections\r\n";
    char got[64];
    clients[0] = connect_alone();
    for (int i = 1; i < MAX; i++)
        clients[i] = connect_to_server();
    int extra = connect_to_server();
    if (receive(extra, got, strlen(line)) != strlen(line) || memcmp(got, line, strlen(line)) != 0)
        fail("a connection above the limit is not refused");
    expect_end(extra, "a refused connection");
    for (int i = 1; i < MAX; i++)
        close(clients[i]);
    /* The first one, which has sent half a line, is closed for its silence. */
    send_all(clients[0], "get ", 4, 0);
    expect_end(clients[0], "an idle connection");
}

static void check_load(char *path) {
    char number[8];
    snprintf(number, sizeof number, "%u", port);
    char *words[][16] = {
        {path, "--port", number, "--requests", "60000", "--keys", "3000", "--reconnect", "300", "--threads", "2", NULL},
        {path, "--port", number, "--requests", "3000", "--chop", "40", "--connections", "8", "--large-max", "5000",
         NULL},
        {path, "--port", number, "--seconds", "0.5", "--rate", "2000", "--keys", "1000", "--json", NULL},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        int status;
        pid_t load = fork();
        if (load == 0) {
            execv(path, words[i]);
            _exit(127);
        }
        if (load < 0 || waitpid(load, &status, 0) != load || status != 0)
            fail("the load generator's run %zu", i);
    }
}

int main(int count, char **words) {
    int status;
    if (count < 2) {
        fprintf(stderr, "usage: cached-check path/of/cached [path/of/cachedload]\n");
        return 2;
    }
    start_server(words[1]);
    check_talks();
    check_malformed();
    check_large();
    check_slow_reader();
    check_limits();
    if (count > 2)
        check_load(words[2]);
    kill(server, SIGTERM);
    if (waitpid(server, &status, 0) != server || status != 0)
        fail("the server ends with status %#x", (unsigned)status);
    printf(failures ? "%d checks failed\n" : "all checks passed\n", failures);
    return failures != 0;
}
