/* load_start.c -- what it costs to begin: a process that does nothing, an interpreter, a thread that
 * allocates once.
 *
 * Modes: true (/bin/true), python (python3 -c pass), thread (a thread that starts, allocates once, frees it
 * and ends). The children inherit the preload; CPU seconds and page faults include theirs, and peak_kib is a
 * child's.
 */
#include "load.h"

#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static const struct load_shape shape = {
    .name = "start",
    .modes = {{"true", 600, 1}, {"python", 8, 1}, {"thread", 15000, 1}},
    .min_size = 64,
    .max_size = 64,
};

static char *const true_argv[] = {"/bin/true", NULL};
static char *const python_argv[] = {"python3", "-c", "pass", NULL};

static char *const *child_argv(void) { return load_mode_is("true") ? true_argv : python_argv; }

static void start_processes(struct worker *w) {
    for (uint64_t i = 0; i < w->ops; i++) {
        pid_t pid;
        int status = -1;
        if (posix_spawnp(&pid, child_argv()[0], NULL, NULL, child_argv(), environ) != 0)
            load_die("cannot start the program");
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        w->bad += status != 0;
        w->made += block_sum(1);
        w->dropped += block_sum(1);
    }
}

static void *live_once(void *arg) {
    struct worker *w = arg;
    block_drop(w, block_make(w, load_size(w)));
    return NULL;
}

static void start_threads(struct worker *w) {
    for (uint64_t i = 0; i < w->ops; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, live_once, w) != 0)
            load_die("cannot start a thread");
        pthread_join(thread, NULL);
    }
}

/* The peak of one child. By fork, not by posix_spawn: a child that shares our memory until it execs is given
 * our peak. */
static uint64_t child_peak_kib(void) {
    struct rusage usage;
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        execvp(child_argv()[0], child_argv());
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid || status != 0)
        load_die("cannot start the program");
    return (uint64_t)usage.ru_maxrss;
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    if (load_mode_is("thread"))
        return load_run(start_threads, 0);
    load.count_children = true;
    load.peak_kib = child_peak_kib();
    return load_run(start_processes, 0);
}
