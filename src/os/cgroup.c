/* os/cgroup.c -- see `os/cgroup.h`. */
#include "os/cgroup.h"

#include <stddef.h>
#include <string.h>

#include "os/os.h"

enum { PATH_BYTES = 1024, GROUPS_BYTES = 4096, DIGITS = 15 };

struct version {
    const char *mount;
    const char *files[2];
};
static const struct version version_1 = {"/sys/fs/cgroup/memory", {"/memory.limit_in_bytes", NULL}};
static const struct version version_2 = {"/sys/fs/cgroup", {"/memory.max", "/memory.high"}};

struct path {
    size_t used; /* PATH_BYTES: it did not fit */
    char text[PATH_BYTES];
};

/* Mapped for the while: a thread may have little stack. */
struct scratch {
    struct path path;
    char groups[GROUPS_BYTES];
};

static void path_add(struct path *p, const char *text, size_t bytes) {
    if (bytes >= PATH_BYTES - p->used) {
        p->used = PATH_BYTES;
        return;
    }
    memcpy(p->text + p->used, text, bytes);
    p->used += bytes;
    p->text[p->used] = 0;
}

/* "max", version 1's largest number, and what is no number are no limit. */
static uint64_t limit_in(const char *path) {
    char text[32];
    uint64_t n = 0;
    size_t digits = 0;
    if (!os_read_file(path, text, sizeof text))
        return CGROUP_NO_LIMIT;
    for (; text[digits] >= '0' && text[digits] <= '9'; digits++)
        n = n * 10 + (uint64_t)(text[digits] - '0');
    bool whole = digits && digits <= DIGITS && (!text[digits] || text[digits] == '\n');
    return whole ? n : CGROUP_NO_LIMIT;
}

/* From the group outwards: /a/b, /a, and the mount itself. */
static uint64_t least_limit(struct path *p, const char *root, const struct version *v, const char *group,
                            size_t bytes) {
    uint64_t least = CGROUP_NO_LIMIT;
    for (bool outermost = false; !outermost;) {
        while (bytes && group[bytes - 1] == '/')
            bytes--;
        outermost = !bytes;
        for (unsigned i = 0; i < 2 && v->files[i]; i++) {
            p->used = 0;
            path_add(p, root, strlen(root));
            path_add(p, v->mount, strlen(v->mount));
            path_add(p, group, bytes);
            path_add(p, v->files[i], strlen(v->files[i]));
            uint64_t here = p->used < PATH_BYTES ? limit_in(p->text) : CGROUP_NO_LIMIT;
            least = here < least ? here : least;
        }
        while (bytes && group[bytes - 1] != '/')
            bytes--;
    }
    return least;
}

/* Is `word` one of the words between commas before `end`? */
static bool has_word(const char *list, const char *end, const char *word) {
    for (const char *to; list <= end; list = to + 1) {
        for (to = list; to < end && *to != ','; to++)
            ;
        if ((size_t)(to - list) == strlen(word) && !memcmp(list, word, strlen(word)))
            return true;
    }
    return false;
}

/* A line is number:controllers:group; version 2's has no controllers. Where version 1 has the memory, version 2 has not. */
static bool limit_of_group(struct scratch *s, const char *root, uint64_t *bytes) {
    const struct version *version = NULL;
    const char *group = NULL;
    path_add(&s->path, root, strlen(root));
    path_add(&s->path, "/proc/self/cgroup", strlen("/proc/self/cgroup"));
    if (s->path.used == PATH_BYTES || !os_read_file(s->path.text, s->groups, sizeof s->groups))
        return false;
    for (const char *line = s->groups; *line;
         line += line[strcspn(line, "\n")] ? strcspn(line, "\n") + 1 : strlen(line)) {
        const char *list = line + strcspn(line, ":\n");
        const char *end = *list == ':' ? list + 1 + strcspn(list + 1, ":\n") : list;
        if (*list != ':' || *end != ':')
            continue;
        bool first = has_word(list + 1, end, "memory");
        if (first || (!version && end == list + 1)) {
            version = first ? &version_1 : &version_2;
            group = end + 1;
        }
    }
    if (!group)
        return false;
    *bytes = least_limit(&s->path, root, version, group, strcspn(group, "\n"));
    return true;
}

bool gr_cgroup_limit(const char *root, uint64_t *bytes) {
    struct scratch *s = os_map(sizeof *s);
    bool known = s && limit_of_group(s, root, bytes);
    if (s)
        os_unmap(s, sizeof *s);
    return known;
}
