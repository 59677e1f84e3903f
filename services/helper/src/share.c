/* Make what this uid left in a directory usable by the uids of later containers. */
#include "helper.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Symlinks are not followed, other devices not entered, and what cannot be changed stays as it is. As root the helper
 * can change what another user owns, too.
 */
void share_at(int dir, const char *name, const dev_t *device)
{
    struct stat entry;
    if (fstatat(dir, name, &entry, AT_SYMLINK_NOFOLLOW) != 0 || (device && entry.st_dev != *device))
        return;
    bool is_directory = S_ISDIR(entry.st_mode);
    if (!is_directory && !S_ISREG(entry.st_mode))
        return;
    mode_t wanted = is_directory ? 0777 : (entry.st_mode & S_IXUSR) ? 0555 : 0444;
    if ((entry.st_uid == geteuid() || geteuid() == 0) && (entry.st_mode & wanted) != wanted)
        (void)!fchmodat(dir, name, (entry.st_mode | wanted) & 07777, 0);
    if (!is_directory)
        return;

    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (!entries) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *child; (child = readdir(entries));) {
        signals_take(0);
        if (signals_stop_at())
            break;
        if (strcmp(child->d_name, ".") != 0 && strcmp(child->d_name, "..") != 0)
            share_at(dirfd(entries), child->d_name, &entry.st_dev);
    }
    closedir(entries);
}

void share_tree(const char *path)
{
    allow_many_files(); /* one per level */
    share_at(AT_FDCWD, path, NULL);
}
