/* helper: PID 1 of the containers of a task. Dispatch to the verbs. */
#include "helper.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char HELP[] = "usage: helper fill|install|rescue|run|wait OPTION...\n"
                           "\n"
                           "  fill     copy what an image has into directories that will be mounted over it\n"
                           "  install  copy this program to a directory and create directories that any uid can use\n"
                           "  rescue   wait; run a command if another container was killed\n"
                           "  run      run a command as PID 1 of a container and record its outcome\n"
                           "  wait     wait for an acknowledgement file and exit accordingly\n"
                           "\n"
                           "'helper VERB --help' shows the options.\n";

/* A runtime may start us with fds 0-2 closed; a file opened later must not become one of them. */
static void fill_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*main)(int, char **);
    } verbs[] = {{"fill", fill_main},
                 {"install", install_main},
                 {"rescue", rescue_main},
                 {"run", run_main},
                 {"wait", wait_main}};

    fill_standard_streams();
    const char *verb = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verb, verbs[i].name) == 0)
            return verbs[i].main(argc - 1, argv + 1);
    if (strcmp(verb, "--help") == 0) {
        fputs(HELP, stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    fprintf(stderr, "helper: '%s' is not a verb\nusage: helper fill|install|rescue|run|wait OPTION...\n", verb);
    return EXIT_USAGE;
}
