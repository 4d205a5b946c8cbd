/* witness.c -- tells whose malloc a program really calls.
 *
 * Preloaded in front of the library under test; it defines none of the family itself. Every program image
 * that starts appends one line to the file named by WITNESS_FILE: its executable, then name=object for each
 * function of the family, all after tabs. A name is looked up as the program's own calls are bound (the
 * executable first, then the preloaded objects, then the rest), so an allocator inside the executable or a
 * library that wins over the preload shows up here, which a look at the map of the process alone would not
 * tell. A child of fork has its parent's bindings and writes nothing.
 *
 * The line goes out by one write in append mode: programs that start at the same moment do not mix their
 * lines.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const family[] = {"malloc",        "calloc",         "realloc",  "free",
                                     "aligned_alloc", "posix_memalign", "memalign", "malloc_usable_size"};

struct line {
    size_t used;
    char text[16384];
};

static void line_add(struct line *line, const char *text) {
    size_t length = strlen(text);
    size_t room = sizeof line->text - line->used;
    if (length > room) {
        length = room;
    }
    memcpy(line->text + line->used, text, length);
    line->used += length;
}

static const char *home_of(const char *name) {
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    void *found = dlsym(RTLD_DEFAULT, name);
    if (found == NULL || dladdr1(found, &info, (void **)&symbol, RTLD_DL_SYMENT) == 0) {
        return "nowhere";
    }
    // An executable at fixed addresses that takes the address of malloc stands for it with its own jump to it:
    // an undefined symbol with a value. Its calls go where the search would have ended without that.
    if (symbol != NULL && symbol->st_shndx == SHN_UNDEF) {
        found = dlsym(RTLD_NEXT, name);
        if (found == NULL || dladdr(found, &info) == 0) {
            return "nowhere";
        }
    }
    return info.dli_fname;
}

__attribute__((constructor)) static void testify(void) {
    int saved_errno = errno;
    const char *path = getenv("WITNESS_FILE");
    if (path == NULL) {
        return;
    }
    int file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (file >= 0) {
        static struct line line;
        char exe[4096];
        ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
        exe[length > 0 ? length : 0] = '\0';
        line_add(&line, exe);
        for (size_t i = 0; i < sizeof family / sizeof family[0]; i++) {
            line_add(&line, "\t");
            line_add(&line, family[i]);
            line_add(&line, "=");
            line_add(&line, home_of(family[i]));
        }
        line_add(&line, "\n");
        if (write(file, line.text, line.used) < 0) {
            _exit(111);
        }
        close(file);
    }
    errno = saved_errno;
}
