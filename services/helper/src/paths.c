/* The list of a task's paths: too many for arguments or the environment. NUL-terminated entries, each a kind and a
 * path. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct list *list_of(struct paths *paths, char kind)
{
    switch (kind) {
    case 'm':
        return &paths->make;
    case 'q':
        return &paths->fifos;
    case 's':
        return &paths->share;
    case 'p':
        return &paths->place;
    case 'f':
        return &paths->fill;
    case 'x':
        return &paths->fresh;
    case 'o':
        return &paths->outputs;
    case 'w':
        return &paths->patterns;
    default:
        return NULL;
    }
}

int list_append(struct list *list, const char *item)
{
    if ((list->count & (list->count - 1)) == 0) { /* a power of two: full */
        const char **more = realloc(list->items, (list->count ? list->count * 2 : 1) * sizeof *more);
        if (!more)
            return -1;
        list->items = more;
    }
    list->items[list->count++] = item;
    return 0;
}

/* Read a whole file; the result ends with a NUL of its own. NULL and errno if it cannot be read. */
char *read_whole(int dir, const char *name, size_t *size)
{
    struct stat found;
    char *text = NULL;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    *size = 0;
    if (fd >= 0 && fstat(fd, &found) == 0 && (text = malloc((size_t)found.st_size + 1))) {
        for (ssize_t got;
             *size < (size_t)found.st_size && (got = read(fd, text + *size, (size_t)found.st_size - *size)) > 0;)
            *size += (size_t)got;
        text[*size] = '\0';
    }
    if (fd >= 0)
        close(fd);
    return text;
}

/* Entries of a kind that is not known are ignored. */
int paths_parse(char *text, size_t size, struct paths *paths)
{
    for (char *entry = text; entry < text + size; entry += strlen(entry) + 1) {
        struct list *list = list_of(paths, *entry);
        if (list && entry[1] == '/' && list_append(list, entry + 1) != 0)
            return -1;
    }
    return 0;
}

int paths_read(const char *file, struct paths *paths)
{
    size_t size;
    char *text = read_whole(AT_FDCWD, file, &size);
    return text ? paths_parse(text, size, paths) : -1;
}

/* Whether `path` is one of the directories or lies below one. */
bool is_below(const char *path, const struct list *directories)
{
    for (size_t i = 0; i < directories->count; i++) {
        size_t length = strlen(directories->items[i]);
        if (strncmp(path, directories->items[i], length) == 0 && (path[length] == '/' || path[length] == '\0'))
            return true;
    }
    return false;
}
