/*
 * Files of the task in directories where nothing can be mounted (`/`, `/etc`, …): they are copied to their place before
 * the process starts and back into the task's volume when it has ended, so that they are ordinary files meanwhile. And
 * files outside the volume to which links in outputs lead.
 */
#include "helper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_COPIED = 256 * 1024 * 1024 }; /* larger ones become links: the container's own disk is not the task's */

struct placed {
    bool there, link, of_image; /* of_image: no executor has made it, the image has it */
    struct stat seen;
};

static const struct paths *task;
static const char *volume; /* the data root, mounted */
static int volume_fd = -1;
static struct placed *places;

int place_open(const struct paths *paths, const char *data_root)
{
    task = paths;
    volume = data_root;
    volume_fd = open(data_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    places = calloc(paths->place.count + 1, sizeof *places);
    allow_many_files();
    return volume_fd >= 0 && places ? 0 : -1;
}

static int place_one(const char *path, struct placed *place)
{
    const char *name;
    struct stat source;
    int status = -1, dir = open_parent(volume_fd, path, false, &name);
    place->of_image = true;
    if (dir < 0)
        return errno == ENOENT ? 0 : -1;
    if (fstatat(dir, name, &source, AT_SYMLINK_NOFOLLOW) == 0)
        place->of_image = false;
    if (place->of_image) {
        status = errno == ENOENT ? 0 : -1;
    } else if (S_ISDIR(source.st_mode) || source.st_size > MAX_COPIED) {
        char *target;
        if (asprintf(&target, "%s%s", volume, path) >= 0) {
            unlink(path);
            status = symlink(target, path);
            place->link = true;
            free(target);
        }
    } else {
        struct copying copying = {.replace = true};
        status = copy_at(&copying, dir, name, AT_FDCWD, path, path);
    }
    int error = errno;
    close(dir);
    errno = error;
    return status;
}

/* Put the task's files where nothing is mounted. NULL, or the one that cannot be placed, and errno. */
const char *place_all(void)
{
    for (size_t i = 0; i < task->place.count; i++) {
        const char *path = task->place.items[i];
        (void)!make_parents(path); /* programs expect the directory of an output to be there */
        if (place_one(path, &places[i]) != 0)
            return path;
        places[i].there = lstat(path, &places[i].seen) == 0;
    }
    return NULL;
}

static bool is_unchanged(const struct placed *place, const struct stat *now)
{
    const struct stat *then = &place->seen;
    return place->there && now->st_dev == then->st_dev && now->st_ino == then->st_ino &&
           now->st_size == then->st_size && now->st_mtim.tv_sec == then->st_mtim.tv_sec &&
           now->st_mtim.tv_nsec == then->st_mtim.tv_nsec;
}

static bool collect_links(const char *path);

/* What a path names outside the volume, following links, goes to the same path in the volume. */
static bool copy_in(const char *path, mode_t added_mode)
{
    const char *name;
    int dir = open_parent(volume_fd, path, true, &name);
    struct copying copying = {.replace = true, .follow_first = true, .added_mode = added_mode};
    int status = dir < 0 ? -1 : copy_at(&copying, AT_FDCWD, path, dir, name, path);
    int error = errno;
    if (dir < 0)
        print_message("cannot copy %s into the task's volume: %s", path, strerror(error));
    else
        close(dir);
    if (status != 0)
        return error == ECANCELED;
    return collect_links(path);
}

static bool collect_placed(size_t index)
{
    const char *path = task->place.items[index], *name;
    struct placed *place = &places[index];
    struct stat now;
    if (lstat(path, &now) == 0) {
        bool is_needed = !is_unchanged(place, &now) || (place->of_image && is_below(path, &task->outputs));
        return !is_needed || (place->link && S_ISLNK(now.st_mode)) || copy_in(path, 0);
    }
    if (!place->there || errno != ENOENT)
        return true;
    int dir = open_parent(volume_fd, path, false, &name); /* the process has removed it */
    if (dir >= 0) {
        unlinkat(dir, name, 0);
        close(dir);
    }
    return true;
}

/* Remove "." and ".." segments. */
static void normalize(char *path)
{
    char *out = path;
    for (const char *in = path; *in;) {
        in += strspn(in, "/");
        size_t length = strcspn(in, "/");
        if (length == 2 && strncmp(in, "..", 2) == 0) {
            while (out > path && *--out != '/')
                ;
        } else if (length > 0 && !(length == 1 && *in == '.')) {
            *out++ = '/';
            memmove(out, in, length);
            out += length;
        }
        in += length;
    }
    if (out == path)
        *out++ = '/';
    *out = '\0';
}

/* The target of the link `path` as an absolute path, to be freed. */
static char *target_of(const char *path)
{
    char target[PATH_MAX], *parent = strdup(path), *whole = NULL, *real;
    ssize_t size = readlink(path, target, sizeof target - 1);
    if (size > 0 && parent) {
        target[size] = '\0';
        char *slash = strrchr(parent, '/');
        slash[slash == parent] = '\0';
        real = realpath(parent, NULL);
        if (*target == '/')
            whole = strdup(target);
        else if (real && asprintf(&whole, "%s/%s", real, target) < 0)
            whole = NULL;
        free(real);
    }
    free(parent);
    if (whole)
        normalize(whole);
    return whole;
}

static bool is_in_volume(const char *path)
{
    return is_below(path, &task->share) || is_below(path, &(struct list){.items = &volume, .count = 1});
}

/* Targets already copied to the volume; several links may lead to one target, and links may form loops. */
static struct list copied;

/* The filer sees the volume alone: what a link leads to outside of it is copied to its path there. */
static bool collect_link(const char *path)
{
    struct stat found;
    char *target = target_of(path);
    bool done = true;
    if (target && !is_in_volume(target) && !is_below(target, &copied) && stat(path, &found) == 0 &&
        (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode))) {
        if (list_append(&copied, target) != 0)
            return false;
        return copy_in(target, 0444); /* `target` stays in the list */
    }
    free(target);
    return done;
}

static bool collect_children(const char *path)
{
    DIR *entries = opendir(path);
    bool all = true;
    for (struct dirent *child; entries && (child = readdir(entries));) {
        char *child_path;
        bool may_hold_links = child->d_type == DT_LNK || child->d_type == DT_DIR || child->d_type == DT_UNKNOWN;
        if (!may_hold_links || strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0)
            continue;
        if (asprintf(&child_path, "%s/%s", path, child->d_name) < 0)
            break;
        all = collect_links(child_path) && all;
        free(child_path);
    }
    if (entries)
        closedir(entries);
    return all;
}

/* Of every link at or below `path`. */
static bool collect_links(const char *path)
{
    struct stat found;
    signals_take(0);
    if (signals_stop_at() || lstat(path, &found) != 0)
        return true;
    if (S_ISLNK(found.st_mode))
        return collect_link(path);
    return !S_ISDIR(found.st_mode) || collect_children(path);
}

static bool collect_matches(const char *pattern)
{
    glob_t found;
    bool all = collect_links(pattern); /* a file may have the very name of the pattern */
    if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            all = collect_links(found.gl_pathv[i]) && all;
        globfree(&found);
    }
    return all;
}

/* Copy into the volume what is named by the task, or by a link in its outputs, and lies outside. False: not all. */
bool collect_all(void)
{
    bool all = true;
    for (size_t i = 0; i < task->place.count && !signals_stop_at(); i++)
        all = collect_placed(i) && all;
    for (size_t i = 0; i < task->outputs.count && !signals_stop_at(); i++)
        all = collect_links(task->outputs.items[i]) && all;
    for (size_t i = 0; i < task->patterns.count && !signals_stop_at(); i++)
        all = collect_matches(task->patterns.items[i]) && all;
    return all;
}

/* For the filers and executors of other users, what has been copied into the volume from its place. */
void share_placed(void)
{
    for (size_t i = 0; i < task->place.count; i++) {
        const char *name;
        int dir = open_parent(volume_fd, task->place.items[i], false, &name);
        if (dir < 0)
            continue;
        share_at(dir, name, NULL);
        close(dir);
    }
}
