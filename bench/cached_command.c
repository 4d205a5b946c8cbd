/* cached_command.c -- see cached_command.h.
 *
 * A request is an object of its own with a string of its own for each word, as in servers that keep requests
 * for logging, queueing or retry: about one malloc and free a word, one for the request, and those of the
 * reply.
 */
#include "cached_command.h"

#include "cached_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 66 /* get with 64 keys, and noreply */

struct request {
    uint32_t count;
    bool is_append;
    char *words[];
};

static void request_free(struct request *request) {
    for (uint32_t i = 0; i < request->count; i++)
        free(request->words[i]);
    free(request);
}

void command_forget(struct connection *connection) {
    if (connection->request)
        request_free(connection->request);
    connection->request = NULL;
}

static size_t word_size(const char *line, size_t size) {
    size_t i = 0;
    while (i < size && line[i] != ' ')
        i++;
    return i;
}

enum parse { PARSE_OK, PARSE_TOO_MANY, PARSE_NO_MEMORY };

/* Cuts the line at its spaces. */
static enum parse request_parse(const char *line, size_t size, struct request **result) {
    uint32_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += line[i] != ' ' && (i == 0 || line[i - 1] == ' ');
    if (count > WORDS_MAX)
        return PARSE_TOO_MANY;
    struct request *request = malloc(sizeof *request + count * sizeof request->words[0]);
    if (!request)
        return PARSE_NO_MEMORY;
    *request = (struct request){.count = 0};
    for (size_t i = 0; i < size;) {
        size_t length = word_size(line + i, size - i);
        if (length) {
            char *word = malloc(length + 1);
            if (!word) {
                request_free(request);
                return PARSE_NO_MEMORY;
            }
            memcpy(word, line + i, length);
            word[length] = '\0';
            request->words[request->count++] = word;
        }
        i += length + 1;
    }
    *result = request;
    return PARSE_OK;
}

static bool parse_unsigned(const char *word, uint64_t max, uint64_t *value) {
    char *end;
    errno = 0;
    unsigned long long number = strtoull(word, &end, 10);
    *value = number;
    return word[0] >= '0' && word[0] <= '9' && *end == '\0' && errno == 0 && number <= max;
}

/* The time of expiry on clock_ms() from a word with seconds from now. */
static bool parse_expiry(const char *word, uint64_t *expires_ms) {
    char *end;
    errno = 0;
    long seconds = strtol(word, &end, 10);
    if (end == word || *end != '\0' || errno != 0 || seconds > INT32_MAX)
        return false;
    *expires_ms = seconds == 0 ? 0 : seconds < 0 ? 1 : clock_ms() + (uint64_t)seconds * 1000;
    return true;
}

static bool key_fits(const char *key) { return strlen(key) <= ITEM_KEY_MAX_BYTES; }

static void reply_bad_format(struct connection *connection) {
    connection_reply(connection, "CLIENT_ERROR bad command line format\r\n");
}

static void reply_answer(struct connection *connection, enum store_answer answer, const char *ok, const char *missing) {
    switch (answer) {
    case STORE_OK:
        connection_reply(connection, ok);
        break;
    case STORE_MISSING:
        connection_reply(connection, missing);
        break;
    case STORE_TOO_LARGE:
        connection_reply(connection, "SERVER_ERROR object too large for cache\r\n");
        break;
    case STORE_NO_MEMORY:
        connection_reply(connection, "SERVER_ERROR out of memory storing object\r\n");
        break;
    case STORE_NOT_A_NUMBER:
        connection_reply(connection, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
        break;
    }
}

/* ---- the commands: each is called with as many words as the table at the end says ---- */

static void run_get(struct connection *connection, struct request *request) {
    for (uint32_t i = 1; i < request->count; i++) {
        if (!key_fits(request->words[i])) {
            reply_bad_format(connection);
            return;
        }
    }
    for (uint32_t i = 1; i < request->count; i++) {
        const char *key = request->words[i];
        struct item *item = store_get(connection->server->store, key, strlen(key));
        if (!item)
            continue;
        connection_replyf(connection, "VALUE %s %u %u\r\n", key, item->flags, item->value_size);
        output_add_value(&connection->output, item);
        connection_reply(connection, "\r\n");
    }
    connection_reply(connection, "END\r\n");
}

/* set and append: makes the item that the data block goes into, or has the block skipped. */
static void run_store(struct connection *connection, struct request *request) {
    const char *key = request->words[1];
    uint64_t flags, expires_ms, size;
    if (!parse_unsigned(request->words[4], UINT64_MAX / 2, &size)) {
        reply_bad_format(connection);
        return;
    }
    connection->skip_bytes = size + 2;
    if (!key_fits(key) || !parse_unsigned(request->words[2], UINT32_MAX, &flags) ||
        !parse_expiry(request->words[3], &expires_ms)) {
        reply_bad_format(connection);
        return;
    }
    struct item *item = NULL;
    bool fits = size <= connection->server->value_max_bytes;
    if (fits)
        item = item_create(key, strlen(key), size, (uint32_t)flags, expires_ms);
    if (!item) {
        /* The old value must not outlive the client's wish to replace it. */
        store_delete(connection->server->store, key, strlen(key));
        reply_answer(connection, fits ? STORE_NO_MEMORY : STORE_TOO_LARGE, "", "");
        return;
    }
    connection->skip_bytes = 0;
    connection->received = 0;
    connection->incoming = item;
    connection->request = request;
    request->is_append = request->words[0][0] == 'a';
}

void command_finish(struct connection *connection, struct item *item) {
    struct store *store = connection->server->store;
    if (!connection->request->is_append) {
        reply_answer(connection, store_set(store, item), "STORED\r\n", "");
        return;
    }
    enum store_answer answer = store_append(store, item->bytes, item->key_size, item_value(item), item->value_size);
    item_drop(item);
    reply_answer(connection, answer, "STORED\r\n", "NOT_STORED\r\n");
}

static void run_count(struct connection *connection, struct request *request) {
    const char *key = request->words[1];
    uint64_t delta, result;
    if (!key_fits(key) || !parse_unsigned(request->words[2], UINT64_MAX, &delta)) {
        reply_bad_format(connection);
        return;
    }
    bool down = request->words[0][0] == 'd';
    enum store_answer answer = store_count(connection->server->store, key, strlen(key), delta, down, &result);
    if (answer == STORE_OK)
        connection_replyf(connection, "%llu\r\n", (unsigned long long)result);
    else
        reply_answer(connection, answer, "", "NOT_FOUND\r\n");
}

static void run_touch(struct connection *connection, struct request *request) {
    const char *key = request->words[1];
    uint64_t expires_ms;
    if (!key_fits(key) || !parse_expiry(request->words[2], &expires_ms)) {
        reply_bad_format(connection);
        return;
    }
    reply_answer(connection, store_touch(connection->server->store, key, strlen(key), expires_ms), "TOUCHED\r\n",
                 "NOT_FOUND\r\n");
}

static void run_delete(struct connection *connection, struct request *request) {
    const char *key = request->words[1];
    if (key_fits(key))
        reply_answer(connection, store_delete(connection->server->store, key, strlen(key)), "DELETED\r\n",
                     "NOT_FOUND\r\n");
    else
        reply_bad_format(connection);
}

static void session_write(struct connection *connection, const char *name, const char *word, bool anew) {
    struct text *text = session_field(connection->session, name, true);
    size_t size = strlen(word);
    if (text && anew)
        text_clear(text);
    if (text && text->size + size > SESSION_FIELD_MAX_BYTES)
        connection_reply(connection, "CLIENT_ERROR field too long\r\n");
    else if (text && text_append(text, word, size))
        connection_replyf(connection, "LENGTH %zu\r\n", text->size);
    else
        connection_reply(connection, "SERVER_ERROR no room for field\r\n");
}

static void run_session(struct connection *connection, struct request *request) {
    const char *verb = request->words[1], *name = request->count > 2 ? request->words[2] : "";
    if (!key_fits(name)) {
        reply_bad_format(connection);
    } else if (request->count == 4 && strcmp(verb, "set") == 0) {
        session_write(connection, name, request->words[3], true);
    } else if (request->count == 4 && strcmp(verb, "append") == 0) {
        session_write(connection, name, request->words[3], false);
    } else if (request->count == 3 && strcmp(verb, "get") == 0) {
        struct text *text = session_field(connection->session, name, false);
        if (text) {
            connection_replyf(connection, "VALUE %s 0 %zu\r\n", name, text->size);
            output_add(&connection->output, text->text, text->size);
            connection_reply(connection, "\r\n");
        }
        connection_reply(connection, "END\r\n");
    } else if (request->count == 2 && strcmp(verb, "clear") == 0) {
        session_clear(connection->session);
        connection_reply(connection, "OK\r\n");
    } else {
        reply_bad_format(connection);
    }
}

static void run_stats(struct connection *connection, struct request *request) {
    (void)request;
    char text[4096];
    output_add(&connection->output, text, report_stats(connection->server, text, sizeof text));
}

static void run_flush_all(struct connection *connection, struct request *request) {
    (void)request;
    store_flush(connection->server->store);
    connection_reply(connection, "OK\r\n");
}

static void run_version(struct connection *connection, struct request *request) {
    (void)request;
    connection_replyf(connection, "VERSION cached on %.256s\r\n", report_malloc());
}

static void run_quit(struct connection *connection, struct request *request) {
    (void)request;
    connection->closing = true;
}

static const struct command {
    const char *name;
    uint32_t words_min; /* the name included, noreply not */
    uint32_t words_max;
    bool may_be_quiet;
    void (*run)(struct connection *connection, struct request *request);
} commands[] = {
    {"get", 2, WORDS_MAX - 1, false, run_get}, {"set", 5, 5, true, run_store},        {"append", 5, 5, true, run_store},
    {"incr", 3, 3, true, run_count},           {"decr", 3, 3, true, run_count},       {"touch", 3, 3, true, run_touch},
    {"delete", 2, 2, true, run_delete},        {"session", 2, 4, false, run_session}, {"stats", 1, 1, false, run_stats},
    {"flush_all", 1, 1, true, run_flush_all},  {"version", 1, 1, false, run_version}, {"quit", 1, 1, false, run_quit},
};

static void dispatch(struct connection *connection, struct request *request) {
    for (size_t i = 0; request->count && i < sizeof commands / sizeof commands[0]; i++) {
        const struct command *command = &commands[i];
        if (strcmp(request->words[0], command->name) != 0)
            continue;
        uint32_t count = request->count;
        if (command->may_be_quiet && count > 1 && strcmp(request->words[count - 1], "noreply") == 0) {
            connection->quiet = true;
            count--;
        }
        session_note(connection->session, command->name, count > 1 ? request->words[1] : "");
        if (count < command->words_min || count > command->words_max)
            reply_bad_format(connection);
        else
            command->run(connection, request);
        return;
    }
    connection_reply(connection, "ERROR\r\n");
}

void command_run(struct connection *connection, const char *line, size_t size) {
    struct request *request = NULL;
    connection->quiet = false;
    worker_count_command();
    if (memchr(line, '\0', size)) {
        connection_reply(connection, "ERROR\r\n");
        return;
    }
    switch (request_parse(line, size, &request)) {
    case PARSE_TOO_MANY:
        connection_reply(connection, "CLIENT_ERROR too many words\r\n");
        return;
    case PARSE_NO_MEMORY:
        /* A data block that follows could not be told from commands. */
        connection_reply(connection, "SERVER_ERROR out of memory\r\n");
        connection->closing = true;
        return;
    case PARSE_OK:
        break;
    }
    dispatch(connection, request);
    if (connection->request != request)
        request_free(request);
}
