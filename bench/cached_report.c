/* cached_report.c -- what the server says about itself: its counters, its memory, and whose malloc it runs
 * on. */
#include "cached_server.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The path is asked of the dynamic linker, so it is what calls of malloc really reach, however it came to be
 * so. */
const char *report_malloc(void) {
    Dl_info info;
    void *function = dlsym(RTLD_DEFAULT, "malloc");
    return function && dladdr(function, &info) && info.dli_fname ? info.dli_fname : "unknown";
}

static const char *granary_version_or_none(void) {
    const char *(*version)(void);
    *(void **)&version = dlsym(RTLD_DEFAULT, "granary_version");
    return version ? version() : "none";
}

/* A "Name:  123 kB" line of /proc/self/status. */
static unsigned long status_kib(const char *status, const char *name) {
    const char *line = strstr(status, name);
    return line ? strtoul(line + strlen(name), NULL, 10) : 0;
}

static void read_status(char *text, size_t size) {
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = file >= 0 ? read(file, text, size - 1) : 0;
    text[got > 0 ? got : 0] = '\0';
    if (file >= 0)
        close(file);
}

struct report {
    char *text;
    size_t size;
    size_t used;
};

__attribute__((format(printf, 2, 3))) static void add(struct report *report, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(report->text + report->used, report->size - report->used, format, arguments);
    va_end(arguments);
    if (size > 0 && (size_t)size < report->size - report->used)
        report->used += (size_t)size;
}

static void add_number(struct report *report, const char *name, unsigned long long value) {
    add(report, "STAT %s %llu\r\n", name, value);
}

static unsigned long long microseconds(struct timeval time) {
    return (unsigned long long)time.tv_sec * 1000000 + (unsigned long long)time.tv_usec;
}

size_t report_stats(struct server *server, char *text, size_t size) {
    struct report report = {.text = text, .size = size};
    struct store_totals totals;
    struct rusage usage;
    char status[4096];
    store_totals(server->store, &totals);
    getrusage(RUSAGE_SELF, &usage);
    read_status(status, sizeof status);
    add_number(&report, "pid", (unsigned long long)getpid());
    add_number(&report, "uptime_ms", clock_ms() - server->start_ms);
    add_number(&report, "threads", server->worker_count);
    add_number(&report, "curr_connections", atomic_load_explicit(&server->connections_open, memory_order_relaxed));
    add_number(&report, "total_connections", atomic_load_explicit(&server->connections_made, memory_order_relaxed));
    add_number(&report, "commands", workers_commands(server));
    add_number(&report, "get_hits", totals.hits);
    add_number(&report, "get_misses", totals.misses);
    add_number(&report, "sets", totals.sets);
    add_number(&report, "evictions", totals.evictions);
    add_number(&report, "expirations", totals.expirations);
    add_number(&report, "curr_items", totals.items);
    add_number(&report, "bytes", totals.bytes);
    add_number(&report, "user_us", microseconds(usage.ru_utime));
    add_number(&report, "system_us", microseconds(usage.ru_stime));
    add_number(&report, "page_faults", (unsigned long long)(usage.ru_minflt + usage.ru_majflt));
    add_number(&report, "vm_rss_kib", status_kib(status, "VmRSS:"));
    add_number(&report, "vm_hwm_kib", status_kib(status, "VmHWM:"));
    add(&report, "STAT granary_version %s\r\n", granary_version_or_none());
    add(&report, "STAT malloc %.1024s\r\n", report_malloc());
    add(&report, "END\r\n");
    return report.used;
}
