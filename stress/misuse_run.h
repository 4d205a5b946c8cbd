/* misuse_run.h -- commits crimes, one process each, and compares what came of them with stress/misuse_table.txt, those of
 * the hardened build with stress/misuse_hardened.txt.
 *
 * PURPOSE     A crime is a function; its verdict is the row of its name in the table: the line on stderr with each
 *             address written 0x*, before the SIGABRT; or "unnoticed"; or "harmless" where the child has made sure
 *             that the heap is sound afterwards. No verdict changes unless somebody changes the table.
 */
#ifndef STRESS_MISUSE_RUN_H
#define STRESS_MISUSE_RUN_H

#include "test.h"

#include <granary.h>

enum { UNNOTICED = 0, HARMLESS = 10 };

struct crime {
    const char *name;
    int (*commit)(size_t size);
    size_t size; /* what commit makes of it */
};

/* Looks for what the free path has not looked at yet: the caller's blocks go home. */
static inline int settled(void) {
    granary_trim();
    return UNNOTICED;
}

/* What the compiler shall not see: that the pointer was freed, lies inside, or is no block. */
static inline void free_hidden(void *ptr) { granary_free(opaque(ptr)); }

static inline void *block_of(size_t size) {
    void *ptr = opaque(granary_malloc(size));
    must(ptr != NULL);
    ((volatile char *)ptr)[0] = 1;
    return ptr;
}

/* The text with every hexadecimal number written 0x*, and lines joined: a verdict is one line. Who called is left out: the lines
 * that a report goes on with, set in. */
static inline void without_addresses(const char *from, char *to, size_t room) {
    size_t used = 0;
    while (*from && used + 4 < room) {
        if (strncmp(from, "granary:  ", 10) == 0) {
            from += strcspn(from, "\n") + 1;
        } else if (from[0] == '0' && from[1] == 'x') {
            memcpy(to + used, "0x*", 3);
            used += 3;
            from += 2 + strspn(from + 2, "0123456789abcdef");
        } else if (*from == '\n') {
            from++;
            if (*from && strncmp(from, "granary:  ", 10) != 0) {
                to[used++] = '|';
            }
        } else {
            to[used++] = *from++;
        }
    }
    to[used] = 0;
}

static inline void verdict_of(const struct ending *ending, char *verdict, size_t room) {
    char text[1024];
    without_addresses(ending->text, text, sizeof text);
    if (ending->timed_out) {
        snprintf(verdict, room, "timed out: %s", text);
    } else if (ending->signal == SIGABRT) {
        snprintf(verdict, room, "%s", ending->length ? text : "abort without a word");
    } else if (ending->signal) {
        snprintf(verdict, room, "signal %d%s%s", ending->signal, *text ? ": " : "", text);
    } else if (ending->length > 0 || (ending->exit_code != UNNOTICED && ending->exit_code != HARMLESS)) {
        snprintf(verdict, room, "exit %d: %s", ending->exit_code, text);
    } else {
        snprintf(verdict, room, "%s", ending->exit_code == HARMLESS ? "harmless" : "unnoticed");
    }
}

/* A star in the pattern stands for any digits, or for the star that an address became. */
static inline bool verdict_matches(const char *pattern, const char *text) {
    for (; *pattern; pattern++) {
        if (*pattern == '*') {
            text += strspn(text, "0123456789abcdef*");
        } else if (*pattern != *text++) {
            return false;
        }
    }
    return *text == 0;
}

/* Is it the verdict of a row "<name> <verdict>"? A crime whose outcome is left to chance has a row for each. `expected` is the
 * last one. */
static inline bool table_has(const char *name, const char *verdict, char *expected, size_t room) {
    static char table[64 * 1024];
    if (table[0] == 0) {
        read_file(GRANARY_HARDENED ? STRESS_DIR "/misuse_hardened.txt" : STRESS_DIR "/misuse_table.txt", table,
                  sizeof table);
    }
    size_t length = strlen(name);
    for (const char *line = table; *line; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, name, length) == 0 && line[length] == ' ') {
            line += length + strspn(line + length, " ");
            snprintf(expected, room, "%.*s", (int)strcspn(line, "\n"), line);
            if (verdict_matches(expected, verdict)) {
                return true;
            }
        }
    }
    return false;
}

static inline void crime_meets_its_verdict(void **state) {
    const struct crime *crime = *state;
    char expected[1280] = "(no row)";
    char found[1280];
    struct ending ending = in_new_process("commit", crime->name, 30);
    verdict_of(&ending, found, sizeof found);
    if (!table_has(crime->name, found, expected, sizeof expected)) {
        fprintf(stderr, "table: %s\nfound: %-40s %s\n", expected, crime->name, found);
        fail();
    }
}

/* With arguments: the child that commits one crime. Without: a cmocka test for each, after the `extra` ones. */
static inline int run_crimes(const struct crime *crimes, size_t count, int argc, char **argv,
                             const struct CMUnitTest *extra, size_t extras) {
    struct CMUnitTest *tests = calloc(count + extras, sizeof *tests);
    must(tests != NULL);
    for (size_t i = 0; i < extras; i++) {
        tests[i] = extra[i];
    }
    for (size_t i = 0; i < count; i++) {
        if (argc == 3 && strcmp(argv[2], crimes[i].name) == 0) {
            if (!getenv("GRANARY_GUARDS")) /* they report by a handler of their own */
                signal(SIGSEGV,
                       SIG_DFL); /* a sanitizer's runtime has taken it, and would end the process its own way */
            return crimes[i].commit(crimes[i].size);
        }
        tests[extras + i].name = crimes[i].name;
        tests[extras + i].test_func = crime_meets_its_verdict;
        tests[extras + i].initial_state = (void *)(uintptr_t)&crimes[i];
    }
    must(argc == 1);
    int failed = _cmocka_run_group_tests("misuse", tests, count + extras, NULL, NULL);
    free(tests);
    return failed;
}

#endif
