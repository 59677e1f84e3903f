/* Counters of this container's cgroup, v2 or v1. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The start of a file; false if it cannot be read. */
static bool read_text(const char *root, const char *file, char *text, size_t size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t have = 0;
    for (ssize_t got; have < size - 1 && (got = read(fd, text + have, size - 1 - have)) > 0;)
        have += (size_t)got;
    close(fd);
    text[have] = '\0';
    return true;
}

/* Return the decimal number at the start of `text`, or -1 if `text` has no digit there or the number is too large. */
static int64_t number(const char *text)
{
    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    return errno ? -1 : value;
}

/* The number after `key`, which includes its separator, at the start of a line; -1 if absent. */
static int64_t counter(const char *root, const char *file, const char *key)
{
    char text[4096];
    if (!read_text(root, file, text, sizeof text))
        return -1;
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, strlen(key)) == 0)
            return number(line + strlen(key));
    }
    return -1;
}

/* The sum of the numbers after `key`, one per block device; 0 if no device has been used, -1 if absent. */
static int64_t sum(const char *root, const char *file, const char *key)
{
    char text[16 * 1024];
    if (!read_text(root, file, text, sizeof text))
        return -1;
    int64_t total = 0;
    for (const char *found = text; (found = strstr(found, key));) {
        found += strlen(key);
        int64_t value = number(found);
        if (value < 0 || __builtin_add_overflow(total, value, &total))
            return -1;
    }
    return total;
}

/* The total is exact, the part in kernel mode is sampled: take the rest as the time in user mode. */
static void cpu_usage_v1(const char *root, struct usage *usage)
{
    int64_t total = counter(root, "cpuacct/cpuacct.usage", ""), system = counter(root, "cpuacct/cpuacct.usage_sys", "");
    usage->user_us = usage->sys_us = -1;
    if (total < 0 || system < 0)
        return;
    usage->sys_us = (system < total ? system : total) / 1000;
    usage->user_us = total / 1000 - usage->sys_us;
}

/* How many processes of this container the kernel has killed for memory; -1 if unknown. */
long oom_kills(const char *root)
{
    int64_t kills = counter(root, "memory.events", "oom_kill ");
    return (long)(kills >= 0 ? kills : counter(root, "memory/memory.oom_control", "oom_kill "));
}

/*
 * What the container has used since it was created. -1: the kernel does not report it.
 * The root cgroup of v2 has no cgroup.type: its counters would be those of the whole node.
 */
void cgroup_usage(const char *root, struct usage *usage)
{
    char text[32];
    if (read_text(root, "cgroup.type", text, sizeof text)) {
        usage->peak_memory = counter(root, "memory.peak", "");
        usage->user_us = counter(root, "cpu.stat", "user_usec ");
        usage->sys_us = counter(root, "cpu.stat", "system_usec ");
        usage->read_bytes = sum(root, "io.stat", " rbytes=");
        usage->written_bytes = sum(root, "io.stat", " wbytes=");
    } else {
        usage->peak_memory = counter(root, "memory/memory.max_usage_in_bytes", "");
        cpu_usage_v1(root, usage);
        usage->read_bytes = sum(root, "blkio/blkio.throttle.io_service_bytes", " Read ");
        usage->written_bytes = sum(root, "blkio/blkio.throttle.io_service_bytes", " Write ");
    }
}
