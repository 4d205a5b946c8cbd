/* api/inspect.h -- the process's memory as numbers, for every call that reports them. */
#ifndef API_INSPECT_H
#define API_INSPECT_H

#include <stddef.h>

#include "granary.h"

/* Calls write(context, text, bytes) with the statistics as XML, as malloc_info promises. */
void gr_stats_xml(void (*write)(void *context, const char *text, size_t bytes), void *context);

#endif
