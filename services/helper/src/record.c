/* The files from which the recorder learns what happened. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Only a regular file counts: the executor may have created a directory or a symlink with the name. */
bool exists(int dir, const char *name)
{
    struct stat found;
    return fstatat(dir, name, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(found.st_mode);
}

/*
 * Locked: the helper lives, and what is written in the directory may be the executor's. On the directory itself, which
 * is a mount there: the executor can replace every file in it. The recorder looks by a shared lock, so this may wait
 * for an instant.
 */
void lock_run(int dir)
{
    while (flock(dir, LOCK_EX) != 0 && errno == EINTR) /* some network file systems cannot lock */
        ;
}

void unlock_run(int dir)
{
    flock(dir, LOCK_UN);
}

/* Whether no helper holds the directory; false also where that cannot be known. */
bool is_unlocked(int dir)
{
    if (flock(dir, LOCK_SH | LOCK_NB) != 0)
        return false;
    unlock_run(dir);
    return true;
}

/* Append `,"name":value` to the text; an unknown value is left out. */
static size_t add_number(char text[RESULT_SIZE], size_t size, const char *name, int64_t value)
{
    int added = value < 0 ? 0 : snprintf(text + size, RESULT_SIZE - size, ",\"%s\":%" PRId64, name, value);
    return size + (size_t)added;
}

/* The previous release's controller rejects a record without max_rss_kb. */
size_t result_json(const struct result *result, char text[RESULT_SIZE])
{
    const struct usage *usage = &result->usage;
    int head =
        snprintf(text, RESULT_SIZE,
                 "{\"exit_code\":%d,\"signal\":%d,\"oom\":%s,\"term\":%s,\"start_ns\":%" PRId64 ",\"end_ns\":%" PRId64,
                 result->exit_code, result->signal, result->oom ? "true" : "false", result->term ? "true" : "false",
                 result->start_ns, result->end_ns);
    size_t size = (size_t)head;
    size = add_number(text, size, "max_rss_kb", usage->max_rss_kb);
    size = add_number(text, size, "user_us", usage->user_us);
    size = add_number(text, size, "sys_us", usage->sys_us);
    size = add_number(text, size, "peak_memory_bytes", usage->peak_memory);
    size = add_number(text, size, "read_bytes", usage->read_bytes);
    size = add_number(text, size, "written_bytes", usage->written_bytes);
    size = add_number(text, size, "disk_used_bytes", usage->disk_bytes);
    return size + (size_t)snprintf(text + size, RESULT_SIZE - size, "}\n");
}

/* Read an earlier run's exit.json: what matters of it, and its bytes. */
int result_read(int dir, struct result *result, char text[RESULT_SIZE], size_t *size)
{
    int fd = openat(dir, "exit.json", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, text, RESULT_SIZE - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    char oom[6], term[6];
    if (sscanf(text, "{\"exit_code\":%3d,\"signal\":%3d,\"oom\":%5[a-z],\"term\":%5[a-z],", &result->exit_code,
               &result->signal, oom, term) != 4) {
        errno = EINVAL;
        return -1;
    }
    result->oom = strcmp(oom, "true") == 0;
    result->term = strcmp(term, "true") == 0;
    *size = (size_t)got;
    return 0;
}

/* The kubelet creates this file; without it, no termination message is wanted. */
void put_termination_message(const char *path, const char *text, size_t size)
{
    int fd = open(path, O_WRONLY | O_TRUNC | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write_all(fd, text, size);
    close(fd);
}
