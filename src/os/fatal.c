/* os/fatal.c -- see `os/fatal.h`. */
#include "os/fatal.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "os/os.h"

enum { STDERR = 2 };

static void line_bytes(struct line *l, const char *text, size_t n) {
    size_t room = sizeof l->text - 1 - l->used; /* one byte stays for the newline */
    if (n > room)
        n = room;
    memcpy(l->text + l->used, text, n);
    l->used += n;
}

void line_text(struct line *l, const char *text) { line_bytes(l, text, strlen(text)); }

static void line_digits(struct line *l, uint64_t n, unsigned base) {
    char digits[24];
    size_t at = sizeof digits;
    do {
        digits[--at] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n);
    line_bytes(l, digits + at, sizeof digits - at);
}

void line_number(struct line *l, uint64_t n) { line_digits(l, n, 10); }

void line_pointer(struct line *l, const void *p) {
    line_text(l, "0x");
    line_digits(l, (uintptr_t)p, 16);
}

void line_write(struct line *l, int fd) {
    l->text[l->used++] = '\n';
    os_write(fd, l->text, l->used);
    l->used = 0;
}

static void line_begin(struct line *l, const char *what) {
    l->used = 0;
    line_text(l, "granary: FATAL ");
    line_text(l, what);
}

void line_fatal(struct line *l, const char *what) {
    line_begin(l, what);
    line_text(l, ": ");
}

void line_call(struct line *l, const char *what, const char *call, const void *p) {
    line_fatal(l, what);
    line_text(l, call);
    line_text(l, "(");
    line_pointer(l, p);
}

void gr_abort(void) { abort(); }

GR_NORETURN static void die(struct line *l) {
    line_write(l, STDERR);
    abort();
}

void gr_fatal_pointer(const char *what, const char *call, const void *p, const char *detail) {
    struct line l;
    line_call(&l, what, call, p);
    line_text(&l, ") ");
    line_text(&l, detail);
    die(&l);
}

void gr_fatal_block(const char *what, const char *call, const void *p, size_t bytes) {
    struct line l;
    line_call(&l, what, call, p);
    line_text(&l, ") of a ");
    line_number(&l, bytes);
    line_text(&l, "-byte block");
    die(&l);
}

void gr_fatal_inside(const char *call, const void *p, size_t bytes) {
    struct line l;
    line_call(&l, "invalid free", call, p);
    line_text(&l, ") is not the start of a block (");
    line_number(&l, bytes);
    line_text(&l, "-byte blocks)");
    die(&l);
}

void gr_fatal_size(const char *call, const void *p, size_t size, size_t bytes) {
    struct line l;
    line_call(&l, "wrong size", call, p);
    line_text(&l, ", ");
    line_number(&l, size);
    line_text(&l, ") of a ");
    line_number(&l, bytes);
    line_text(&l, "-byte block");
    die(&l);
}

void gr_fatal_written(const char *what, const void *at, const void *p, size_t bytes) {
    struct line l;
    line_fatal(&l, what);
    line_text(&l, "byte ");
    line_number(&l, (uint64_t)((const char *)at - (const char *)p));
    line_text(&l, " of the free ");
    line_number(&l, bytes);
    line_text(&l, "-byte block ");
    line_pointer(&l, p);
    die(&l);
}

void gr_fatal_memory(size_t bytes, uint64_t in_use, uint64_t limit) {
    struct line l;
    line_begin(&l, "out of memory: ");
    line_number(&l, bytes);
    line_text(&l, " bytes wanted, ");
    line_number(&l, in_use);
    line_text(&l, " in use, ");
    if (limit == UINT64_MAX) {
        line_text(&l, "no limit set");
    } else {
        line_text(&l, "limit ");
        line_number(&l, limit);
    }
    die(&l);
}

void gr_fatal(const char *text) {
    struct line l;
    line_begin(&l, text);
    die(&l);
}

void gr_warn(const char *text, const char *detail, size_t detail_bytes) {
    struct line l = {.used = 0};
    line_text(&l, "granary: warning: ");
    line_text(&l, text);
    line_bytes(&l, detail, detail_bytes);
    line_write(&l, STDERR);
}

void gr_check_failed(const char *what, const char *file, int line) {
    struct line l;
    line_begin(&l, "check failed: ");
    line_text(&l, what);
    line_text(&l, " at ");
    line_text(&l, file);
    line_text(&l, ":");
    line_number(&l, (uint64_t)line);
    die(&l);
}
