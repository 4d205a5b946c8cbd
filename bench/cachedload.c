/* cachedload.c -- the load generator of cached: requests over many connections, every value that comes back
 * verified.
 *
 *   main              options, threads, the report
 *   cached_client     a connection: batches of requests;   cached_replies: what must come back
 *   cached_load       what is asked: mix, keys, sizes, and the pattern that values are made of
 *
 * A request's latency runs from the sending of its batch (with --rate: from the time when it was due) to the
 * arrival of its reply. Ends with status 1 if a value was wrong, a reply unexpected or the server silent.
 */
#include "cached_client.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS_PER_TURN 64
#define SILENCE_NS      UINT64_C(10000000000) /* a server that answers nobody for so long is given up */

struct thread {
    /* constant after init */
    const struct settings *settings;
    uint32_t index;
    uint64_t start_ns;
    struct client *clients; /* of all threads; this one has index, index + threads, ... */
    int epoll;
    int timer;
    pthread_t thread;
    /* this thread only */
    uint32_t open;
    uint32_t waiting;  /* clients with a batch out */
    uint64_t heard_ns; /* when a reply came last, or the only batch out was sent */
    struct tally tally;
};

static void die(const char *what, const char *why) {
    fprintf(stderr, "cachedload: %s: %s\n", what, why);
    exit(1);
}

static void watch(struct thread *thread, struct client *client, int verb) {
    uint32_t interest = EPOLLIN | (client->outgoing.begin < client->outgoing.end ? (uint32_t)EPOLLOUT : 0);
    struct epoll_event event = {.events = interest, .data.ptr = client};
    if (verb == EPOLL_CTL_MOD && interest == client->interest)
        return;
    client->interest = interest;
    if (epoll_ctl(thread->epoll, verb, client->socket, &event) != 0)
        die("epoll_ctl", strerror(errno));
}

/* UINT64_MAX if the load is bounded by its requests. */
static uint64_t end_ns(const struct thread *thread) {
    double seconds = thread->settings->seconds;
    return seconds > 0 ? thread->start_ns + (uint64_t)(seconds * 1e9) : UINT64_MAX;
}

static double progress_at(const struct thread *thread, uint64_t now) {
    const struct settings *settings = thread->settings;
    double progress = settings->seconds > 0
                          ? (double)(now - thread->start_ns) / (settings->seconds * 1e9)
                          : (double)thread->tally.requests * settings->threads / (double)settings->requests;
    return progress < 1 ? progress : 1;
}

/* With a rate: the time from one batch to the next, over all connections. */
static uint64_t batch_ns(const struct settings *settings) {
    return settings->rate ? (uint64_t)1000000000 * settings->pipeline / settings->rate : 0;
}

/* Starts the client's next batch, unless it is not due yet or the client is done. */
static void next_batch(struct thread *thread, struct client *client, uint64_t now) {
    const struct settings *settings = thread->settings;
    bool renewed = false;
    if (client->socket >= 0 && (now >= end_ns(thread) || (client->quota && client->done == client->quota))) {
        close(client->socket);
        client->socket = -1;
    }
    if (client->socket >= 0 && settings->rate && now < client->due_ns)
        return;
    if (client->socket >= 0 && !client_renew(client, &renewed))
        die("cannot connect again", strerror(errno));
    if (client->socket >= 0) {
        if (renewed)
            watch(thread, client, EPOLL_CTL_ADD);
        client_start_batch(client, progress_at(thread, now));
        if (client->socket >= 0 && thread->waiting++ == 0)
            thread->heard_ns = now;
        client->due_ns += batch_ns(settings) * settings->connections;
    }
    if (client->socket >= 0)
        watch(thread, client, EPOLL_CTL_MOD);
    else
        thread->open--;
}

/* With a rate: starts what is due, and sets the timer for what is next. */
static void start_due(struct thread *thread) {
    const struct settings *settings = thread->settings;
    uint64_t next = end_ns(thread), now = now_ns();
    for (uint32_t i = thread->index; i < settings->connections; i += settings->threads) {
        struct client *client = &thread->clients[i];
        if (client->socket < 0 || client->pending_count)
            continue;
        if (client->due_ns <= now || end_ns(thread) <= now)
            next_batch(thread, client, now);
        else if (client->due_ns < next)
            next = client->due_ns;
    }
    if (next == UINT64_MAX)
        return;
    struct itimerspec time = {.it_value = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)}};
    timerfd_settime(thread->timer, TFD_TIMER_ABSTIME, &time, NULL);
}

static void *run_thread(void *argument) {
    struct thread *thread = argument;
    const struct settings *settings = thread->settings;
    uint64_t ticks;
    for (uint32_t i = thread->index; i < settings->connections; i += settings->threads, thread->open++) {
        thread->clients[i].due_ns = thread->start_ns + i * batch_ns(settings);
        watch(thread, &thread->clients[i], EPOLL_CTL_ADD);
    }
    for (uint32_t i = thread->index; !settings->rate && i < settings->connections; i += settings->threads)
        next_batch(thread, &thread->clients[i], now_ns());
    while (thread->open) {
        if (settings->rate)
            start_due(thread);
        struct epoll_event events[EVENTS_PER_TURN];
        int count = epoll_wait(thread->epoll, events, EVENTS_PER_TURN, 100);
        uint64_t now = now_ns();
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (!client) {
                if (read(thread->timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                    die("timer", strerror(errno));
                continue;
            }
            thread->heard_ns = now;
            if (client_go_on(client)) {
                thread->waiting--;
                next_batch(thread, client, now_ns());
            } else {
                watch(thread, client, EPOLL_CTL_MOD);
            }
        }
        if (thread->waiting && now > thread->heard_ns && now - thread->heard_ns > SILENCE_NS)
            die("the server is silent", "no reply for 10 s");
    }
    return NULL;
}

/* ---- options ---- */

static void usage(FILE *out) {
    fprintf(out, "usage: cachedload --port N [options]        a load for cached; verifies what it reads back\n"
                 "  --threads N --connections N --pipeline N    2, 32 and 8; pipeline: requests sent at once\n"
                 "  --seconds N | --requests N                  5 seconds\n"
                 "  --rate N              requests a second in all; 0: as fast as replies come (0)\n"
                 "  --keys N --seed N     200000 and 1\n"
                 "  --mix LIST            get=55,set=30,append=5,delete=4,incr=2,session=4\n"
                 "  --median N --sigma X  bytes of values, log-normal (200, 1.0)\n"
                 "  --large X             percent of values from 4 KiB to --large-max, log-uniform (1)\n"
                 "  --large-max N         bytes (65536)\n"
                 "  --shift X             small values grow by this factor over the run (1)\n"
                 "  --expire P:S          P percent of values expire after S seconds (25:2)\n"
                 "  --reconnect N         a connection is made anew after N requests; 0: never (0)\n"
                 "  --chop N              sends and receives at most N bytes at once; 0: no bound (0)\n"
                 "  --json                one JSON object instead of lines\n");
}

static double parse_number(const char *text, double min, double max, const char *name) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= min && value <= max)) {
        fprintf(stderr, "cachedload: --%s wants a number from %.0f to %.0f, not '%s'\n", name, min, max, text);
        exit(2);
    }
    return value;
}

static void parse_mix(char *list, uint32_t *mix) {
    memset(mix, 0, KINDS * sizeof *mix);
    for (char *part = strtok(list, ","); part; part = strtok(NULL, ",")) {
        char *value = strchr(part, '=');
        int kind = 0;
        if (value)
            *value++ = '\0';
        while (kind < KINDS && strcmp(part, kind_names[kind]) != 0)
            kind++;
        if (!value || kind == KINDS) {
            fprintf(stderr, "cachedload: --mix wants names and weights as in get=55,set=30, not '%s'\n", part);
            exit(2);
        }
        mix[kind] = (uint32_t)parse_number(value, 0, 10000, "mix");
    }
}

static void parse_expire(char *text, struct settings *settings) {
    char *colon = strchr(text, ':');
    if (colon)
        *colon++ = '\0';
    settings->expire_percent = (uint32_t)parse_number(text, 0, 100, "expire");
    settings->expire_seconds = colon ? (uint32_t)parse_number(colon, 1, 1e6, "expire") : 2;
}

static struct settings settings = {
    .threads = 2,
    .connections = 32,
    .pipeline = 8,
    .keys = 200000,
    .seed = 1,
    .mix = {55, 30, 5, 4, 2, 4},
    .median_bytes = 200,
    .sigma = 1,
    .large_percent = 1,
    .large_max_bytes = 65536,
    .shift = 1,
    .expire_percent = 25,
    .expire_seconds = 2,
};

static const struct {
    const char *name;
    double min;
    double max;
    uint32_t *whole; /* or */
    double *real;
} numbers[] = {
    {"port", 1, 65535, &settings.port, NULL},
    {"threads", 1, 1024, &settings.threads, NULL},
    {"connections", 1, 100000, &settings.connections, NULL},
    {"pipeline", 1, 10000, &settings.pipeline, NULL},
    {"seconds", 0.01, 1e6, NULL, &settings.seconds},
    {"requests", 1, 4e9, &settings.requests, NULL},
    {"rate", 0, 1e9, &settings.rate, NULL},
    {"keys", 1, 1e9, &settings.keys, NULL},
    {"seed", 0, 4e9, &settings.seed, NULL},
    {"median", 1, 1e6, NULL, &settings.median_bytes},
    {"sigma", 0, 10, NULL, &settings.sigma},
    {"large", 0, 100, NULL, &settings.large_percent},
    {"large-max", 4096, LOAD_VALUE_MAX / 2.0, &settings.large_max_bytes, NULL},
    {"shift", 0.01, 1000, NULL, &settings.shift},
    {"reconnect", 0, 1e9, &settings.reconnect, NULL},
    {"chop", 0, 1e6, &settings.chop, NULL},
};

enum { NUMBERS = sizeof numbers / sizeof numbers[0], MIX = NUMBERS, EXPIRE, JSON, HELP, NAMES };

static void parse_options(int count, char **words, bool *json) {
    struct option names[NAMES + 1] = {[MIX] = {"mix", required_argument, NULL, MIX},
                                      [EXPIRE] = {"expire", required_argument, NULL, EXPIRE},
                                      [JSON] = {"json", no_argument, NULL, JSON},
                                      [HELP] = {"help", no_argument, NULL, HELP}};
    for (int i = 0; i < NUMBERS; i++)
        names[i] = (struct option){numbers[i].name, required_argument, NULL, i};
    for (int at; (at = getopt_long(count, words, "", names, NULL)) != -1;) {
        if (at == MIX) {
            parse_mix(optarg, settings.mix);
        } else if (at == EXPIRE) {
            parse_expire(optarg, &settings);
        } else if (at == JSON) {
            *json = true;
        } else if (at >= NUMBERS) {
            usage(at == HELP ? stdout : stderr);
            exit(at == HELP ? 0 : 2);
        } else {
            double value = parse_number(optarg, numbers[at].min, numbers[at].max, numbers[at].name);
            if (numbers[at].whole)
                *numbers[at].whole = (uint32_t)value;
            else
                *numbers[at].real = value;
        }
    }
}

/* ---- the report ---- */

static void report(const struct tally *tally, double seconds, bool json) {
    const struct histogram *times = &tally->times;
    const struct {
        const char *name;
        double value;
        int digits;
    } lines[] = {{"seconds", seconds, 3},
                 {"requests", (double)tally->requests, 0},
                 {"requests_per_s", (double)tally->requests / seconds, 0},
                 {"hits", (double)tally->hits, 0},
                 {"misses", (double)tally->misses, 0},
                 {"verified_mib", (double)tally->verified_bytes / 1048576, 1},
                 {"reconnects", (double)tally->reconnects, 0},
                 {"wrong", (double)tally->wrong, 0},
                 {"errors", (double)tally->errors, 0},
                 {"mean_us", times->count ? (double)times->sum_ns / (double)times->count / 1e3 : 0, 1},
                 {"p50_us", (double)histogram_at(times, 0.5) / 1e3, 1},
                 {"p99_us", (double)histogram_at(times, 0.99) / 1e3, 1},
                 {"p999_us", (double)histogram_at(times, 0.999) / 1e3, 1},
                 {"max_us", (double)times->max_ns / 1e3, 1}};
    size_t count = sizeof lines / sizeof lines[0];
    for (size_t i = 0; i < count; i++)
        printf(json ? "%s\"%s\": %.*f%s" : "%s%-16s%.*f%s",
               !json ? ""
               : i   ? ", "
                     : "{",
               lines[i].name, lines[i].digits, lines[i].value,
               !json           ? "\n"
               : i + 1 < count ? ""
                               : "}\n");
}

int main(int count, char **words) {
    static struct tally total;
    bool json = false;
    parse_options(count, words, &json);
    if (settings.seconds <= 0 && !settings.requests)
        settings.seconds = 5;
    if (settings.requests && settings.requests < settings.connections)
        settings.requests = settings.connections;
    if (settings.threads > settings.connections)
        settings.threads = settings.connections;
    settings.keys = (settings.keys / settings.connections + 1) * settings.connections;
    load_prepare(&settings);
    if (optind != count || !settings.port || !settings.mix_sum) {
        usage(stderr);
        exit(2);
    }
    struct client *clients = calloc(settings.connections, sizeof *clients);
    struct thread *threads = calloc(settings.threads, sizeof *threads);
    const char *why = "out of memory";
    if (!clients || !threads)
        die("cannot start", why);
    for (uint32_t i = 0; i < settings.connections; i++)
        if (!client_open(&clients[i], &settings, &threads[i % settings.threads].tally, i, &why))
            die("cannot connect", why);
    uint64_t start = now_ns();
    for (uint32_t i = 0; i < settings.threads; i++) {
        struct thread *thread = &threads[i];
        thread->settings = &settings;
        thread->index = i;
        thread->start_ns = start;
        thread->clients = clients;
        thread->epoll = epoll_create1(EPOLL_CLOEXEC);
        thread->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
        if (thread->epoll < 0 || thread->timer < 0 ||
            epoll_ctl(thread->epoll, EPOLL_CTL_ADD, thread->timer, &event) != 0 ||
            pthread_create(&thread->thread, NULL, run_thread, thread) != 0)
            die("cannot start a thread", strerror(errno));
    }
    for (uint32_t i = 0; i < settings.threads; i++) {
        pthread_join(threads[i].thread, NULL);
        tally_merge(&total, &threads[i].tally);
        close(threads[i].epoll);
        close(threads[i].timer);
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    for (uint32_t i = 0; i < settings.connections; i++)
        client_close(&clients[i]);
    free(clients);
    free(threads);
    report(&total, seconds, json);
    if (replies_first_error())
        fprintf(stderr, "cachedload: first failure: %s\n", replies_first_error());
    return total.wrong || total.errors || !total.requests;
}
