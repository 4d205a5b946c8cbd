/* shape.c -- counts the instructions that a hit in malloc and free takes, by stepping through them.
 *
 * Linked against the library, so that the calls are the ones a program makes. The trap flag makes the
 * processor raise SIGTRAP after every instruction; the handler notes each address between a function's entry
 * and its return. Nothing is guessed about which side of a branch is the hot one: what is counted is what
 * ran.
 *
 * Prints one line per case:  <row> <case> <instructions> <forbidden> <entry>
 * and, for the longest case of each row, the path:  = <row> <address in the library> ...
 *
 * forbidden: how many pushes, calls, lock prefixes and implied locks were on the path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { STEPS_MAX = 4096, TRAP_FLAG = 0x100, ROUNDS = 6 };

static struct {
    uintptr_t entry;       /* of the call to follow */
    uintptr_t back, stack; /* where it returns to; the stack pointer at its entry */
    int inside;
    int steps;
    uintptr_t path[STEPS_MAX];
} walk;

static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t at = (uintptr_t)r[REG_RIP], stack = (uintptr_t)r[REG_RSP];
    if (!walk.inside && at == walk.entry && walk.steps == 0) {
        walk.inside = 1;
        walk.stack = stack;
        walk.back = *(uintptr_t *)stack;
    }
    if (walk.inside && at == walk.back && stack == walk.stack + sizeof(uintptr_t)) {
        walk.inside = 0;
    }
    if (walk.inside) {
        if (walk.steps < STEPS_MAX) {
            walk.path[walk.steps] = at;
        }
        walk.steps++;
    }
}

/* A push, a call or a locked access: what a hit path may not hold. */
static int is_forbidden(uintptr_t at) {
    const uint8_t *b = (const uint8_t *)at;
    for (;; b++) {
        if (*b == 0xF0) {
            return 1; /* lock */
        }
        int prefix = *b == 0x66 || *b == 0x67 || *b == 0xF2 || *b == 0xF3 || *b == 0x2E || *b == 0x36 || *b == 0x3E ||
                     *b == 0x26 || *b == 0x64 || *b == 0x65;
        if (!prefix) {
            break;
        }
    }
    if ((*b & 0xF0) == 0x40) {
        b++; /* REX */
    }
    int memory = (b[1] >> 6) != 3, digit = (b[1] >> 3) & 7;
    return (b[0] >= 0x50 && b[0] <= 0x57) || b[0] == 0x68 || b[0] == 0x6A || b[0] == 0x9C || /* push */
           b[0] == 0xE8 || (b[0] == 0xFF && (digit == 2 || digit == 3 || digit == 6)) ||     /* call, push */
           ((b[0] == 0x86 || b[0] == 0x87) && memory);                                       /* xchg locks by itself */
}

/* One row of the table: the longest of its cases so far. */
struct row {
    const char *name;
    int steps;
    uintptr_t path[STEPS_MAX];
};

static void *call(struct row *row, const char *label, void *function, uintptr_t a, uintptr_t b) {
    memset(&walk, 0, sizeof walk);
    walk.entry = (uintptr_t)function;
    void *(*volatile f)(uintptr_t, uintptr_t) = (void *(*)(uintptr_t, uintptr_t))function;
    unsigned long long flags = __builtin_ia32_readeflags_u64();
    __builtin_ia32_writeeflags_u64(flags | TRAP_FLAG);
    void *p = f(a, b);
    __builtin_ia32_writeeflags_u64(flags);
    int steps = walk.steps, forbidden = 0;
    if (walk.inside || steps > STEPS_MAX) {
        steps = STEPS_MAX;
    }
    for (int i = 0; i < steps; i++) {
        forbidden += is_forbidden(walk.path[i]);
    }
    printf("%s %s %d %d %#lx\n", row->name, label, steps, forbidden, (unsigned long)walk.entry);
    if (steps > row->steps) {
        row->steps = steps;
        memcpy(row->path, walk.path, sizeof row->path);
    }
    return p;
}

static void *find(const char *name) {
    void *p = dlsym(RTLD_DEFAULT, name);
    if (!p) {
        fprintf(stderr, "shape: %s is not there\n", name);
        exit(2);
    }
    return p;
}

/* Hits only: the class's magazine holds a few blocks and has room for one. */
static void hits(struct row *get, struct row *put, const char *get_name, const char *put_name, size_t size, int sized) {
    void *get_call = find(get_name), *put_call = find(put_name);
    char label[128];
    void *warm[4];
    for (int i = 0; i < 4; i++) {
        warm[i] = ((void *(*)(size_t))get_call)(size);
    }
    for (int i = 0; i < 4; i++) {
        ((void (*)(void *, size_t))put_call)(warm[i], size);
    }
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(label, sizeof label, "%s(%zu)", get_name, size);
        void *p = call(get, label, get_call, size, 0);
        snprintf(label, sizeof label, "%s(%zu)", put_name, size);
        call(put, label, put_call, (uintptr_t)p, sized ? size : 0);
    }
}

static void print_path(const struct row *row) {
    Dl_info info;
    printf("= %s", row->name);
    for (int i = 0; i < row->steps && i < 256; i++) {
        if (dladdr((void *)row->path[i], &info)) {
            printf(" %lx", (unsigned long)(row->path[i] - (uintptr_t)info.dli_fbase));
        }
    }
    putchar('\n');
}

int main(void) {
    static char out[1 << 16];
    static struct row rows[] = {{.name = "malloc-1K"}, {.name = "malloc-256K"}, {.name = "free-1K"},
                                {.name = "free-32K"},  {.name = "sized-1K"},    {.name = "sized-32K"},
                                {.name = "new-1K"},    {.name = "new-256K"},    {.name = "sized-48"}};
    static const size_t small[] = {1, 8, 16, 24, 100, 128, 129, 300, 512, 1000, 1024};
    static const size_t medium[] = {1025, 1500, 2048, 4096, 5000, 10000, 16384, 32768};
    setvbuf(stdout, out, _IOFBF, sizeof out);
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGTRAP, &action, NULL) != 0) {
        return 2;
    }
    for (int large = 0; large < 2; large++) {
        const size_t *sizes = large ? medium : small;
        size_t count = large ? sizeof medium / sizeof *medium : sizeof small / sizeof *small;
        for (size_t i = 0; i < count; i++) {
            hits(&rows[0 + large], &rows[2 + large], "malloc", "free", sizes[i], 0);
            struct row *sized = &rows[sizes[i] <= 48 ? 8 : 4 + large];
            hits(&rows[0 + large], sized, "malloc", "free_sized", sizes[i], 1);
            hits(&rows[6 + large], &rows[2 + large], "_Znwm", "_ZdlPv", sizes[i], 0);
            hits(&rows[6 + large], sized, "_Znam", "_ZdaPvm", sizes[i], 1);
        }
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        print_path(&rows[i]);
    }
    return 0;
}
