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
    snprintf(aside, sizeof aside, ".%s.%d.part", name, (int)getpid()); /* install may run twice at once */
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

/* Return 0 if `path` is a directory now; a new one has mode 0777, independent of the umask. */
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

/* Make `path` with its parents, following no link, and open it to every uid. Sticky and setgid bits (fsGroup) stay. */
int make_directory(const char *path)
{
    const char *name;
    struct stat found;
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int dir = open_parent(root, path, true, &name), status = -1;
    close(root);
    if (dir < 0)
        return -1;
    int made = mkdirat(dir, name, 0777);
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &found) == 0)
        status = (made != 0 && (found.st_mode & 0777) == 0777) || fchmod(fd, (found.st_mode & 07000) | 0777) == 0 ||
                         (found.st_mode & S_IWOTH)
                     ? 0
                     : -1;
    int error = errno;
    if (fd >= 0)
        close(fd);
    close(dir);
    errno = error;
    return status;
}

/* Make a FIFO that any uid can open, with its parents. What is there already stays. */
int make_fifo(const char *path)
{
    const char *name;
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int dir = open_parent(root, path, true, &name), status = -1;
    close(root);
    if (dir < 0)
        return -1;
    if (mkfifoat(dir, name, 0666) == 0)
        status = fchmodat(dir, name, 0666, 0);
    else if (errno == EEXIST)
        status = 0;
    int error = errno;
    close(dir);
    errno = error;
    return status;
}
