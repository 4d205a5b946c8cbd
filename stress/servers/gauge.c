/* gauge.c -- runs a program and writes what it cost: gauge RESULT PRELOAD PROGRAM [ARGUMENT...]
 *
 * RESULT gets one line: wall seconds, CPU seconds of the program and of the children it waited for, and the
 * peak resident KiB of the largest of them. PRELOAD becomes the program's LD_PRELOAD, "" for none. A
 * process keeps, over exec, the peak of the image it was forked from; this one is small, which a Python
 * runner is not.
 *
 * Ends as the program ended: its exit status, or 128 + the number of the signal that killed it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec * 1e-6; }

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: gauge RESULT PRELOAD PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    double start = now();
    pid_t child = fork();
    if (child == 0) {
        if (argv[2][0] != '\0') {
            setenv("LD_PRELOAD", argv[2], 1);
        }
        execvp(argv[3], argv + 3);
        perror(argv[3]);
        _exit(127);
    }
    int status;
    struct rusage used;
    if (child < 0 || wait4(child, &status, 0, &used) != child) {
        perror("gauge");
        return 2;
    }
    double wall = now() - start;
    FILE *result = fopen(argv[1], "w");
    if (result == NULL) {
        perror(argv[1]);
        return 2;
    }
    fprintf(result, "%.6f %.6f %ld\n", wall, seconds(used.ru_utime) + seconds(used.ru_stime), used.ru_maxrss);
    fclose(result);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
