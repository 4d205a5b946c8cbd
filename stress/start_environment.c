/* start_environment.c -- programs started with little around them, and how much a small program pays.
 *
 * start_plain (a whole program, see override_whole.c) runs with the library preloaded: with no environment, with closed
 * streams, with nonsense in our options, without /proc, with a small stack, with little address space. Then the size of a
 * program that does nothing is compared with and without the library, and the library's TLS with what dlopen can grant.
 *
 * covers: S86 S93
 */
/* test: link=none timeout=240 args="$<TARGET_FILE:granary> $<TARGET_FILE:start_plain>" */
#include "storm.h"

#include <elf.h>
#include <sys/mount.h>

enum { tls_limit_bytes = 16, vsz_limit_bytes = 64 << 20 };

static const char *library;
static char preload[4200];

static void close_streams(void) {
    for (int fd = 0; fd < 3; fd++)
        close(fd);
}

static void small_stack(void) {
    struct rlimit limit = {256 << 10, 256 << 10};
    REQUIRE(setrlimit(RLIMIT_STACK, &limit) == 0, "setrlimit: errno %d", errno);
}

static void little_address_space(void) {
    struct rlimit limit = {(rlim_t)600 << 20, (rlim_t)600 << 20};
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit: errno %d", errno);
}

/* In name spaces of its own; where that is not allowed the child is content with what it has. */
static void hide_proc(void) {
    if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) == 0 &&
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        mount("nothing", "/proc", "tmpfs", 0, NULL);
}

static void leave_directory(void) {
    char path[] = "/tmp/start_environment_XXXXXX";
    if (mkdtemp(path) && chdir(path) == 0)
        rmdir(path);
}

static const struct condition {
    const char *name;
    void (*prepare)(void);
    const char *variable; /* beside LD_PRELOAD */
} conditions[] = {
    {"empty environment", NULL, NULL},
    {"closed streams", close_streams, NULL},
    {"small stack", small_stack, NULL},
    {"600 MiB of address space", little_address_space, NULL},
    {"no /proc", hide_proc, NULL},
    {"no working directory", leave_directory, NULL},
    {"empty options", NULL, "GRANARY_CONF="},
    {"unknown options", NULL, "GRANARY_CONF=no_such_option:1,thp"},
    {"malformed options", NULL, "GRANARY_CONF=::,,:=9999999999999999999999999,thread_cache:"},
    {"caches of nothing", NULL, "GRANARY_CONF=thread_cache:0,total_cache:0"},
};

static void runs_under(const struct condition *condition, char *program) {
    char *const words[] = {program, (char *)"--seed", (char *)"1", NULL};
    char *const environment[] = {preload, (char *)(uintptr_t)condition->variable, NULL};
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: errno %d", errno);
    if (pid == 0) {
        storm_child();
        if (condition->prepare)
            condition->prepare();
        execve(program, words, environment);
        _exit(126);
    }
    storm_reap(pid, condition->name, 0);
}

/* Address space in bytes of this program when it has done nothing, preloaded or not. */
static size_t size_of_nothing(bool preloaded) {
    char *const words[] = {(char *)"start_environment", (char *)"size", NULL};
    char *const environment[] = {preloaded ? preload : NULL, NULL};
    char text[64] = "";
    int ends[2];
    REQUIRE(pipe(ends) == 0, "pipe: errno %d", errno);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execve("/proc/self/exe", words, environment);
        _exit(126);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], text, sizeof text - 1);
    close(ends[0]);
    storm_reap(pid, "size of a program", preloaded);
    REQUIRE(got > 0, "no answer");
    return strtoull(text, NULL, 10);
}

static int say_size(void) {
    char text[32];
    int length = snprintf(text, sizeof text, "%zu", vsz_bytes());
    return write(1, text, (size_t)length) == length ? 0 : 1;
}

/* Bytes of thread-local storage that each thread pays for; more than the loader's surplus would make dlopen fail. */
static size_t tls_bytes(void) {
    Elf64_Ehdr head;
    size_t bytes = 0;
    int fd = open(library, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && pread(fd, &head, sizeof head, 0) == sizeof head, "%s: errno %d", library, errno);
    for (int i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr part;
        off_t at = (off_t)(head.e_phoff + (size_t)i * head.e_phentsize);
        REQUIRE(pread(fd, &part, sizeof part, at) == sizeof part, "%s: errno %d", library, errno);
        if (part.p_type == PT_TLS)
            bytes += part.p_memsz;
    }
    close(fd);
    return bytes;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "size") == 0)
        return say_size();
    REQUIRE(argc == 3, "usage: start_environment LIBRARY PROGRAM");
    library = argv[1];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    for (size_t i = 0; i < COUNT_OF(conditions); i++)
        runs_under(&conditions[i], argv[2]);

    size_t tls = tls_bytes(), without = size_of_nothing(false), with = size_of_nothing(true);
    printf("%zu bytes of TLS; address space of a program that does nothing: %.1f MiB, with libc's malloc %.1f\n", tls,
           storm_mib(with), storm_mib(without));
    REQUIRE(tls <= tls_limit_bytes, "%zu bytes of TLS", tls);
    REQUIRE(with <= without + vsz_limit_bytes, "%.1f MiB more address space", storm_mib(with - without));
    return 0;
}
