/* Signals are blocked and read from a signalfd: PID 1 has no default handlers, and nothing here is interrupted. */
#include "helper.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int queue = -1;
static int64_t stop_at;
static bool has_limit;
static sigset_t mask_before;
static struct sigaction pipe_action_before;

int signals_open(void)
{
    sigset_t taken;
    sigemptyset(&taken);
    const int numbers[] = {
        SIGCHLD, SIGTERM, SIGINT,   SIGHUP, SIGQUIT, SIGUSR1,
        SIGALRM, SIGUSR2, SIGWINCH, SIGPWR, 37, /* STOPSIGNALs of some images; 37 is what runtimes take SIGRTMIN+3 for
                                                   (musl reports 38) */
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaddset(&taken, numbers[i]);
    sigprocmask(SIG_BLOCK, &taken, &mask_before);
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, &pipe_action_before);
    return queue = signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* In the new process, before exec: as the helper found them. */
void signals_restore(void)
{
    sigaction(SIGPIPE, &pipe_action_before, NULL);
    sigprocmask(SIG_SETMASK, &mask_before, NULL);
}

/* Stop after so many seconds, as if SIGTERM had come, and ignore stop signals until then. */
void signals_limit(long seconds)
{
    has_limit = true;
    alarm((unsigned)seconds);
}

/* The kernel's alarm: no process can claim SI_KERNEL. */
static bool is_time_limit(const struct signalfd_siginfo *info)
{
    return info->ssi_signo == SIGALRM && info->ssi_code == SI_KERNEL;
}

/*
 * Whether a signal comes from outside the container. As PID 1 the helper sees sender 0 for processes outside its PID
 * namespace; no process inside can claim SI_USER with another sender. Elsewhere (a shared namespace, a test) every
 * sender counts as outside.
 */
static bool is_from_outside(const struct signalfd_siginfo *info)
{
    return is_time_limit(info) || getpid() != 1 || (info->ssi_code == SI_USER && info->ssi_pid == 0);
}

/* The runtime stops PID 1 with the image's STOPSIGNAL, which may be any signal. */
static bool is_stop(const struct signalfd_siginfo *info)
{
    return is_from_outside(info) && (info->ssi_signo == SIGTERM || is_time_limit(info) || getpid() == 1);
}

/* Whether a process has a handler for the signal (SigCgt in its status). */
static bool catches(pid_t process, int number)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", (int)process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        close(fd);
    text[size > 0 ? size : 0] = '\0';
    const char *caught = strstr(text, "\nSigCgt:");
    return caught && (strtoull(caught + strlen("\nSigCgt:"), NULL, 16) >> (number - 1)) & 1;
}

/*
 * A signal from outside goes to the whole process group. One that the program sends to PID 1 goes to the program
 * alone, and only if it handles the signal: without the helper the program would be PID 1, for which the kernel
 * discards signals without a handler.
 */
static void forward(const struct signalfd_siginfo *info, pid_t process)
{
    int number = is_time_limit(info) ? SIGTERM : (int)info->ssi_signo;
    if (is_from_outside(info))
        kill(-process, number);
    else if (catches(process, number))
        kill(process, number);
}

/* Take the signals that have arrived and forward them to `process` (0: none). True if one came from outside. */
bool signals_take(pid_t process)
{
    struct signalfd_siginfo info;
    bool any = false;
    while (read(queue, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD || (has_limit && is_stop(&info) && !is_time_limit(&info)))
            continue;
        any = any || is_from_outside(&info);
        if (!stop_at && is_stop(&info))
            stop_at = monotonic_ms();
        if (process > 0)
            forward(&info, process);
    }
    return any;
}

/* When the container was first asked to stop (monotonic_ms), or 0. */
int64_t signals_stop_at(void)
{
    return stop_at;
}
