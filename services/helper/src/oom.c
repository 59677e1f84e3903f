/* How many processes of this container the kernel has killed for memory. */
#include "helper.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The number after "oom_kill " at the start of a line (not oom_kill_disable, not oom_group_kill); -1 if absent.
 */
static long counter_in(const char *root, const char *file)
{
    char path[4096], text[4096];
    snprintf(path, sizeof path, "%s/%s", root, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0)
        return -1;
    text[size] = '\0';
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "oom_kill ", 9) == 0)
            return strtol(line + 9, NULL, 10);
    }
    return -1;
}

/* cgroup v2, else v1; -1 if neither can be read. */
long oom_kills(const char *cgroup_root)
{
    long kills = counter_in(cgroup_root, "memory.events");
    return kills >= 0 ? kills : counter_in(cgroup_root, "memory/memory.oom_control");
}
