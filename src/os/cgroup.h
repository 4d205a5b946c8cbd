/* os/cgroup.h -- the memory limit of the process's control group, version 1 or 2.
 *
 * PURPOSE     What a container may use. The group that the process is in, and those around it, each may have a limit; the least
 *             counts, memory.high like memory.max.
 *
 * WHY no look at the list of mounts: a container that sees its own group alone has it where the mount begins, and the walk from
 *     the group's name outwards ends there. Names on the way that are not there have no limit.
 */
#ifndef OS_CGROUP_H
#define OS_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#define CGROUP_NO_LIMIT UINT64_MAX

/* Below `root`, "" but in tests. False: it is not known in which group the process is, and *bytes stays. Opens files, one at a
 * time; maps two pages meanwhile. */
bool gr_cgroup_limit(const char *root, uint64_t *bytes);

#endif
