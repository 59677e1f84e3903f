/* Processes: start one, then find and end the processes it left behind. */
#include "helper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Start argv in a session of its own. Return its pid when it is executing, else -1, errno and the step that failed. */
pid_t spawn(char **argv, const int streams[3], enum spawn_step *failed_step)
{
    int report[2]; /* closed by a successful exec */
    *failed_step = SPAWN_FORK;
    if (pipe2(report, O_CLOEXEC) != 0)
        return -1;
    pid_t process = fork();
    if (process == 0) {
        setsid();
        for (int fd = 0; fd < 3; fd++)
            dup2(streams[fd], fd);
        signals_restore();
        execvp(argv[0], argv);
        int error = errno;
        (void)!write(report[1], &error, sizeof error);
        _exit(EXIT_NOT_FOUND);
    }
    int error = errno;
    close(report[1]);
    if (process > 0) {
        int exec_error;
        error = 0;
        if (read(report[0], &exec_error, sizeof exec_error) == sizeof exec_error) {
            waitpid(process, NULL, 0);
            *failed_step = SPAWN_EXEC;
            error = exec_error;
        }
    }
    close(report[0]);
    errno = error;
    return error ? -1 : process;
}

/* Reap all ended processes; true if `process` is one of them, with its status. */
bool reap(pid_t process, int *status)
{
    bool ended = false;
    int its_status;
    for (pid_t pid; (pid = waitpid(-1, &its_status, WNOHANG)) > 0;) {
        if (pid == process) {
            ended = true;
            *status = its_status;
        }
    }
    return ended;
}

struct relation {
    pid_t pid, parent;
    bool descends;
};

/* Everything in /proc with its parent. */
static size_t list_processes(struct relation **found)
{
    size_t count = 0, room = 0;
    DIR *proc = opendir("/proc");
    *found = NULL;
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        char path[64], text[512];
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid <= 0)
            continue;
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
        if (fd >= 0)
            close(fd);
        text[size > 0 ? size : 0] = '\0';
        int parent;
        char *after_name = strrchr(text, ')'); /* "pid (name) state parent ..."; a name may hold anything */
        if (!after_name || sscanf(after_name, ") %*c %d", &parent) != 1)
            continue;
        if (count == room) {
            struct relation *more = realloc(*found, (room = room * 2 + 64) * sizeof **found);
            if (!more)
                break;
            *found = more;
        }
        (*found)[count++] = (struct relation){.pid = pid, .parent = (pid_t)parent};
    }
    if (proc)
        closedir(proc);
    return count;
}

static bool is_descendant(const struct relation *all, size_t count, pid_t parent)
{
    if (parent == getpid())
        return true;
    for (size_t i = 0; i < count; i++)
        if (all[i].pid == parent)
            return all[i].descends;
    return false;
}

/* A /proc of another PID namespace speaks of other processes. */
static bool proc_is_ours(void)
{
    char self[32] = "";
    return readlink("/proc/self", self, sizeof self - 1) > 0 && strtol(self, NULL, 10) == getpid();
}

/*
 * SIGKILL everything else in the container: all that PID 1 can reach. Otherwise kill only own descendants; for a
 * subreaper these include orphans. `group` is the group of a process not reaped yet, or 0.
 */
void kill_descendants(pid_t group)
{
    if (getpid() == 1) {
        kill(-1, SIGKILL);
        return;
    }
    if (group > 0)
        kill(-group, SIGKILL);
    if (!proc_is_ours())
        return;
    struct relation *all;
    size_t count = list_processes(&all);
    for (bool grown = true; grown;) {
        grown = false;
        for (size_t i = 0; i < count; i++)
            if (!all[i].descends && is_descendant(all, count, all[i].parent))
                grown = all[i].descends = true;
    }
    for (size_t i = 0; i < count; i++)
        if (all[i].descends)
            kill(all[i].pid, SIGKILL);
    free(all);
}

/* Kill and reap until nothing is left, for at most so long: a process may be stuck in the kernel. */
void end_descendants(int64_t milliseconds)
{
    int64_t deadline = monotonic_ms() + milliseconds;
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    for (;;) {
        int ignored;
        reap(0, &ignored);
        kill_descendants(0);
        if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
            return;
        if (monotonic_ms() >= deadline) {
            print_message("some processes cannot be killed");
            return;
        }
        sigtimedwait(&child, NULL, &(struct timespec){.tv_nsec = 20 * 1000 * 1000});
    }
}
