/* os/os.h -- the port contract: all that granary wants from a system.
 *
 * PURPOSE     Mappings, a clock, a thread, one hook at a thread's end, one in a forked child. A port is a file beside
 *             `os/os_linux.c` that keeps this contract.
 *
 * INVARIANTS
 *   errno-kept     No function here changes errno.
 *   no-malloc      No function here calls malloc, but for the two hooks and the start of a thread, which may.
 *   not-cancelled  No function here is a cancellation point.
 *
 * EDGES       exit-key    key made -> key used    the key of the thread-exit hook exists
 */
#ifndef OS_OS_H
#define OS_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct half;

enum os_result { OS_OK, OS_TAKEN, OS_NO_MEMORY };

/* Zeroed memory for reading and writing at exactly `at`. OS_TAKEN: somebody else's mapping is in the way. */
enum os_result os_map_at(void *at, size_t bytes);

/* Zeroed memory anywhere, page aligned; NULL without memory. */
void *os_map(size_t bytes);

/* Gives whole mappings back. A refusal (the kernel's map limit) leaves the pages mapped: false, purged if possible. */
bool os_unmap(void *at, size_t bytes);

/* The pages read as zero afterwards and cost nothing. False: they are as they were. */
bool os_purge(void *at, size_t bytes);

/* For each page of [at, at + bytes), is it in memory now? 1 or 0; a hint: it may come and go. False: not known. */
bool os_residence(void *at, size_t bytes, uint8_t *there);

/* Grows or shrinks a mapping where it is. False: nothing happened. */
bool os_resize(void *at, size_t old_bytes, size_t new_bytes);

/* Moves the pages of a mapping over another one of new_bytes, which they replace. False: nothing happened. */
bool os_move(void *at, size_t old_bytes, void *over, size_t new_bytes);

/* Moves the pages [at, at + bytes) out into a mapping of their own of new_bytes >= bytes, whose rest is zero. What they leave
 * stays mapped and reads as zero. NULL: nothing happened. */
void *os_detach(void *at, size_t bytes, size_t new_bytes);

/* Asks for huge pages here, or for none. Only advice. */
void os_want_huge_pages(void *at, size_t bytes, bool wanted);

size_t os_page_bytes(void);

/* Milliseconds since some start; coarse: a few ms late, about 5 ns to read. */
uint64_t os_clock_ms(void);

/* Microseconds since some start; fine, about 30 ns to read. */
uint64_t os_clock_us(void);

/* Microseconds of CPU that this thread has had; a system call. */
uint64_t os_thread_us(void);

/* Different in each process, known to nobody outside it. */
uint64_t os_random(void);

/* Likewise, and a new one at each call. */
uint64_t os_secret(void);

/* No access to these pages until os_unguard, and nothing kept in them but what is written meanwhile. False: some of them may be guarded. A
 * guard is a mark in each page's entry,
 * or splits a mapping: that costs the same for any length, but the caller counts them. */
bool os_guard(void *at, size_t bytes, bool split);

/* Access again, to zeroes where it was guarded; `split`: some of the guards do. Pages that were not guarded stay as they are. False: no
 * memory. */
bool os_unguard(void *at, size_t bytes, bool split);

/* Can the kernel mark no pages? */
bool os_guards_split(void);

/* Is the program privileged beyond its caller (setuid)? Then the environment is not trusted. */
bool os_is_secure(void);

/* Is a ThreadSanitizer runtime in the process? Its shadow memory leaves few addresses to us. */
bool os_has_thread_sanitizer(void);

/* The heavy side of an asymmetric fence, see GR_LIGHT_FENCE: every running thread of the process has passed a full fence when it
 * returns. False: none of them has. */
bool os_heavy_fence(void);

/* Starts a thread of our own, with a small stack, to which no signal is delivered. It may call malloc before it returns, in a stretch,
 * and takes locks of libc's that free may be called under. False: no thread may be had. Each one that was started has to be joined. */
bool os_start_thread(void (*body)(void), uint64_t *thread);
void os_join_thread(uint64_t thread);

/* A stretch of this thread's calls, on its stack. It ends by os_stretch_end; when longjmp leaves its frame, if libc says so (glibc); or
 * with the thread. */
struct os_stretch {
    void *word[4];
};

/* True: it is in no other one of this thread's. The last to begin is the first to end. */
bool os_stretch_begin(struct os_stretch *s);
void os_stretch_end(struct os_stretch *s);

/* Waits while *word is `seen`, but no longer than `most_ms`, and perhaps less; 0: until it is woken. */
void os_wait(const struct half *word, uint32_t seen, unsigned most_ms);
void os_wake(const struct half *word);

/* The process's number, and this thread's. */
uint32_t os_process(void);
uint32_t os_thread(void);

/* Has `hook(arg)` called when this thread ends. False: the hook could not be placed. One hook in a process. */
bool os_at_thread_exit(void (*hook)(void *), void *arg);

/* Has `child` called in every child of fork. Takes a lock of libc's: called once, before main. */
void os_at_fork_child(void (*child)(void));

/* Can the 8 bytes at p be read? False also where the system will not tell. */
bool os_is_readable(const void *p);

/* The file that code at `at` was loaded from, "" for the program's own, and the address in it. False: there is none, or the system
 * would need a lock to tell; so it says before os_at_fault was called. */
bool os_file_of(const void *at, const char **file, uintptr_t *inside);

/* An access without permission. */
struct os_fault {
    const void *at;
    const char *verb; /* "read", "write", or "access" where that is not known */
    const void *code; /* the instruction; NULL: not known */
    const void *frame;
};

/* Has `hook` called, in a signal handler, at each access that faults and which this process then has to answer for: what was to
 * happen before happens next, a handler that was there or the system's own end. A handler that the program sets later takes this
 * one's place. Called once, before main. */
void os_at_fault(void (*hook)(const struct os_fault *));

/* The definition of a symbol that comes after ours; NULL: none, or no dynamic loader. */
void *os_next_symbol(const char *name);

/* Writes to a file descriptor; no stdio, no cancellation. */
void os_write(int fd, const char *text, size_t bytes);

/* The first bytes of a file and a NUL, `size` at most. A descriptor is open meanwhile. False: it cannot be read. */
bool os_read_file(const char *path, char *text, size_t size);

#endif
