/* granary.h -- everything a C or C++ user may know of granary.
 *
 * The same calls exist under their libc names in libgranary.so.1 (preloaded or linked) and under the
 * names below everywhere, granary_api included. Unless a call says otherwise:
 *
 *   sizes       in bytes. A request above PTRDIFF_MAX fails.
 *   alignment   16 bytes, or the alignment asked for if that is larger.
 *   zero        a request for 0 bytes gives a unique block that must be freed.
 *   failure     NULL with errno = ENOMEM; nothing is printed and nothing is lost. Success leaves errno as it was.
 *   threads     every call may be made by any thread at any time, before main and in the last destructor of a
 *               thread too. free(p) happens before the malloc that hands the same memory out again (C23 7.24.4.1).
 *   fork        every call works in a child, also of a process with many threads, also of fork or _Fork in a signal
 *               handler. Nothing is locked over fork.
 *   signals     not async-signal-safe, but no call waits for another thread or for the interrupted one: a handler
 *               that allocates cannot deadlock.
 *   cancel      no call is a cancellation point.
 *   misuse      a bad pointer ends the program: one line on stderr that names call, pointer and reason, then abort.
 */
#ifndef GRANARY_H
#define GRANARY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GRANARY_VERSION_MAJOR 0
#define GRANARY_VERSION_MINOR 1
#define GRANARY_VERSION_PATCH 0

#if defined(__GNUC__)
#define GRANARY_EXPORT    __attribute__((visibility("default")))
#define GRANARY_NOTHROW   __attribute__((nothrow))
#define GRANARY_ALLOC     __attribute__((malloc, warn_unused_result))
#define GRANARY_SIZE(...) __attribute__((alloc_size(__VA_ARGS__)))
#define GRANARY_ALIGN(n)  __attribute__((alloc_align(n)))
#define GRANARY_USED      __attribute__((warn_unused_result))
#else
#define GRANARY_EXPORT
#define GRANARY_NOTHROW
#define GRANARY_ALLOC
#define GRANARY_SIZE(...)
#define GRANARY_ALIGN(n)
#define GRANARY_USED
#endif

/* malloc (C23 7.24.4.6): a block of at least `size` bytes with undefined contents. */
GRANARY_EXPORT void *granary_malloc(size_t size) GRANARY_NOTHROW GRANARY_ALLOC GRANARY_SIZE(1);

/* free (C23 7.24.4.3): gives a block of any call of this header back. NULL does nothing. Keeps errno (POSIX.1-2024). */
GRANARY_EXPORT void granary_free(void *ptr) GRANARY_NOTHROW;

/* calloc (C23 7.24.4.2): count * size bytes, zero up to the usable size. Product overflow fails with ENOMEM. */
GRANARY_EXPORT void *granary_calloc(size_t count, size_t size) GRANARY_NOTHROW GRANARY_ALLOC GRANARY_SIZE(1, 2);

/* realloc (C23 7.24.4.7): the block with its contents up to the smaller size, moved where it has to be.
 * ptr NULL: malloc(size). size 0: frees ptr and returns NULL with errno unchanged (glibc's reading of C17).
 * Failure: NULL, ENOMEM, and the block is as it was. Keeps the alignment of malloc only. */
GRANARY_EXPORT void *granary_realloc(void *ptr, size_t size) GRANARY_NOTHROW GRANARY_USED GRANARY_SIZE(2);

/* reallocarray (POSIX.1-2024): realloc of count * size bytes; overflow: NULL, ENOMEM, the block as it was. */
GRANARY_EXPORT void *granary_reallocarray(void *ptr, size_t count, size_t size) GRANARY_NOTHROW GRANARY_USED
    GRANARY_SIZE(2, 3);

/* reallocarr (NetBSD): *(void **)ptr_to_ptr becomes realloc of count * size bytes. Returns 0, or EOVERFLOW (product)
 * or ENOMEM with the pointer and errno unchanged. A product of 0 frees the block and stores NULL. */
GRANARY_EXPORT int granary_reallocarr(void *ptr_to_ptr, size_t count, size_t size) GRANARY_NOTHROW GRANARY_USED;

/* aligned_alloc (C23 7.24.4.1): alignment any power of two (1 included); size need not be a multiple of it.
 * Another alignment: NULL, EINVAL. */
GRANARY_EXPORT void *granary_aligned_alloc(size_t alignment, size_t size) GRANARY_NOTHROW GRANARY_ALLOC GRANARY_SIZE(2)
    GRANARY_ALIGN(1);

/* posix_memalign (POSIX.1-2024): alignment a power of two and a multiple of sizeof(void *), else returns EINVAL;
 * returns ENOMEM without memory. On failure *out and errno are untouched. Returns 0 on success. */
GRANARY_EXPORT int granary_posix_memalign(void **out, size_t alignment, size_t size) GRANARY_NOTHROW GRANARY_USED;

/* memalign (glibc manual 3.2.3.6): an alignment that is not a power of two is rounded up to one; above 2^62: EINVAL. */
GRANARY_EXPORT void *granary_memalign(size_t alignment, size_t size) GRANARY_NOTHROW GRANARY_ALLOC GRANARY_SIZE(2);

/* valloc, pvalloc (glibc manual): page aligned; pvalloc also rounds the size up to whole pages, 0 to one page. */
GRANARY_EXPORT void *granary_valloc(size_t size) GRANARY_NOTHROW GRANARY_ALLOC GRANARY_SIZE(1);
GRANARY_EXPORT void *granary_pvalloc(size_t size) GRANARY_NOTHROW GRANARY_ALLOC;

/* malloc_usable_size (glibc manual): bytes that may be used at ptr, at least what was asked for, the same while the
 * block lives, kept by realloc. NULL: 0. */
GRANARY_EXPORT size_t granary_malloc_usable_size(const void *ptr) GRANARY_NOTHROW;

/* free_sized, free_aligned_sized (C23 7.24.4.4, 7.24.4.5): free with the size (and alignment) that was asked for.
 * NULL does nothing. A size of another size class is a misuse. It ends the program at once for sizes above 32 KiB,
 * else when the block returns to its slab, unless it has been handed out again by then. */
GRANARY_EXPORT void granary_free_sized(void *ptr, size_t size) GRANARY_NOTHROW;
GRANARY_EXPORT void granary_free_aligned_sized(void *ptr, size_t alignment, size_t size) GRANARY_NOTHROW;

/* nallocx, sdallocx (jemalloc manual): the usable size that a request for size with flags would get (0: none could);
 * free with size and flags. flags: the low 6 bits are log2 of the alignment (0: 16 bytes); other bits are ignored. */
GRANARY_EXPORT size_t granary_nallocx(size_t size, int flags) GRANARY_NOTHROW;
GRANARY_EXPORT void granary_sdallocx(void *ptr, size_t size, int flags) GRANARY_NOTHROW;

/* Gives everything that can be given back to the system now: all threads' caches, the shared depots,
 * free pages of slabs, free runs.
 * malloc_trim (glibc manual): keeps about `pad` bytes. Both return 1 if memory went back, else 0. */
GRANARY_EXPORT int granary_trim(void) GRANARY_NOTHROW;
GRANARY_EXPORT int granary_malloc_trim(size_t pad) GRANARY_NOTHROW;

/* The program's last word on a request that cannot be met: no memory from the system or below limit_hard, after all that lies idle, other
 * threads' caches too, has gone back. The thread that made it calls call(size, context). Not 0: it is tried again, as often as call
 * says so. 0: it comes to what the option oom says, NULL or the end. size is at least what was asked for, and at most what its block
 * has. No call is made for what is no lack of memory (products that overflow, sizes above PTRDIFF_MAX, bad alignments), nor by realloc to
 * less, which then keeps its block, nor in a signal handler that interrupted granary itself.
 *
 *   may do      whatever the program may do between two calls of granary: allocate, free, granary_trim, fork, set another callback. What
 *               cannot be met meanwhile, in this thread, is NULL at once, whatever oom says.
 *   may leave   by longjmp (glibc's, which tells us), or by the thread's end. Nothing of granary's is held then, and the block of a realloc
 *               is as it was; but whoever called malloc is left in the middle, libraries with their locks too. pthread_exit loads a
 *               library at its first call: some memory should be free. In C++ it may end the program, as may a callback that throws:
 *               what is unwound has called what is declared not to throw. It must not leave for good by a change of stacks
 *               (swapcontext).
 *   shares      with callers of malloc what is volatile, atomic, or behind a call: compilers take malloc for a call that changes
 *               no variable of the program's.
 *   new         operator new asks here first, then its new_handler, in each round.
 *
 * Several threads may be in it at once. A child of fork keeps it. */
struct granary_oom_callback {
    int (*call)(size_t size, void *context);
    void *context;
};

/* From now on *callback is asked; NULL, as at the start: nobody. Returns the one before, to be called by the new one or to be set again. Both
 * parts change at once. *callback stays as it is and lives as long as the process, since a thread may be about to call it. Async-signal-safe. */
GRANARY_EXPORT const struct granary_oom_callback *
granary_set_oom_callback(const struct granary_oom_callback *callback) GRANARY_NOTHROW;

/* What the process holds, in bytes; sums of counters read while other threads go on. */
struct granary_stats {
    size_t mapped_bytes;     /* address space mapped for blocks */
    size_t used_bytes;       /* in slabs and large blocks that are in use, wholly or in part */
    size_t dirty_bytes;      /* free, still resident, to be used again or purged */
    size_t huge_bytes;       /* blocks with mappings of their own (also in mapped and used) */
    size_t cached_bytes;     /* free blocks in threads' magazines and in depots (also in used) */
    size_t metadata_bytes;   /* address space for records; only what is used of it is resident */
    size_t purged_bytes;     /* given back to the system since the start */
    size_t threads;          /* caches alive */
    size_t limit_soft_bytes; /* near it idle memory goes back first; 0: none */
    size_t limit_hard_bytes; /* for used and dirty together; 0: none */
    size_t purge_turn_bytes; /* the most that went back in one turn of purging what is old; 4 MiB is the bound */
};
GRANARY_EXPORT void granary_get_stats(struct granary_stats *out) GRANARY_NOTHROW;

/* The same as text on file descriptor fd, one value a line; written by write(2) alone. */
GRANARY_EXPORT void granary_print_stats(int fd) GRANARY_NOTHROW;

/* "0.1.0" */
GRANARY_EXPORT const char *granary_version(void) GRANARY_NOTHROW;

#ifdef __cplusplus
}
#endif
#endif
