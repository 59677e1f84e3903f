/*
 * helper install: called by the first container's postStart hook, so that later containers find the helper, their
 * directories and the FIFOs of inputs that are streamed to them.
 */
#include "helper.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char SELF[] = "/proc/self/exe";

/* A file of the same size is this program already: it may be executing, and replacing it gains nothing. */
static bool is_installed(const char *path)
{
    struct stat self, there;
    return stat(SELF, &self) == 0 && stat(path, &there) == 0 && S_ISREG(there.st_mode) &&
           self.st_size == there.st_size && (there.st_mode & 0555) == 0555;
}

int install_main(int argc, char **argv)
{
    const char *bin = NULL;
    struct list directories = {0}, fifos = {0};
    struct option options[] = {
        {.name = "--bin", .kind = TEXT, .value = &bin, .required = true},
        {.name = "--dir", .kind = LIST, .value = &directories},
        {.name = "--fifo", .kind = LIST, .value = &fifos},
    };
    const struct verb verb = {
        .name = "install",
        .usage = "helper install --bin DIR [--dir PATH]... [--fifo PATH]...",
        .help = "  --bin DIR    copy this program to DIR/helper, mode 0755\n"
                "  --dir PATH   make this directory with its parents, mode 0777\n"
                "  --fifo PATH  make this FIFO with its parents, mode 0666\n"
                "\n"
                "What is there already stays. Exit 0, or 1 with a line on stderr.\n",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    parse_options(&verb, argc, argv);

    char *target;
    if (asprintf(&target, "%s/helper", bin) < 0) {
        say("cannot install: %s", strerror(errno));
        return 1;
    }
    if (!is_installed(target) && copy_file(SELF, target, 0755) != 0) {
        say("cannot install %s: %s", target, strerror(errno));
        return 1;
    }
    for (size_t i = 0; i < directories.count; i++) {
        if (make_directory(directories.items[i]) != 0) {
            say("cannot make the directory %s: %s", directories.items[i], strerror(errno));
            return 1;
        }
    }
    for (size_t i = 0; i < fifos.count; i++) {
        if (make_fifo(fifos.items[i]) != 0) {
            say("cannot make the FIFO %s: %s", fifos.items[i], strerror(errno));
            return 1;
        }
    }
    free(target);
    return 0;
}
