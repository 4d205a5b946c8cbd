/* os/trace.c -- see `os/trace.h`. */
#include "os/trace.h"

#include "os/fatal.h"
#include "os/os.h"

enum { FRAME_MOST_BYTES = 1 << 20 }; /* a longer step leads out of the stack */

/* What a frame pointer points at, on x86-64 and aarch64. */
struct frame {
    const struct frame *caller;
    const void *back;
};

/* *known is the page that was last found readable. */
static bool is_readable(uintptr_t at, uintptr_t *known) {
    uintptr_t page = at / os_page_bytes();
    if (page != *known && !os_is_readable((const void *)at))
        return false;
    *known = page;
    return true;
}

/* Reads other functions' frames, as no sanitizer would have it. `known`: a page that can be read. */
GR_UNCHECKED static uint32_t follow(const struct frame *from, uintptr_t known, const void **call, uint32_t most) {
    uint32_t depth = 0;
    for (const struct frame *at = from; depth < most && (uintptr_t)at % sizeof(void *) == 0; at = at->caller) {
        uintptr_t step = (uintptr_t)at - (uintptr_t)from;
        if ((depth && (!step || step > FRAME_MOST_BYTES)) || !is_readable((uintptr_t)at, &known) ||
            !is_readable((uintptr_t)at + offsetof(struct frame, back), &known) || !at->back)
            break;
        call[depth++] = at->back;
        from = at;
    }
    return depth;
}

void gr_trace(const void *frame, struct trace *out) {
    out->thread = os_thread();
    out->depth = follow(frame, (uintptr_t)frame / os_page_bytes(), out->call, TRACE_FRAMES);
}

void gr_trace_from(const void *code, const void *frame, struct trace *out) {
    out->thread = os_thread();
    out->call[0] = code;
    out->depth = 1 + follow(frame, UINTPTR_MAX, out->call + 1, TRACE_FRAMES - 1);
}

static void print_call(const void *call) {
    struct line l = {.used = 0};
    const char *file;
    uintptr_t inside;
    line_text(&l, "granary:     ");
    line_pointer(&l, call);
    if (os_file_of(call, &file, &inside)) {
        line_text(&l, " ");
        line_text(&l, *file ? file : "the program");
        line_text(&l, "+");
        line_pointer(&l, (const void *)inside);
    }
    line_write(&l, 2);
}

void gr_trace_print(const char *what, const struct trace *t) {
    struct line l = {.used = 0};
    line_text(&l, "granary:   ");
    line_text(&l, what);
    line_text(&l, " thread ");
    line_number(&l, t->thread);
    line_write(&l, 2);
    for (uint32_t i = 0; i < t->depth && i < TRACE_FRAMES; i++)
        print_call(t->call[i]);
}
