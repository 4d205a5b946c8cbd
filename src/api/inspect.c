/* api/inspect.c -- what granary holds: sums of counters, and trim on demand. */
#include "api/inspect.h"

#include <string.h>

#include "api/alloc.h"
#include "cache/thread.h"
#include "central/depot.h"
#include "os/fatal.h"
#include "os/options.h"
#include "os/os.h"
#include "page/arena.h"
#include "page/guarded.h"
#include "page/huge.h"
#include "page/limit.h"
#include "page/meta.h"
#include "page/purge.h"

/* Statistics, here and below: each number by itself as somebody left it, in no order. */
static void add_cache(struct cache *c, void *sum) { *(uint64_t *)sum += word_load_relaxed(&c->cached); }

static size_t shown_limit(uint64_t bytes) { return bytes == OPTION_NEVER ? 0 : bytes; }

void granary_get_stats(struct granary_stats *out) {
    struct arena_totals t = gr_arena_totals();
    uint64_t cached = 0, huge = gr_huge_total(), guarded = gr_guarded_pages() * os_page_bytes();
    gr_each_cache(add_cache, &cached);
    for (unsigned class = 1; class <= CLASSES; class ++)
        cached += (uint64_t)gr_depot_blocks(class) * class_bytes(class);
    *out = (struct granary_stats){
        .mapped_bytes = t.mapped * GRANULE_BYTES + huge + guarded,
        .used_bytes = (t.mapped - t.vacant) * GRANULE_BYTES + huge + guarded,
        .dirty_bytes = t.vacant_dirty * GRANULE_BYTES,
        .huge_bytes = huge,
        .cached_bytes = cached,
        .metadata_bytes = gr_meta_mapped_bytes(),
        .purged_bytes = gr_purged() * GRANULE_BYTES,
        .threads = gr_threads_alive(),
        .limit_soft_bytes = shown_limit(gr_limit_soft()),
        .limit_hard_bytes = shown_limit(gr_limit_hard()),
        .purge_turn_bytes = gr_purged_most_once() * GRANULE_BYTES,
    };
}

/* One name and the field of the statistics that it stands for. */
static const struct {
    const char *name;
    size_t offset;
} fields[] = {
#define FIELD(f)                                                                                                       \
    { #f, offsetof(struct granary_stats, f) }
    FIELD(mapped_bytes),     FIELD(used_bytes),       FIELD(dirty_bytes),      FIELD(huge_bytes),
    FIELD(cached_bytes),     FIELD(metadata_bytes),   FIELD(purged_bytes),     FIELD(threads),
    FIELD(limit_soft_bytes), FIELD(limit_hard_bytes), FIELD(purge_turn_bytes),
#undef FIELD
};
enum { FIELDS = sizeof fields / sizeof *fields };

static size_t field_of(const struct granary_stats *s, unsigned i) {
    size_t value;
    memcpy(&value, (const char *)s + fields[i].offset, sizeof value);
    return value;
}

void granary_print_stats(int fd) {
    struct granary_stats s;
    granary_get_stats(&s);
    for (unsigned i = 0; i < FIELDS; i++) {
        struct line l = {.used = 0};
        line_text(&l, "granary: ");
        line_text(&l, fields[i].name);
        line_text(&l, " ");
        line_number(&l, field_of(&s, i));
        line_write(&l, fd);
    }
}

void gr_stats_xml(void (*write)(void *context, const char *text, size_t bytes), void *context) {
    static const char head[] = "<malloc version=\"granary-1\">\n", tail[] = "</malloc>\n";
    struct granary_stats s;
    granary_get_stats(&s);
    write(context, head, sizeof head - 1);
    for (unsigned i = 0; i < FIELDS; i++) {
        struct line l = {.used = 0};
        line_text(&l, "<");
        line_text(&l, fields[i].name);
        line_text(&l, " value=\"");
        line_number(&l, field_of(&s, i));
        line_text(&l, "\"/>\n");
        write(context, l.text, l.used);
    }
    write(context, tail, sizeof tail - 1);
}

int granary_malloc_trim(size_t pad) {
    slow_enter();
    gr_bring_home(gr_thread_cache_slow(), true);
    bool any = !pad && gr_arenas_unmap_vacant() != 0;
    any |= gr_purge_all(pad / GRANULE_BYTES) != 0;
    slow_leave();
    return any;
}

int granary_trim(void) { return granary_malloc_trim(0); }
