/* cached_session.c -- see cached_session.h. */
#include "cached_session.h"

#include <stdlib.h>
#include <string.h>

#define TRAIL_MAX_BYTES  1024
#define TEXT_FIRST_BYTES 24

struct field {
    char *name;
    struct text text;
};

struct session {
    uint64_t id;
    char *peer;
    struct text trail;
    struct field *fields;
    size_t field_count;
};

bool text_append(struct text *text, const char *more, size_t size) {
    if (size == 0)
        return true;
    if (text->capacity - text->size < size) {
        size_t capacity = text->capacity + text->capacity / 2;
        if (capacity < TEXT_FIRST_BYTES)
            capacity = TEXT_FIRST_BYTES;
        if (capacity < text->size + size)
            capacity = text->size + size;
        char *grown = realloc(text->text, capacity);
        if (!grown)
            return false;
        text->text = grown;
        text->capacity = capacity;
    }
    memcpy(text->text + text->size, more, size);
    text->size += size;
    return true;
}

void text_clear(struct text *text) {
    free(text->text);
    memset(text, 0, sizeof *text);
}

struct session *session_create(uint64_t id, const char *peer) {
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    session->id = id;
    session->peer = strdup(peer);
    if (!session->peer) {
        free(session);
        return NULL;
    }
    return session;
}

void session_clear(struct session *session) {
    text_clear(&session->trail);
    for (size_t i = 0; i < session->field_count; i++) {
        free(session->fields[i].name);
        text_clear(&session->fields[i].text);
    }
    free(session->fields);
    session->fields = NULL;
    session->field_count = 0;
}

void session_destroy(struct session *session) {
    session_clear(session);
    free(session->peer);
    free(session);
}

void session_note(struct session *session, const char *verb, const char *key) {
    if (session->trail.size > TRAIL_MAX_BYTES)
        text_clear(&session->trail);
    size_t size = session->trail.size;
    if (!text_append(&session->trail, verb, strlen(verb)) || !text_append(&session->trail, ":", 1) ||
        !text_append(&session->trail, key, strlen(key)) || !text_append(&session->trail, " ", 1))
        session->trail.size = size;
}

struct text *session_field(struct session *session, const char *name, bool make) {
    for (size_t i = 0; i < session->field_count; i++)
        if (strcmp(session->fields[i].name, name) == 0)
            return &session->fields[i].text;
    if (!make || session->field_count == SESSION_FIELDS_MAX)
        return NULL;
    char *copy = strdup(name);
    struct field *more = copy ? realloc(session->fields, (session->field_count + 1) * sizeof *more) : NULL;
    if (!more) {
        free(copy);
        return NULL;
    }
    session->fields = more;
    more[session->field_count] = (struct field){.name = copy};
    return &more[session->field_count++].text;
}
