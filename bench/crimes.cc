/* crimes.cc -- one misuse of the heap per process, under whichever malloc is preloaded: what comes of it?
 *
 *   crimes --list        the names
 *   crimes NAME          commits it. On stdout: "committed" after the criminal access or call, then, when everything that may
 *                        look at it later has run, the state of the heap: "sound", or what is wrong with it.
 *
 * Plain malloc, free and operator delete alone, so that every allocator can be asked; `crimes`, the script, runs them all.
 */
#include <pthread.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>
#include <set>

namespace {

enum : size_t { SMALL = 40, MIDDLE = 1000, WIDE = 20000, LARGE = 300000, BIG = 80u << 20 };

/* What the compiler must not see through. */
template <class T> T hidden(T value) {
    asm volatile("" : "+r"(value));
    return value;
}

void say(const char *what) {
    char line[64];
    int n = snprintf(line, sizeof line, "%s\n", what);
    if (write(1, line, (size_t)n) != n)
        _exit(9);
}

char *block(size_t size) {
    char *p = (char *)hidden(malloc(size));
    if (!p)
        _exit(8);
    memset(p, 0x5a, size < 4096 ? size : 4096);
    p[size - 1] = 0x5a;
    return p;
}

void release(void *p) { free(hidden(p)); }

/* A block that the crime has left with the program. */
char *kept;

/* Everything that may find a crime late: blocks of the size go around, a thread comes and goes, memory is given back. */
const char *settle(size_t size) {
    enum { AROUND = 20000 }; /* more than any quarantine holds */
    static char *held[AROUND];
    const char *state = "sound";
    size_t most = size < MIDDLE ? AROUND : size < WIDE ? 4000 : size < LARGE ? 600 : size < BIG ? 100 : 3;
    for (int round = 0; round < 3; round++) {
        std::set<char *> seen;
        size_t count = most * (size_t)(round + 1) / 3; /* more than were freed: what lies free goes out first */
        if (kept)
            seen.insert(kept);
        for (size_t i = 0; i < count; i++) {
            held[i] = (char *)hidden(malloc(size));
            auto above = seen.upper_bound(held[i]);
            if ((above != seen.end() && *above < held[i] + size) ||
                (above != seen.begin() && *--above + size > held[i]))
                state = "a block has two owners";
            seen.insert(held[i]);
            held[i][0] = held[i][size - 1] = (char)i;
        }
        for (size_t i = 0; i < count; i++)
            if (held[i][0] != (char)i)
                state = "a block has two owners";
        if (*state != 's')
            return state;
        for (size_t i = 0; i < count; i++)
            release(held[i]);
    }
    malloc_trim(0);
    return state;
}

/* ---- free twice ---- */

void twice(size_t size) {
    char *p = block(size);
    release(p);
    release(p);
}

void twice_interleaved(size_t size) {
    char *p = block(size), *q = block(size);
    release(p);
    release(q);
    release(p);
}

void twice_after_many(size_t size) {
    enum { MANY = 100 };
    char *p[MANY];
    for (auto &one : p)
        one = block(size);
    for (auto one : p)
        release(one);
    release(p[0]);
}

void twice_across_trim(size_t size) {
    char *p = block(size), *q = block(size);
    release(p);
    malloc_trim(0);
    release(p);
    hidden(q);
}

void *release_in_thread(void *p) {
    release(p);
    return nullptr;
}

void in_thread(void *(*body)(void *), void *argument) {
    pthread_t thread;
    pthread_create(&thread, nullptr, body, argument);
    pthread_join(thread, nullptr);
}

void twice_in_two_threads(size_t size) {
    char *p = block(size);
    in_thread(release_in_thread, p);
    release(p);
}

pthread_barrier_t line;
void *release_at_once(void *p) {
    pthread_barrier_wait(&line);
    return release_in_thread(p);
}

void twice_at_the_same_time(size_t size) {
    pthread_t other;
    char *p = block(size);
    pthread_barrier_init(&line, nullptr, 2);
    pthread_create(&other, nullptr, release_at_once, p);
    release_at_once(p);
    pthread_join(other, nullptr);
}

void realloc_freed(size_t size) {
    char *p = block(size);
    release(p);
    kept = (char *)hidden(realloc(hidden(p), size));
}

/* ---- free what is no block ---- */

void inside(size_t size) { release(block(size) + 16); }
void inside_unaligned(size_t size) { release(block(size) + 1); }
void inside_half_way(size_t size) { release(block(size) + size / 2 / 16 * 16); }

char global[64] __attribute__((aligned(16)));
void of_stack(size_t) {
    char array[64] __attribute__((aligned(16)));
    memset(hidden(&array[0]), 0, sizeof array);
    block(SMALL);
    release(array + 16);
}
void of_global(size_t) {
    block(SMALL);
    release(global + 16);
}
void of_mapping(size_t) {
    block(SMALL);
    release((char *)mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 64);
}
void of_number(size_t) {
    block(SMALL);
    release((void *)0x12340);
}
void of_no_slot(size_t size) { /* far behind any block that was handed out, at a block's distance */
    char *p = block(size), *q = block(size);
    ptrdiff_t step = q > p ? q - p : p - q;
    release(p + 100 * step);
}

/* ---- wrong sizes ---- */

void sized_class(size_t size) { ::operator delete(hidden(::operator new(size)), hidden(size * 8)); }
void sized_near(size_t size) { ::operator delete(hidden(::operator new(size)), hidden(size - 3)); }

/* ---- writes and reads where none belong ---- */

void write_freed(size_t size, size_t at) {
    char *p = block(size);
    release(p);
    hidden(p)[at] = 1;
}
void write_freed_first(size_t size) { write_freed(size, 0); }
void write_freed_middle(size_t size) { write_freed(size, size / 2); }
void write_freed_last(size_t size) { write_freed(size, size - 1); }

void read_freed(size_t size) {
    char *p = block(size);
    release(p);
    if (hidden(p)[size / 2] == 0x5a && hidden(p)[8] == 0x5a)
        say("old bytes");
}

void read_fresh(size_t size) {
    char *p[64];
    for (auto &one : p)
        memset(one = block(size), 0x77, size);
    for (auto one : p)
        release(one);
    for (auto &one : p) {
        one = (char *)hidden(malloc(size));
        if (one[size / 2] == 0x77) {
            say("old bytes");
            break;
        }
    }
}

/* In the middle of a row of blocks, all of them freed afterwards. */
void past_end(size_t size, ptrdiff_t from, size_t count, int value) {
    enum { ROW = 64 };
    char *p[ROW];
    for (auto &one : p)
        one = block(size);
    memset(hidden(p[ROW / 2]) + from, value, count);
    say("committed");
    for (auto one : p)
        release(one);
}
void over_by_1(size_t size) { past_end(size, (ptrdiff_t)size, 1, 0x41); }
void over_by_nul(size_t size) { past_end(size, (ptrdiff_t)size, 1, 0); }
void over_by_8(size_t size) { past_end(size, (ptrdiff_t)size, 8, 0x41); }
void over_by_64(size_t size) { past_end(size, (ptrdiff_t)size, 64, 0x41); }
void over_by_64K(size_t size) { past_end(size, (ptrdiff_t)size, 65536, 0x41); }
void under_by_1(size_t size) { past_end(size, -1, 1, 0x41); }
void under_by_16(size_t size) { past_end(size, -16, 16, 0x41); }

const struct crime {
    const char *name;
    void (*commit)(size_t);
    size_t size;
} crimes[] = {
    {"double-free/small", twice, SMALL},
    {"double-free/1000", twice, MIDDLE},
    {"double-free/20000", twice, WIDE},
    {"double-free/300000", twice, LARGE},
    {"double-free/80M", twice, BIG},
    {"double-free-interleaved/small", twice_interleaved, SMALL},
    {"double-free-interleaved/1000", twice_interleaved, MIDDLE},
    {"double-free-interleaved/300000", twice_interleaved, LARGE},
    {"double-free-after-100/small", twice_after_many, SMALL},
    {"double-free-after-100/1000", twice_after_many, MIDDLE},
    {"double-free-after-trim/small", twice_across_trim, SMALL},
    {"double-free-after-trim/300000", twice_across_trim, LARGE},
    {"double-free-two-threads/small", twice_in_two_threads, SMALL},
    {"double-free-two-threads/300000", twice_in_two_threads, LARGE},
    {"double-free-same-time/small", twice_at_the_same_time, SMALL},
    {"double-free-same-time/300000", twice_at_the_same_time, LARGE},
    {"realloc-freed/small", realloc_freed, SMALL},
    {"realloc-freed/300000", realloc_freed, LARGE},
    {"free-inside/small", inside, SMALL},
    {"free-inside/1000", inside, MIDDLE},
    {"free-inside/300000", inside, LARGE},
    {"free-inside-unaligned/small", inside_unaligned, SMALL},
    {"free-inside-half-way/20000", inside_half_way, WIDE},
    {"free-inside-half-way/80M", inside_half_way, BIG},
    {"free-stack", of_stack, SMALL},
    {"free-global", of_global, SMALL},
    {"free-mapping", of_mapping, SMALL},
    {"free-number", of_number, SMALL},
    {"free-no-slot/small", of_no_slot, SMALL},
    {"delete-other-class/small", sized_class, SMALL},
    {"delete-other-class/20000", sized_class, WIDE},
    {"delete-near-size/small", sized_near, SMALL},
    {"delete-near-size/300000", sized_near, LARGE},
    {"write-freed-first/small", write_freed_first, SMALL},
    {"write-freed-middle/small", write_freed_middle, SMALL},
    {"write-freed-middle/1000", write_freed_middle, MIDDLE},
    {"write-freed-middle/20000", write_freed_middle, WIDE},
    {"write-freed-middle/300000", write_freed_middle, LARGE},
    {"write-freed-last/small", write_freed_last, SMALL},
    {"read-freed/small", read_freed, SMALL},
    {"read-freed/20000", read_freed, WIDE},
    {"read-freed/300000", read_freed, LARGE},
    {"read-uninitialised/small", read_fresh, SMALL},
    {"read-uninitialised/20000", read_fresh, WIDE},
    {"over-by-1/40", over_by_1, SMALL},
    {"over-by-1/48", over_by_1, 48},
    {"over-by-1/1000", over_by_1, MIDDLE},
    {"over-by-1/300000", over_by_1, LARGE},
    {"over-by-a-nul/40", over_by_nul, SMALL},
    {"over-by-a-nul/48", over_by_nul, 48},
    {"over-by-8/48", over_by_8, 48},
    {"over-by-64/48", over_by_64, 48},
    {"over-by-64/300000", over_by_64, LARGE},
    {"over-by-64K/48", over_by_64K, 48},
    {"over-by-64K/300000", over_by_64K, LARGE},
    {"under-by-1/48", under_by_1, 48},
    {"under-by-16/48", under_by_16, 48},
};

} // namespace

int main(int argc, char **argv) {
    for (auto &crime : crimes) {
        if (argc == 2 && !strcmp(argv[1], "--list"))
            printf("%s\n", crime.name);
        else if (argc == 2 && !strcmp(argv[1], crime.name)) {
            alarm(20);
            crime.commit(crime.size);
            say("committed");
            say(settle(crime.size));
            return 0;
        }
    }
    return argc == 2 && !strcmp(argv[1], "--list") ? 0 : 2;
}
