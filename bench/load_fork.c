/* load_fork.c -- what a forked child copies: a heap of small blocks, and a child that looks at it, works and ends.
 *
 * An op is a MiB of blocks. The threads make them and wait; then the process forks. Modes: free (the child frees a random half of the
 * blocks and writes to none), save (it reads all, and copies every eighth into a temporary one that it frees at once, as redis does to
 * save its keys). A page that the child has to itself is one that was copied for it: born_kib when it begins, with what fork itself and
 * the allocator's handlers cost, child_kib when it has done its work. The parent does nothing meanwhile.
 */
#include "load.h"

#include <sys/wait.h>

enum { BLOCK_BYTES_LEAST = 128 };

static const struct load_shape shape = {
    .name = "fork",
    .modes = {{"free", 256, 1}, {"save", 256, 1}},
    .min_size = 16,
    .max_size = 1024, /* log-uniform: 240 bytes on average, more than BLOCK_BYTES_LEAST */
};

static pthread_barrier_t together;
static struct copied { uint64_t born_kib, child_kib; } * copied; /* shared with the child */

static uint64_t blocks_at_most(void) { return (load.ops << 20) / load.threads / BLOCK_BYTES_LEAST + 1; }

/* Pages of this process that no other maps and that were written to. */
static uint64_t own_kib(void) {
    char text[4096];
    int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[n < 0 ? 0 : n] = '\0';
    const char *line = strstr(text, "Private_Dirty:");
    if (!line)
        load_die("no Private_Dirty in /proc/self/smaps_rollup");
    close(fd);
    return strtoull(line + strlen("Private_Dirty:"), NULL, 10);
}

static void free_half(struct worker *w, void **slot) {
    if (load_rand(w) >> 63)
        free(*slot);
}

static void save(struct worker *w, void **slot) {
    size_t size = block_load(*slot) ^ block_key(*slot);
    void *copy = load_rand(w) >> 61 == 0 ? malloc(size) : NULL;
    if (copy)
        free(memcpy(copy, *slot, size));
    else
        w->bad += size >= 16 && block_load((char *)*slot + size - 8) != ~block_load(*slot);
}

static void child(struct worker *w) {
    copied->born_kib = own_kib();
    for (unsigned i = 0; i < load.threads; i++)
        for (void **slot = load.workers[i].slots; *slot; slot++)
            (load_mode_is("free") ? free_half : save)(w, slot);
    copied->child_kib = own_kib();
    _exit(w->bad ? 1 : 0);
}

static void hold(struct worker *w) {
    uint64_t n = 0;
    for (uint64_t bytes = 0; bytes < w->ops << 20 && n + 1 < blocks_at_most(); n++) {
        size_t size = load_size(w);
        w->slots[n] = block_make(w, size);
        bytes += size;
    }
    pthread_barrier_wait(&together);
    if (w->id == 0) {
        int status;
        pid_t pid = fork();
        if (pid == 0)
            child(w);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
            load_die("the child did not end well");
        load_note("born_kib", copied->born_kib);
        load_note("child_kib", copied->child_kib);
    }
    pthread_barrier_wait(&together);
    while (n > 0)
        block_clear(w, &w->slots[--n]);
}

int main(int argc, char **argv) {
    load_parse(argc, argv, &shape);
    pthread_barrier_init(&together, NULL, load.threads);
    copied = mmap(NULL, sizeof *copied, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (copied == MAP_FAILED)
        load_die("no memory for the harness");
    return load_run(hold, blocks_at_most());
}
