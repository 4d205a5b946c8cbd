/* cached_session.h -- what the server remembers of one connection: small strings that grow with use.
 *
 * PURPOSE     The peer's name, a trail of its last requests and named fields of its own. All of them are
 * separate blocks that grow by realloc, live among the requests' blocks and are freed with the connection.
 *
 * OWNS        Everything in it; used by the connection's worker alone.
 */
#ifndef CACHED_SESSION_H
#define CACHED_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SESSION_FIELDS_MAX      16
#define SESSION_FIELD_MAX_BYTES 4096

/* A string with its capacity; text is NULL while it is empty. */
struct text {
    char *text;
    size_t size;
    size_t capacity;
};

struct session;

/* NULL without memory. */
struct session *session_create(uint64_t id, const char *peer);
void session_destroy(struct session *session);

/* Adds a request to the trail. The trail starts anew when it is full; without memory the request is not
 * noted. */
void session_note(struct session *session, const char *verb, const char *key);

/* The named field, made if `make` is set; NULL if absent, if there are too many or without memory. */
struct text *session_field(struct session *session, const char *name, bool make);

/* Empties the session but for the peer's name. */
void session_clear(struct session *session);

/* Grows by half as needed. False without memory, the text as it was. */
bool text_append(struct text *text, const char *more, size_t size);
void text_clear(struct text *text);

#endif
