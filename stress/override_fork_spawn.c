/* override_fork_spawn.c -- other programs started from threads that allocate.
 *
 * vfork and exec, posix_spawn, system and popen: the child borrows the parent's memory, or runs no fork
 * handlers, and must leave nothing behind in either. By hand: --ops 10000 --threads 16.
 *
 * covers: S79
 */
/* test: args="--ops 12 --threads 4" timeout=240 */
#define STORM_LIBC
#include "storm_block.h"

#include <spawn.h>

extern char **environ;

static _Atomic long workers_left;

static pid_t by_vfork(void) {
    static char *const words[] = {(char *)"true", NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        execve("/bin/true", words, environ);
        _exit(127);
    }
    return pid;
}

/* A child on our memory that allocates before it ends: what it makes and frees is the parent's own. */
static pid_t by_vfork_that_allocates(struct rng *rng) {
    struct storm_block *volatile block = malloc(sizeof *block);
    pid_t pid = vfork();
    if (pid == 0) {
        *block = storm_alloc(rng, 1000);
        storm_churn(rng, 50, 1 << 16);
        _exit(0);
    }
    storm_release(rng, *block);
    free(block);
    return pid;
}

static pid_t by_spawn(void) {
    static char *const words[] = {(char *)"true", NULL};
    pid_t pid;
    int error = posix_spawn(&pid, "/bin/true", NULL, NULL, words, environ);
    REQUIRE(error == 0, "posix_spawn: error %d", error);
    return pid;
}

static void by_popen(void) {
    char text[32] = "";
    FILE *pipe = popen("echo granary", "r");
    REQUIRE(pipe, "popen: errno %d", errno);
    REQUIRE(fgets(text, sizeof text, pipe) && strcmp(text, "granary\n") == 0, "popen's child said '%s'", text);
    int status = pclose(pipe);
    REQUIRE(status == 0, "popen's child: status %#x", (unsigned)status);
}

static void *starter(void *index) {
    struct rng rng = storm_rng_of((uint64_t)(intptr_t)index);
    struct storm_block held[64] = {{0}};
    for (long i = 0; storm_goes_on(i); i++) {
        for (int op = 0; op < 100; op++)
            storm_operation(&rng, held, 64, 1 << 18);
        switch (rng_below(&rng, 5)) {
        case 0:
            storm_reap(by_vfork(), "vfork", i);
            break;
        case 1:
            storm_reap(by_vfork_that_allocates(&rng), "vfork that allocates", i);
            break;
        case 2:
            storm_reap(by_spawn(), "posix_spawn", i);
            break;
        case 3:
            by_popen();
            break;
        default: {
            int status = system("exit 7");
            REQUIRE(status == 7 << 8, "system: status %#x", (unsigned)status);
        }
        }
    }
    storm_release_all(&rng, held, 64);
    atomic_fetch_sub(&workers_left, 1);
    return NULL;
}

static void *churner(void *index) {
    struct rng rng = storm_rng_of(100 + (uint64_t)(intptr_t)index);
    while (atomic_load(&workers_left))
        storm_churn(&rng, 100, 1 << 18);
    return NULL;
}

static void *any_role(void *index) { return (intptr_t)index < storm.threads ? starter(index) : churner(index); }

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 3600, .threads = 4, .ops = 100}, NULL);
    workers_left = storm.threads;
    storm_team(storm.threads + 2, any_role);
    struct rng rng = storm_rng_of(1000);
    storm_empty_boxes(&rng);
    return 0;
}
