/* A capped log: the whole output while it is short; beyond 2 * cap bytes it becomes a mark and the last `cap`, and
 * grows again. The mark contains the number of bytes left out, from which a reader computes positions in the output. */
#include "helper.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char MARK[] = "[poiesis: %llu bytes of earlier output left out]\n";
enum {
    MARK_MOST = sizeof MARK + 16, /* "%llu" becomes up to 20 digits */
    REWRITE_PAUSE_MS =
        200, /* a rename may write the file to disk: a flood of output must not become a flood of those */
};

void log_open(struct log *log, int dir, const char *name, size_t cap)
{
    *log = (struct log){.dir = dir, .name = name, .cap = cap, .tail = malloc(cap ? cap : 1)};
    if (!log->tail)
        log->cap = 0;
    log->fd = put_file(dir, name, "", 0);
    log->broken = log->fd < 0;
}

static void keep_tail(struct log *log, const char *data, size_t size)
{
    log->total += size;
    if (size > log->cap) {
        data += size - log->cap;
        size = log->cap;
    }
    if (size == 0)
        return;
    size_t first = log->cap - log->tail_next < size ? log->cap - log->tail_next : size;
    memcpy(log->tail + log->tail_next, data, first);
    memcpy(log->tail, data + first, size - first);
    log->tail_next = (log->tail_next + size) % log->cap;
    log->tail_size = log->tail_size + size < log->cap ? log->tail_size + size : log->cap;
}

static char tail_at(const struct log *log, size_t index)
{
    size_t oldest = log->tail_size == log->cap ? log->tail_next : 0;
    return log->tail[(oldest + index) % log->cap];
}

/* How many of the oldest bytes to leave out so that the tail begins at a line, if one begins in its first half. */
static size_t cut_line(const struct log *log)
{
    for (size_t i = 0; i < log->tail_size / 2; i++)
        if (tail_at(log, i) == '\n')
            return i + 1;
    return 0;
}

/* Replace the file by [mark +] tail. */
static int rewrite(struct log *log)
{
    char aside[NAME_MAX + 1];
    snprintf(aside, sizeof aside, ".%s.part", log->name);
    int fd = open_aside(log->dir, aside);
    if (fd < 0)
        return -1;
    size_t older = log->tail_size == log->cap ? log->cap - log->tail_next : 0; /* bytes after the seam of a full ring */
    size_t newer = log->tail_size - older;
    size_t left_out = log->total > log->tail_size ? cut_line(log) : 0;
    size_t from_older = left_out < older ? left_out : older, from_newer = left_out - from_older;
    unsigned long long before = log->total - log->tail_size + left_out;
    char mark[MARK_MOST];
    int mark_size = before ? snprintf(mark, sizeof mark, MARK, before) : 0;
    if (write_all(fd, mark, mark_size) != 0 ||
        write_all(fd, log->tail + log->tail_next + from_older, older - from_older) != 0 ||
        write_all(fd, log->tail + from_newer, newer - from_newer) != 0 ||
        renameat(log->dir, aside, log->dir, log->name) != 0) {
        close(fd);
        unlinkat(log->dir, aside, 0);
        return -1;
    }
    if (log->fd >= 0)
        close(log->fd);
    log->fd = fd;
    log->mark_size = mark_size;
    log->file_size = mark_size + log->tail_size - left_out;
    log->rewrite_at = 0;
    log->no_rewrite_before = monotonic_ms() + REWRITE_PAUSE_MS;
    return 0;
}

void log_append(struct log *log, const char *data, size_t size)
{
    keep_tail(log, data, size);
    if (log->broken || log->rewrite_at || size == 0)
        return;
    if (log->file_size + size > 2 * log->cap) {
        log->rewrite_at = log->no_rewrite_before > 0 ? log->no_rewrite_before : 1;
        log_work(log);
    } else {
        log->broken = write_all(log->fd, data, size) != 0;
        log->file_size += size;
    }
}

/* Do what is due, and return in how many milliseconds to call again (-1: no need). */
int64_t log_work(struct log *log)
{
    if (log->broken || !log->rewrite_at)
        return -1;
    int64_t left = log->rewrite_at - monotonic_ms();
    if (left > 0)
        return left;
    log->broken = rewrite(log) != 0;
    return -1;
}

void log_close(struct log *log)
{
    size_t mark_size = log->mark_size ? log->mark_size : MARK_MOST; /* a file without one would get one */
    if (log->broken || log->rewrite_at || log->file_size > log->cap + mark_size)
        rewrite(log);
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
    log->broken = true;
}
