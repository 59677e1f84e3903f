/*
 * helper rescue: a sidecar that does nothing until the end of its Pod. If that comes because a container was killed
 * with its helper, or ran out of memory, the containers after it never start. Then this one becomes the command that
 * does their work, within the Pod's grace period.
 */
#include "helper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { DAY_MS = 24 * 3600 * 1000 };

static const char *runs, *killed, *unless, *ask;

/* PREFIX and a number: the number, else -1. */
static long number_after(const char *prefix, const char *name)
{
    size_t size = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, size) != 0 || name[size] < '0' || name[size] > '9')
        return -1;
    long number = strtol(name + size, &end, 10);
    return *end == '\0' ? number : -1;
}

/* The run directory with the highest number whose container has started; -1 if none has. */
static int last_started(int root, const char *prefix)
{
    int last = -1, copy = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long highest = -1;
    DIR *all = copy >= 0 ? fdopendir(copy) : NULL;
    if (!all && copy >= 0)
        close(copy);
    for (struct dirent *entry; all && (entry = readdir(all));) {
        long number = number_after(prefix, entry->d_name);
        if (number <= highest)
            continue;
        int dir = openat(root, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir < 0 || !exists(dir, "started")) {
            if (dir >= 0)
                close(dir);
            continue;
        }
        if (last >= 0)
            close(last);
        last = dir;
        highest = number;
    }
    if (all)
        closedir(all);
    return last;
}

/* Its helper is gone, and left no record, or one of a process that the kernel killed for memory. */
static bool was_killed(int dir)
{
    struct result result;
    char text[RESULT_SIZE];
    size_t size;
    if (!is_unlocked(dir))
        return false; /* it runs, and is stopped with this one */
    if (!exists(dir, "exit.json"))
        return !exists(dir, "failed"); /* else it ended, and its record could not be written */
    return result_read(dir, &result, text, &size) == 0 && result.oom;
}

/* Whether the last container of one kind was killed before one of the other kind could start. */
static bool is_needed(void)
{
    int root = open(runs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int other = root >= 0 && unless ? last_started(root, unless) : -1;
    int last = root >= 0 && other < 0 ? last_started(root, killed) : -1;
    bool needed = last >= 0 && was_killed(last);
    const int opened[] = {root, other, last};
    for (size_t i = 0; i < sizeof opened / sizeof opened[0]; i++)
        if (opened[i] >= 0)
            close(opened[i]);
    return needed;
}

static bool ran_already(const char *run)
{
    int dir = open(run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ran = dir >= 0 && exists(dir, "exit.json");
    if (dir >= 0)
        close(dir);
    return ran;
}

static void wait_for_stop(int signals)
{
    while (!signals_stop_at()) {
        struct pollfd event = {.fd = signals, .events = POLLIN};
        poll(&event, 1, -1);
        signals_take(0);
    }
}

/* True if FILE has content; false after a stop signal. */
static bool wait_for_request(int signals)
{
    while (!signals_stop_at())
        if (await_ack(ask, DAY_MS, signals) >= 0)
            return true;
    return false;
}

int rescue_main(int argc, char **argv)
{
    const char *run = NULL;
    struct option options[] = {
        {.name = "--run", .kind = TEXT, .value = &run, .required = true},
        {.name = "--runs", .kind = TEXT, .value = &runs, .required = true},
        {.name = "--killed", .kind = TEXT, .value = &killed, .required = true},
        {.name = "--unless", .kind = TEXT, .value = &unless},
        {.name = "--ask", .kind = TEXT, .value = &ask, .required = true},
    };
    const struct verb verb = {
        .name = "rescue",
        .usage = "helper rescue --run DIR --runs DIR --killed PREFIX --ask FILE [--unless PREFIX] -- ARGV...",
        .help =
            "  --run DIR        this container's run directory: if it holds exit.json, ARGV has run and does not "
            "again\n"
            "  --runs DIR       all run directories\n"
            "  --killed PREFIX  on a stop signal: become ARGV if the last container that has started, of those whose\n"
            "                   names are PREFIX and a number, was killed with its helper or ran out of memory ...\n"
            "  --unless PREFIX  ... and none of these has started\n"
            "  --ask FILE       become ARGV as soon as FILE exists and has content\n"
            "\n"
            "Exit 0 on a stop signal if ARGV is not needed, 126 if it cannot be executed.\n",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
        .takes_argv = true,
    };
    prctl(PR_SET_DUMPABLE, 0);
    int signals = signals_open();
    char **command = parse_options(&verb, argc, argv);

    if (ran_already(run)) {
        wait_for_stop(signals);
        return 0;
    }
    if (!wait_for_request(signals) && !is_needed())
        return 0;
    signals_restore();
    execv(command[0], command);
    print_message("cannot execute %s: %s", command[0], strerror(errno));
    return EXIT_NOT_EXECUTABLE;
}
