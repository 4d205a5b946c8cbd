/* load_wrap.c -- runs any command with an allocator preloaded and prints a result line like a load shape's.
 *
 *   load_wrap [--preload FILE] COMMAND [ARGUMENT...]
 *
 * The command's output goes to /dev/null. This program itself is not preloaded and is small, so that the peak
 * of the command is not hidden behind that of its parent. CPU seconds and faults are those of the command and
 * of every child it has waited for; the peak is that of the largest single process among them.
 */
#include "load.h"

#include <sys/wait.h>

static _Noreturn void become(const char *preload, char **argv) {
    if (preload)
        setenv("LD_PRELOAD", preload, 1);
    int null = open("/dev/null", O_RDWR);
    if (null >= 0)
        for (int fd = 0; fd <= 2; fd++)
            dup2(null, fd);
    execvp(argv[0], argv);
    _exit(127);
}

int main(int argc, char **argv) {
    const char *preload = NULL;
    int first = 1;
    if (argc > 2 && strcmp(argv[1], "--preload") == 0) {
        preload = argv[2];
        first = 3;
    }
    if (first >= argc) {
        fprintf(stderr, "usage: load_wrap [--preload FILE] COMMAND [ARGUMENT...]\n");
        return 2;
    }
    load.count_children = true;
    struct load_usage before = load_usage_now();
    pid_t pid = fork();
    if (pid == 0)
        become(preload, argv + first);
    int status = -1;
    struct rusage usage;
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid)
        load_die("cannot start the command");
    struct load_usage after = load_usage_now();
    printf("{\"shape\":\"wrap\",\"threads\":1,\"wall\":%.6f,\"user\":%.6f,\"sys\":%.6f,\"peak_kib\":%ld,"
           "\"minor_faults\":%ld,\"signal\":%d,\"status\":%d,\"verify\":\"%s\"}\n",
           after.wall - before.wall, after.user - before.user, after.sys - before.sys, usage.ru_maxrss,
           after.minor_faults - before.minor_faults, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
           WIFEXITED(status) ? WEXITSTATUS(status) : 0, status == 0 ? "ok" : "bad");
    return status == 0 ? 0 : 1;
}
