/* Files: whole writes, "aside and rename", directories that any uid can use. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int write_all(int fd, const void *data, size_t size)
{
    const char *next = data;
    while (size > 0) {
        ssize_t written = write(fd, next, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        next += written;
        size -= (size_t)written;
    }
    return 0;
}

/* A new world-readable file of this name. What stood there (left over, or planted as a symlink or FIFO) is removed. */
int open_aside(int dir, const char *aside)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    int fd = openat(dir, aside, flags, 0644);
    if (fd < 0 && errno == EEXIST && unlinkat(dir, aside, 0) == 0)
        fd = openat(dir, aside, flags, 0644);
    if (fd >= 0)
        (void)!fchmod(fd, 0644);
    return fd;
}

/* Write dir/name so that a reader finds the old content or the whole new one. Return the fd, still open. */
int put_file(int dir, const char *name, const void *data, size_t size)
{
    char aside[NAME_MAX + 1];
    snprintf(aside, sizeof aside, ".%s.part", name);
    int fd = open_aside(dir, aside);
    if (fd < 0)
        return -1;
    if (write_all(fd, data, size) == 0 && renameat(dir, aside, dir, name) == 0)
        return fd;
    int error = errno;
    close(fd);
    unlinkat(dir, aside, 0);
    errno = error;
    return -1;
}

/* 0 if `path` is a directory now; a new one has mode 0777 whatever the umask. */
static int make_one(const char *path)
{
    if (mkdir(path, 0777) == 0)
        return chmod(path, 0777);
    int error = errno;
    struct stat found;
    if (stat(path, &found) == 0 && S_ISDIR(found.st_mode))
        return 0;
    errno = error == EEXIST ? ENOTDIR : error;
    return -1;
}

int make_parents(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -1;
    int status = 0;
    for (char *slash = copy + 1; status == 0 && (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        status = make_one(copy);
        *slash = '/';
    }
    int error = errno;
    free(copy);
    errno = error;
    return status;
}

/* Make `path` with its parents and open it to every uid. The sticky and setgid bits of an existing one (fsGroup) stay.
 */
int make_directory(const char *path)
{
    struct stat found;
    if (make_parents(path) != 0 || make_one(path) != 0 || stat(path, &found) != 0)
        return -1;
    if ((found.st_mode & 0777) == 0777 || chmod(path, (found.st_mode & 07000) | 0777) == 0)
        return 0;
    return (found.st_mode & S_IWOTH) ? 0 : -1;
}

/*
 * Make a FIFO that any uid can open, with its parents. Whatever is there stays: a recorder that is started again must
 * not fail of what an executor has put there meanwhile.
 */
int make_fifo(const char *path)
{
    if (make_parents(path) != 0)
        return -1;
    if (mkfifo(path, 0666) == 0)
        return chmod(path, 0666);
    return errno == EEXIST ? 0 : -1;
}

static int copy_content(int in, int out)
{
    static char buffer[64 * 1024];
    for (;;) {
        ssize_t size = read(in, buffer, sizeof buffer);
        if (size < 0 && errno == EINTR)
            continue;
        if (size <= 0)
            return (int)size;
        if (write_all(out, buffer, (size_t)size) != 0)
            return -1;
        signals_take(0);
        if (signals_stop_at()) {
            errno = ECANCELED;
            return -1;
        }
    }
}

/* Copy a file, aside and rename, making the parents. ECANCELED if a stop signal came meanwhile. */
int copy_file(const char *from, const char *to, mode_t mode)
{
    int error = 0, in = -1, out = -1;
    char *aside = NULL;
    const char *slash = strrchr(to, '/');
    int directory_length = slash ? (int)(slash - to) + 1 : 0;

    if (make_parents(to) != 0 || asprintf(&aside, "%.*s.poiesis-%d.part", directory_length, to, (int)getpid()) < 0)
        return -1;
    if ((in = open(from, O_RDONLY | O_CLOEXEC)) < 0 || (out = open_aside(AT_FDCWD, aside)) < 0)
        error = errno;
    else if (copy_content(in, out) != 0 || fchmod(out, mode) != 0)
        error = errno;
    if (out >= 0 && close(out) != 0 && !error)
        error = errno;
    if (!error && rename(aside, to) != 0)
        error = errno;
    if (error && out >= 0)
        unlink(aside);
    if (in >= 0)
        close(in);
    free(aside);
    errno = error;
    return error ? -1 : 0;
}
