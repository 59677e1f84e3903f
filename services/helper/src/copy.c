/* Copies of files and directories below a directory that others can write to: no symbolic link on the way is followed.
 */
#include "helper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Open the directory that contains `path` below the directory `root`, name by name. If `make`, missing directories are
 * created, open to every uid. *name is the last segment, in `path` itself.
 */
int open_parent(int root, const char *path, bool make, const char **name)
{
    int dir = fcntl(root, F_DUPFD_CLOEXEC, 0);
    char segment[NAME_MAX + 1];
    for (;;) {
        path += strspn(path, "/");
        size_t length = strcspn(path, "/");
        if (path[length + strspn(path + length, "/")] == '\0') {
            *name = path;
            return dir;
        }
        if (dir < 0 || length > NAME_MAX) {
            errno = dir < 0 ? errno : ENAMETOOLONG;
            break;
        }
        memcpy(segment, path, length);
        segment[length] = '\0';
        int made = make ? mkdirat(dir, segment, 0777) : -1;
        int next = openat(dir, segment, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next >= 0 && made == 0)
            (void)!fchmod(next, 0777); /* independent of the umask */
        int error = errno;
        close(dir);
        errno = error;
        dir = next;
        path += length;
        if (dir < 0)
            return -1;
    }
    int error = errno;
    if (dir >= 0)
        close(dir);
    errno = error;
    return -1;
}

static int copy_content(int in, int out)
{
    static char buffer[256 * 1024];
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

/* Copy the owner (if this uid may change it), the mode and the time. */
static void keep_attributes(int fd, const struct stat *source, mode_t added)
{
    if (fchown(fd, source->st_uid, source->st_gid) != 0) {
        /* the file keeps this uid */
    }
    (void)!fchmod(fd, (source->st_mode & 07777) | added);
    (void)!futimens(fd, (struct timespec[]){source->st_atim, source->st_mtim});
}

static void recorded(const struct copying *copying, int dir, const char *name, const char *path)
{
    struct stat made;
    if (copying->record && fstatat(dir, name, &made, AT_SYMLINK_NOFOLLOW) == 0)
        fprintf(copying->record, "%llu %lld %lld %ld %s%c", (unsigned long long)made.st_ino, (long long)made.st_size,
                (long long)made.st_mtim.tv_sec, made.st_mtim.tv_nsec, path, '\0');
}

/* A mount point such as /etc/hosts cannot be replaced, so its content is. */
static int copy_over_mount(int in, int to, const char *name)
{
    int out = openat(to, name, O_WRONLY | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (out < 0)
        return -1;
    int error = lseek(in, 0, SEEK_SET) == 0 && copy_content(in, out) == 0 ? 0 : errno;
    if (close(out) != 0 && !error)
        error = errno;
    errno = error;
    return error ? -1 : 0;
}

static int copy_regular(const struct copying *copying, int in, const struct stat *source, int to, const char *name,
                        const char *path)
{
    char aside[64];
    snprintf(aside, sizeof aside, ".poiesis-%d.part", (int)getpid());
    int error = 0, out = open_aside(to, aside);
    if (out < 0)
        return -1;
    if (copy_content(in, out) != 0)
        error = errno;
    else if (copying->keep_owner)
        keep_attributes(out, source, 0);
    else
        (void)!fchmod(out, (source->st_mode & 0777) | copying->added_mode);
    if (close(out) != 0 && !error)
        error = errno;
    bool renamed = !error && renameat(to, aside, to, name) == 0;
    if (!renamed) {
        error = error ? error : errno;
        unlinkat(to, aside, 0);
    }
    if ((error == EXDEV || error == EBUSY) && copy_over_mount(in, to, name) == 0)
        error = 0;
    if (!error)
        recorded(copying, to, name, path);
    errno = error;
    return error ? -1 : 0;
}

static int copy_link(const struct copying *copying, int from, const char *name, int to, const char *to_name,
                     const char *path)
{
    char target[PATH_MAX];
    ssize_t size = readlinkat(from, name, target, sizeof target - 1);
    if (size < 0)
        return -1;
    target[size] = '\0';
    unlinkat(to, to_name, 0);
    if (symlinkat(target, to, to_name) != 0)
        return -1;
    recorded(copying, to, to_name, path);
    return 0;
}

static int failed(const char *path)
{
    int error = errno;
    if (error != ECANCELED)
        print_message("cannot copy %s: %s", path, strerror(error));
    errno = error;
    return -1;
}

static int copy_children(struct copying *copying, int source, int target, const char *path)
{
    DIR *entries = fdopendir(source);
    int status = 0;
    if (!entries) {
        close(source);
        return -1;
    }
    for (struct dirent *child; (child = readdir(entries));) {
        char *child_path;
        if (strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0)
            continue;
        if (asprintf(&child_path, "%s/%s", path, child->d_name) < 0)
            break;
        if (copy_at(copying, dirfd(entries), child->d_name, target, child->d_name, child_path) != 0)
            status = -1;
        free(child_path);
        if (status != 0 && errno == ECANCELED)
            break;
    }
    int error = errno;
    closedir(entries);
    errno = error;
    return status;
}

static int copy_directory(struct copying *copying, int from, const char *name, const struct stat *source, int to,
                          const char *to_name, const char *path)
{
    if (copying->device && source->st_dev != copying->device)
        return 0; /* a mount */
    copying->device = source->st_dev;
    int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in < 0)
        return copying->skip_unreadable ? 0 : failed(path);
    if (copying->replace)
        unlinkat(to, to_name, 0); /* unless it is a directory */
    if (mkdirat(to, to_name, 0777) == 0)
        recorded(copying, to, to_name, path);
    int out = openat(to, to_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (out < 0) {
        int status = copying->replace ? failed(path) : 0; /* 0: the task has replaced it with a file */
        close(in);
        return status;
    }
    if (copying->keep_owner)
        keep_attributes(out, source, 0777);
    else
        (void)!fchmod(out, 0777);
    int status = copy_children(copying, in, out, path);
    int error = errno;
    close(out);
    errno = error;
    return status;
}

/*
 * Copy from/name, which `path` names to users, to to/to_name. Special files are left out. If something
 * cannot be copied, report it, copy the rest, and return -1 with the errno of the last failure.
 */
int copy_at(struct copying *copying, int from, const char *name, int to, const char *to_name, const char *path)
{
    struct stat source, there;
    int follow = copying->follow_first ? 0 : AT_SYMLINK_NOFOLLOW;
    copying->follow_first = false;
    if (copying->skip && is_below(path, copying->skip))
        return 0;
    if (fstatat(from, name, &source, follow) != 0)
        return errno == ENOENT ? 0 : -1;
    bool exists_there = fstatat(to, to_name, &there, AT_SYMLINK_NOFOLLOW) == 0;
    int status = 0;
    if (S_ISDIR(source.st_mode)) {
        status = copy_directory(copying, from, name, &source, to, to_name, path);
    } else if (exists_there && !copying->replace) {
        return 0;
    } else if (S_ISLNK(source.st_mode)) {
        status = copy_link(copying, from, name, to, to_name, path);
    } else if (S_ISREG(source.st_mode)) {
        int in = openat(from, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (in < 0)
            status = copying->skip_unreadable ? 0 : -1;
        else
            status = copy_regular(copying, in, &source, to, to_name, path);
        int error = errno;
        if (in >= 0)
            close(in);
        errno = error;
    }
    return status != 0 && !S_ISDIR(source.st_mode) ? failed(path) : status;
}

/* A copy needs two open files per level of directories. */
void allow_many_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}
