/* Signals are blocked and read from a signalfd: PID 1 has no default handlers, and nothing here is interrupted. */
#include "helper.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int queue = -1;
static int64_t stop_at;
static sigset_t mask_before;
static struct sigaction pipe_action_before;

int signals_open(void)
{
    sigset_t taken;
    sigemptyset(&taken);
    const int numbers[] = {
        SIGCHLD, SIGTERM,  SIGINT, SIGHUP, SIGQUIT, SIGUSR1,
        SIGUSR2, SIGWINCH, SIGPWR, 37, /* STOPSIGNALs of some images; 37 is what runtimes take SIGRTMIN+3 for (musl
                                          would say 38) */
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

/* From outside the PID namespace (sender 0) only the container runtime signals PID 1: with the image's STOPSIGNAL. */
static bool is_stop(const struct signalfd_siginfo *info)
{
    return info->ssi_signo == SIGTERM || (getpid() == 1 && info->ssi_code == SI_USER && info->ssi_pid == 0);
}

/* Take what has arrived and forward it to the process group (0: to nobody). True if there was more than the end of a
 * child. */
bool signals_take(pid_t group)
{
    struct signalfd_siginfo info;
    bool any = false;
    while (read(queue, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        any = true;
        if (!stop_at && is_stop(&info))
            stop_at = monotonic_ms();
        if (group > 0)
            kill(-group, (int)info.ssi_signo);
    }
    return any;
}

/* When the container was first asked to stop (monotonic_ms), or 0. */
int64_t signals_stop_at(void)
{
    return stop_at;
}
