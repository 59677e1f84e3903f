/* What a container has used: CPU time, memory, transfers, disk. */
#include "helper.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DISK_MS = 5000 /* for counting the volume, which may have millions of files */ };

static int64_t microseconds(struct timeval time)
{
    return (int64_t)time.tv_sec * 1000000 + time.tv_usec;
}

/* A file with several links has its share at each. */
static int64_t allocated(const struct stat *entry)
{
    int64_t bytes = (int64_t)entry->st_blocks * 512;
    return S_ISDIR(entry->st_mode) || entry->st_nlink < 2 ? bytes : bytes / (int64_t)entry->st_nlink;
}

/*
 * Add what `name` and everything below it occupies on `device`. False: not counted in time. Symlinks are not followed,
 * other devices and what this uid cannot read are left out.
 */
static bool add_disk(int dir, const char *name, dev_t device, int64_t until, int64_t *bytes)
{
    struct stat entry;
    if (fstatat(dir, name, &entry, AT_SYMLINK_NOFOLLOW) != 0 || entry.st_dev != device)
        return true;
    *bytes += allocated(&entry);
    if (!S_ISDIR(entry.st_mode))
        return true;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (!entries) {
        if (fd >= 0)
            close(fd);
        return true;
    }
    bool counted = true;
    for (struct dirent *child; counted && (child = readdir(entries));) {
        signals_take(0);
        counted = !signals_stop_at() && monotonic_ms() < until;
        if (counted && strcmp(child->d_name, ".") != 0 && strcmp(child->d_name, "..") != 0)
            counted = add_disk(dirfd(entries), child->d_name, device, until, bytes);
    }
    closedir(entries);
    return counted;
}

/* The disk that the files of a directory occupy, in bytes; -1 if it cannot be counted in time. */
static int64_t disk_usage(const char *directory)
{
    struct stat top;
    int64_t bytes = 0;
    if (stat(directory, &top) != 0)
        return -1;
    allow_many_files(); /* one per level */
    bool counted = add_disk(AT_FDCWD, directory, top.st_dev, monotonic_ms() + DISK_MS, &bytes);
    return counted ? bytes : -1;
}

/* Without a cgroup, CPU times are those of all processes that have been reaped. `volume` may be NULL. */
void measure_usage(const char *cgroup_root, const char *volume, struct usage *usage)
{
    struct rusage reaped = {0};
    getrusage(RUSAGE_CHILDREN, &reaped);
    cgroup_usage(cgroup_root, usage);
    if (usage->user_us < 0 || usage->sys_us < 0) {
        usage->user_us = microseconds(reaped.ru_utime);
        usage->sys_us = microseconds(reaped.ru_stime);
    }
    usage->max_rss_kb = reaped.ru_maxrss;
    usage->disk_bytes = volume && !signals_stop_at() ? disk_usage(volume) : -1;
}
