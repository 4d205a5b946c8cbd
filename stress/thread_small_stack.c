/* thread_small_stack.c -- threads with the least stack that there is.
 *
 * A thread with sysconf(_SC_THREAD_STACK_MIN) bytes of stack makes every kind of call. Its stack is painted
 * before, so what the calls took is seen afterwards; a thread that calls nothing shows what libc itself
 * takes. The bound is on the difference. Bound at start, as the shipped library is: the loader's resolver
 * saves the vector registers on the caller's stack, 3 KiB with AVX-512.
 *
 * covers: S71
 */
/* test: sanitize=off timeout=120 libs="-Wl,-z,now" */
/* test: name=guards env="GRANARY_GUARDS=1" sanitize=off timeout=120 hardened=off */
#include "storm_block.h"

enum { paint = 0xa5, most_bytes = 4096 };

static void touch(void *block, size_t size) {
    REQUIRE(block, "no memory: %zu bytes", size);
    *(volatile char *)block = 1;
    ((volatile char *)block)[size - 1] = 1;
}

/* No buffers, no printf: the frames of this function and its callees are those of the library. */
static void *every_call(void *unused) {
    (void)unused;
    static const size_t sizes[] = {1, 100, 1000, 5000, 30000, 200000, 1 << 20, 3 << 20, 80 << 20};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *block = granary_malloc(sizes[i]);
        touch(block, sizes[i]);
        block = granary_realloc(block, sizes[i] + sizes[i] / 2 + 1);
        touch(block, sizes[i] + sizes[i] / 2 + 1);
        granary_free(block);
        block = granary_calloc(1, sizes[i]);
        touch(block, sizes[i]);
        granary_free_sized(block, sizes[i]);
        block = granary_aligned_alloc((size_t)16 << i, sizes[i]);
        touch(block, sizes[i]);
        granary_free(block);
    }
    static char *many[20000]; /* magazines overflow, slabs come and go */
    for (size_t i = 0; i < COUNT_OF(many); i++)
        touch(many[i] = granary_malloc(16 + i % 700), 16);
    for (size_t i = 0; i < COUNT_OF(many); i++)
        granary_free(many[i]);
    struct granary_stats stats;
    granary_get_stats(&stats);
    granary_trim();
    granary_free(granary_malloc(100)); /* and the thread's end has something to give back */
    return NULL;
}

static void *nothing(void *unused) { return unused; }

/* Runs body on a painted stack of `size` bytes above a page that must not be touched; bytes that lost their
 * paint. */
static size_t stack_used(void *(*body)(void *), size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *all = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(all != MAP_FAILED, "mmap: errno %d", errno);
    REQUIRE(mprotect(all, page, PROT_NONE) == 0, "mprotect: errno %d", errno);
    unsigned char *stack = all + page;
    memset(stack, paint, size);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    int error = pthread_attr_setstack(&attributes, stack, size);
    REQUIRE(error == 0, "pthread_attr_setstack: error %d", error);
    pthread_t thread;
    error = pthread_create(&thread, &attributes, body, NULL);
    REQUIRE(error == 0, "pthread_create: error %d", error);
    storm_join(thread);
    pthread_attr_destroy(&attributes);
    size_t clean = 0;
    while (clean < size && stack[clean] == paint)
        clean++;
    munmap(all, size + page);
    return size - clean;
}

int main(int argc, char **argv) {
    storm_begin(argc, argv, (struct storm_options){.seconds = 60, .threads = 1}, NULL);
    size_t size = (size_t)sysconf(_SC_THREAD_STACK_MIN);
    size_t empty = stack_used(nothing, size);
    size_t full = 0;
    for (int i = 0; i < 4; i++) { /* the first is also the process' first use */
        size_t used = stack_used(every_call, size);
        full = used > full ? used : full;
    }
    printf("of a stack of %zu bytes a thread takes %zu, with every call %zu\n", size, empty, full);
    REQUIRE(full <= empty + most_bytes, "the calls take %zu bytes of stack", full - empty);
    return 0;
}
