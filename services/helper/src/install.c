/*
 * helper install: called by the first container's postStart hook, so that later containers find the helper, their
 * directories and the FIFOs of inputs that are streamed to them.
 */
#include "helper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char SELF[] = "/proc/self/exe";

/* A file of the same size is this program already: it may be executing, and replacing it gains nothing. */
static bool is_installed(const char *path)
{
    struct stat self, there;
    return stat(SELF, &self) == 0 && lstat(path, &there) == 0 && S_ISREG(there.st_mode) &&
           self.st_size == there.st_size && (there.st_mode & 0555) == 0555;
}

static int is_a_part(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* The parts in the order of their names, one after the other. */
static char *join_parts(const char *directory, size_t *size)
{
    struct dirent **parts;
    int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int count = dir < 0 ? -1 : scandir(directory, &parts, is_a_part, alphasort);
    char *whole = count < 0 ? NULL : calloc(1, 1);
    *size = 0;
    for (int i = 0; i < count && whole; i++) {
        size_t part_size;
        char *part = read_whole(dir, parts[i]->d_name, &part_size);
        char *longer = part ? realloc(whole, *size + part_size + 1) : NULL;
        if (longer) {
            memcpy(longer + *size, part, part_size + 1);
            *size += part_size;
        }
        whole = longer;
        free(part);
    }
    return whole;
}

static bool each(const struct list *list, int (*make)(const char *), const char *what)
{
    bool all = true;
    for (size_t i = 0; i < list->count; i++) {
        if (make(list->items[i]) != 0) {
            print_message("cannot create the %s %s: %s", what, list->items[i], strerror(errno));
            all = false;
        }
    }
    return all;
}

int install_main(int argc, char **argv)
{
    const char *target = NULL, *parts = NULL;
    struct option options[] = {
        {.name = "--bin", .kind = TEXT, .value = &target, .required = true},
        {.name = "--paths", .kind = TEXT, .value = &parts, .required = true},
    };
    const struct verb verb = {
        .name = "install",
        .usage = "helper install --bin DIR --paths DIR",
        .help = "  --bin DIR    copy this program to DIR/helper, mode 0755\n"
                "  --paths DIR  the files in DIR together are the task's paths: put them into BIN/paths, and make its\n"
                "               directories (mode 0777) and FIFOs (mode 0666) with their parents\n"
                "\n"
                "What is there already stays. Exit 0, or 1 with a line on stderr. Once the program is installed, what\n"
                "cannot be made is reported only: executors may have put anything there.\n",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    parse_options(&verb, argc, argv);

    int bin = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t size;
    char *text = join_parts(parts, &size);
    if (bin < 0 || !text) {
        print_message("cannot open %s: %s", bin < 0 ? target : parts, strerror(errno));
        return 1;
    }
    char *program;
    bool again = asprintf(&program, "%s/helper", target) > 0 && is_installed(program);
    int list = again ? -1 : put_file(bin, "paths", text, size);
    struct copying copying = {.replace = true, .follow_first = true, .added_mode = 0755};
    if (!again && (list < 0 || copy_at(&copying, AT_FDCWD, SELF, bin, "helper", target) != 0)) {
        print_message("cannot install %s: %s", target, strerror(errno));
        return 1;
    }
    struct paths paths = {0};
    if (paths_parse(text, size, &paths) != 0) {
        print_message("cannot install %s: %s", target, strerror(errno));
        return 1;
    }
    bool made = each(&paths.make, make_directory, "directory");
    made = each(&paths.fifos, make_fifo, "FIFO") && made;
    return made || again ? 0 : 1;
}
