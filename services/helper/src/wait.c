/* helper wait: the Pod's main container. It exits with the outcome of the task, so that the Job has the same outcome.
 */
#include "helper.h"

#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { SAFETY_POLL_MS = 1000 };

/* Return the first character of the file, or -1 while it is missing or empty. */
static int first_character(const char *path)
{
    char first;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t size = read(fd, &first, 1);
    close(fd);
    return size == 1 ? (unsigned char)first : -1;
}

static int watch_directory_of(const char *path)
{
    int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    char *copy = strdup(path);
    if (inotify >= 0 && copy)
        inotify_add_watch(inotify, dirname(copy), IN_CREATE | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE);
    free(copy);
    return inotify; /* without it the safety poll remains */
}

/* The first character of `ack` as soon as it has one; ACK_NOT_IN_TIME; ACK_NOT_AWAITED after a signal. */
int await_ack(const char *ack, int64_t milliseconds, int signals)
{
    int inotify = watch_directory_of(ack);
    int64_t deadline = monotonic_ms() + milliseconds;
    for (;;) {
        int first = first_character(ack);
        if (first >= 0)
            return first;
        int64_t left = deadline - monotonic_ms();
        if (left <= 0)
            return ACK_NOT_IN_TIME;
        struct pollfd events[] = {{.fd = signals, .events = POLLIN}, {.fd = inotify, .events = POLLIN}};
        poll(events, 2, left < SAFETY_POLL_MS ? (int)left : SAFETY_POLL_MS);
        if (signals_take(0))
            return ACK_NOT_AWAITED;
        char ignored[4096];
        if (events[1].revents)
            (void)!read(inotify, ignored, sizeof ignored);
    }
}

int wait_main(int argc, char **argv)
{
    const char *ack = NULL;
    long timeout = 600;
    struct option options[] = {
        {.name = "--ack", .kind = TEXT, .value = &ack, .required = true},
        {.name = "--timeout", .kind = NUMBER, .value = &timeout, .min = 1, .max = 366L * 24 * 3600},
    };
    const struct verb verb = {
        .name = "wait",
        .usage = "helper wait --ack FILE [--timeout SECONDS]",
        .help = "  --ack FILE         wait until FILE exists and has content\n"
                "  --timeout SECONDS  how long (default 600)\n"
                "\n"
                "Exit 0 if the content starts with '0'; else, after the timeout or on SIGTERM, 1.\n",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    prctl(PR_SET_DUMPABLE, 0);
    int signals = signals_open();
    signal(SIGCHLD, SIG_IGN); /* children adopted by PID 1 are reaped by the kernel */
    parse_options(&verb, argc, argv);

    int first = await_ack(ack, timeout * 1000, signals);
    if (first == ACK_NOT_IN_TIME)
        print_message("no acknowledgement in %s within %ld s", ack, timeout);
    return first == '0' ? 0 : 1;
}
