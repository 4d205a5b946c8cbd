/* cached_client.h -- one connection of the load generator: sends batches of requests and verifies the
 * replies.
 *
 * PURPOSE     A client sends `pipeline` requests at once, takes all their replies, and goes on. It alone
 * writes the keys that are congruent to its index, so it knows what each of them must hold if it holds
 * anything (the server may have forgotten it); others' keys are verified by their pattern.
 *
 * LIFETIME    Used by one thread of the load generator alone. Outlives its TCP connection, which may be made
 * anew.
 */
#ifndef CACHED_CLIENT_H
#define CACHED_CLIENT_H

#include "cached_load.h"

struct key_state {
    uint32_t version;
    uint16_t segments;
    bool present;
};

/* A request that waits for its reply, with what the reply has to be. */
struct pending {
    enum request_type { GET_OWN, GET_OTHER, SET, APPEND, DELETE, INCR, INCR_START, SESSION_WRITE, SESSION_GET } type;
    uint32_t key;
    uint32_t version;
    uint32_t segments; /* of the value in GET_OWN: 0 if there must be none */
    uint64_t number;   /* INCR: the result; SESSION_*: the size */
};

struct buffer {
    char *bytes;
    size_t begin;
    size_t end;
    size_t capacity;
};

struct client {
    /* constant after init */
    const struct settings *settings;
    struct tally *tally; /* of this client's thread */
    uint32_t index;
    uint64_t quota; /* requests; 0: no bound */
    /* the connection */
    int socket; /* -1: closed for good */
    uint32_t interest;
    uint32_t served; /* since it was made */
    struct buffer outgoing;
    struct buffer incoming;
    /* the batch */
    struct pending *pending;
    uint32_t pending_first;
    uint32_t pending_count;
    uint64_t due_ns;  /* when the next batch is to be sent, if there is a rate */
    uint64_t sent_ns; /* when the present one was sent, or was due */
    /* what the server must hold */
    struct key_state *keys;
    uint64_t counter;
    bool counter_known;
    uint32_t basket_size; /* of the session's field; 0: to be set */
    struct random random;
    uint64_t done;
};

/* False without memory or connection; `what` says which. */
bool client_open(struct client *client, const struct settings *settings, struct tally *tally, uint32_t index,
                 const char **what);
void client_close(struct client *client);

/* Makes a batch and sends what the socket takes, when `progress` of the load is done. The client is closed on
 * errors. */
void client_start_batch(struct client *client, double progress);

/* Sends and receives what can be. True when the batch is complete or the client closed. */
bool client_go_on(struct client *client);

/* Makes the TCP connection anew if its time has come; the descriptor changes then. False if that fails. */
bool client_renew(struct client *client, bool *renewed);

/* ---- cached_replies.c ---- */

/* Takes the complete replies out of client->incoming. False if one is not as the protocol has it. */
bool replies_take(struct client *client);

/* Counts an error, and keeps the first one's text. */
void replies_report_error(struct client *client, const char *what, const char *line);

/* The first thing that went wrong in any client, or NULL. */
const char *replies_first_error(void);

/* The letter at this place of the text that session fields are prefixes of. */
char basket_letter(uint32_t place);

#endif
