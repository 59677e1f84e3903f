/*
 * helper fill: run in an executor's image before the executor. The parent directories of the task's files are
 * mounted over those of the image, so the content of the image is copied into the task's volume first.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char RECORD[] = "filled";

struct entry {
    unsigned long long inode;
    long long size, seconds;
    long nanoseconds;
    const char *path;
};

static bool parse_entry(const char *text, struct entry *entry)
{
    int path_at = 0;
    int found = sscanf(text, "%llu %lld %lld %ld %n", &entry->inode, &entry->size, &entry->seconds, &entry->nanoseconds,
                       &path_at);
    entry->path = text + path_at;
    return found == 4 && *entry->path == '/';
}

/* Remove an entry that came from another executor's image, unless it has changed since. */
static void take_back(int root, const struct entry *entry)
{
    const char *name;
    struct stat found;
    int dir = open_parent(root, entry->path, false, &name);
    if (dir < 0)
        return;
    if (fstatat(dir, name, &found, AT_SYMLINK_NOFOLLOW) == 0 && found.st_ino == entry->inode) {
        if (S_ISDIR(found.st_mode))
            unlinkat(dir, name, AT_REMOVEDIR); /* only if it is empty */
        else if (found.st_size == entry->size && found.st_mtim.tv_sec == entry->seconds &&
                 found.st_mtim.tv_nsec == entry->nanoseconds)
            unlinkat(dir, name, 0);
    }
    close(dir);
}

/* Directories were recorded before their entries, so remove in reverse order. */
static void take_back_all(int root, int record_dir)
{
    size_t size;
    char *text = read_whole(record_dir, RECORD, &size);
    for (size_t end = size; text && end > 0;) {
        size_t start = end - 1; /* the NUL of the entry */
        while (start > 0 && text[start - 1] != '\0')
            start--;
        struct entry entry;
        if (parse_entry(text + start, &entry))
            take_back(root, &entry);
        end = start;
    }
    free(text);
}

/* Write the error for the task's owner, in the format of a filer's progress.jsonl. */
static void put_error(const char *run, const char *path, const char *reason)
{
    char message[4096], line[8192], *out = line;
    snprintf(message, sizeof message, "cannot copy what the image has in %s into the task's volume: %s", path, reason);
    print_message("%s", message);
    int fd = run ? open(run, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644) : -1;
    if (fd < 0)
        return;
    for (const char *in = message; *in; in++) {
        if (*in == '"' || *in == '\\')
            *out++ = '\\';
        *out++ = *in < ' ' || *in > '~' ? '?' : *in;
    }
    *out = '\0';
    dprintf(fd, "{\"event\":\"error\",\"message\":\"%s\"}\n", line);
    close(fd);
}

static int fill_all(const struct paths *paths, int root, FILE *record, const char *progress)
{
    int status = 0;
    for (size_t i = 0; i < paths->fill.count; i++) {
        const char *path = paths->fill.items[i], *name;
        struct stat image;
        if (stat(path, &image) != 0 || !S_ISDIR(image.st_mode))
            continue; /* the image has nothing there */
        int dir = open_parent(root, path, true, &name);
        struct copying copying = {
            .keep_owner = true, .skip_unreadable = true, .follow_first = true, .skip = &paths->fresh, .record = record};
        if (dir < 0 || copy_at(&copying, AT_FDCWD, path, dir, name, path) != 0) {
            put_error(progress, path, strerror(errno));
            status = -1;
        }
        if (dir >= 0)
            close(dir);
    }
    return status;
}

int fill_main(int argc, char **argv)
{
    const char *list = NULL, *to = NULL, *record_directory = NULL, *progress = NULL;
    struct option options[] = {
        {.name = "--paths", .kind = TEXT, .value = &list, .required = true},
        {.name = "--to", .kind = TEXT, .value = &to, .required = true},
        {.name = "--record", .kind = TEXT, .value = &record_directory, .required = true},
        {.name = "--progress", .kind = TEXT, .value = &progress},
    };
    const struct verb verb = {
        .name = "fill",
        .usage = "helper fill --paths FILE --to DIR --record DIR [--progress FILE]",
        .help = "  --paths FILE   the task's paths; those to fill are copied ...\n"
                "  --to DIR       ... below DIR, where nothing that is there is replaced\n"
                "  --record DIR   what has been copied; a later fill removes what is unchanged of it\n"
                "  --progress FILE  gets a failure as an event of the filer contract\n"
                "\n"
                "Exit 0, or 74 with a line on stderr.\n",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    struct paths paths = {0};
    parse_options(&verb, argc, argv);
    umask(0);
    allow_many_files();
    int root = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int record_dir = open(record_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || record_dir < 0 || paths_read(list, &paths) != 0) {
        print_message("cannot open %s: %s", root < 0 ? to : record_dir < 0 ? record_directory : list, strerror(errno));
        return EXIT_IO;
    }
    take_back_all(root, record_dir);
    int fd = open_aside(record_dir, ".filled.part");
    FILE *record = fd >= 0 ? fdopen(fd, "w") : NULL;
    int status = record ? fill_all(&paths, root, record, progress) : -1;
    if (!record || fclose(record) != 0 || renameat(record_dir, ".filled.part", record_dir, RECORD) != 0) {
        print_message("cannot write %s/%s: %s", record_directory, RECORD, strerror(errno));
        status = -1;
    }
    return status == 0 ? 0 : EXIT_IO;
}
