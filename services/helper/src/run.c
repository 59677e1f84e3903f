/*
 * helper run: PID 1 of an executor or filer container. Runs argv without a shell, sends its output to three places, and
 * records what became of it in the run directory, so that the recorder needs neither this container nor Kubernetes to
 * know.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    EXIT_JSON_MARGIN_S = 3, /* SIGKILL comes so long before the kubelet's, to leave time for exit.json */
    KILL_AGAIN_MS = 100,
    END_MS = 5000,     /* for what does not die of SIGKILL */
    DRAIN_MS = 10000,  /* for the readers of our own stdout and stderr */
    HURRIED_MS = 1000, /* the same two after a stop signal */
    OOM_LATE_MS = 200,
    OOM_POLL_MS = 10,
    BACK_OFF_MAX_MS = 30000,
};

static struct {
    const char *run, *after, *in, *out, *err, *paths, *volume, *on_failure, *termination_log, *cgroup_root, *ack;
    long log_bytes, grace, time_limit, ack_timeout, retry_exit_code, retry_attempts;
    bool ignore_error, keep_modes, rerun, retry_killed;
} options = {
    .in = "/dev/null",
    .on_failure = "exit",
    .termination_log = "/dev/termination-log",
    .cgroup_root = "/sys/fs/cgroup",
    .log_bytes = 65536,
    .grace = 30,
    .ack_timeout = 60,
    .retry_exit_code = -1,
    .retry_attempts = -1,
};

static struct option option_table[] = {
    {.name = "--run", .kind = TEXT, .value = &options.run, .required = true},
    {.name = "--after", .kind = TEXT, .value = &options.after},
    {.name = "--stdin", .kind = TEXT, .value = &options.in},
    {.name = "--stdout", .kind = TEXT, .value = &options.out},
    {.name = "--stderr", .kind = TEXT, .value = &options.err},
    {.name = "--paths", .kind = TEXT, .value = &options.paths},
    {.name = "--volume", .kind = TEXT, .value = &options.volume},
    {.name = "--keep-modes", .kind = FLAG, .value = &options.keep_modes},
    {.name = "--log-bytes", .kind = NUMBER, .value = &options.log_bytes, .min = 0, .max = 1L << 30},
    {.name = "--grace", .kind = NUMBER, .value = &options.grace, .min = 1, .max = 366L * 24 * 3600},
    {.name = "--time-limit", .kind = NUMBER, .value = &options.time_limit, .min = 1, .max = 366L * 24 * 3600},
    {.name = "--on-failure", .kind = TEXT, .value = &options.on_failure},
    {.name = "--ignore-error", .kind = FLAG, .value = &options.ignore_error},
    {.name = "--ack", .kind = TEXT, .value = &options.ack},
    {.name = "--ack-timeout", .kind = NUMBER, .value = &options.ack_timeout, .min = 1, .max = 366L * 24 * 3600},
    {.name = "--retry-exit-code", .kind = NUMBER, .value = &options.retry_exit_code, .min = 1, .max = 255},
    {.name = "--retry-attempts", .kind = NUMBER, .value = &options.retry_attempts, .min = 0, .max = 1000},
    {.name = "--retry-killed", .kind = FLAG, .value = &options.retry_killed},
    {.name = "--rerun", .kind = FLAG, .value = &options.rerun},
    {.name = "--termination-log", .kind = TEXT, .value = &options.termination_log},
    {.name = "--cgroup-root", .kind = TEXT, .value = &options.cgroup_root},
};

static const struct verb verb = {
    .name = "run",
    .usage = "helper run --run DIR [OPTION]... -- ARGV...",
    .help =
        "  --run DIR               this container's run directory: started, exit.json, stdout, stderr\n"
        "  --after DIR             the previous executor's run directory: do not run, and exit 0, if that failed or\n"
        "                          did not run either\n"
        "  --stdin FILE            default /dev/null\n"
        "  --stdout FILE           also write stdout to FILE, made with its parents\n"
        "  --stderr FILE           also write stderr to FILE; may be the same\n"
        "  --paths FILE            the task's paths, as install has put them there\n"
        "  --volume DIR            the task's volume: files to place are copied from there before, and back at the\n"
        "                          end, with what links in outputs lead to outside of it\n"
        "  --keep-modes            do not open the task's files to other uids at the end, unless it failed\n"
        "  --log-bytes N           keep the last N bytes of each stream in the run directory (default 65536)\n"
        "  --grace SECONDS         SIGKILL what is left SECONDS-3 after a stop signal (default 30)\n"
        "  --time-limit SECONDS    stop the process after SECONDS, and ignore stop signals (default: no limit)\n"
        "  --on-failure exit|continue   continue: record the failure in DIR/failed and exit 0\n"
        "  --ignore-error          exit 0 for any exit code of the process (the true code is in exit.json)\n"
        "  --ack FILE              before another exit code than 0 wait until FILE exists and has content ...\n"
        "  --ack-timeout SECONDS   ... at most SECONDS (default 60), or until a stop signal\n"
        "  --retry-exit-code CODE  start argv again, with back-off, when it exits with CODE ...\n"
        "  --retry-attempts N      ... at most N times more\n"
        "  --retry-killed          also when a signal ended it, but for out of memory\n"
        "  --rerun                 run although DIR holds the files of an earlier run\n"
        "  --termination-log FILE  default /dev/termination-log\n"
        "  --cgroup-root DIR       default /sys/fs/cgroup\n"
        "\n"
        "Exits with the process's code (128+n after signal n). An out-of-memory kill in the container: always 137.\n"
        "64 usage, 66 no stdin file, 70 will not run (again), 71 no process to be had, 74 output not written,\n"
        "126 not executable, 127 not found.\n",
    .options = option_table,
    .option_count = sizeof option_table / sizeof option_table[0],
    .takes_argv = true,
};

static int run_dir = -1;
static int signal_queue = -1;
static struct paths paths;
static struct tes_file out_file, err_file;
static struct stream out, err;

static void check_options(void)
{
    if (strcmp(options.on_failure, "exit") != 0 && strcmp(options.on_failure, "continue") != 0)
        usage_error(&verb, "--on-failure", "must be exit or continue");
    if ((options.paths != NULL) != (options.volume != NULL))
        usage_error(&verb, "--paths", "requires --volume");
    if ((options.retry_exit_code >= 0) != (options.retry_attempts >= 0))
        usage_error(&verb, "--retry-exit-code", "requires --retry-attempts");
    if (options.retry_killed && options.retry_attempts < 0)
        usage_error(&verb, "--retry-killed", "requires --retry-attempts");
}

static bool failed_before(void)
{
    int before = options.after ? open(options.after, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool failed = before >= 0 && (exists(before, "failed") || exists(before, "skipped"));
    if (before >= 0)
        close(before);
    return failed;
}

static bool put(const char *name, const void *data, size_t size)
{
    int fd = put_file(run_dir, name, data, size);
    if (fd < 0)
        print_message("cannot write %s/%s: %s", options.run, name, strerror(errno));
    else
        close(fd);
    return fd >= 0;
}

/* The one place that turns what happened into the helper's exit code, and has the last word on `failed`. */
static int decide(const struct result *result)
{
    int code = result->exit_code;
    bool go_on = false;
    if (result->oom)
        code = EXIT_OOM; /* always: reason OOMKilled with exit code 0 wedges the Pod */
    else if (options.ignore_error)
        code = 0;
    else if (code != 0 && !result->term)
        go_on = strcmp(options.on_failure, "continue") == 0;

    if (go_on) {
        put("failed", "", 0);
        if (exists(run_dir, "failed"))
            return 0; /* else later containers would not see it, so Kubernetes must */
    } else {
        unlinkat(run_dir, "failed", 0);
    }
    unlinkat(run_dir, "skipped", 0); /* it ran, so a file with this name is not ours */
    return code;
}

/*
 * The Pod ends with the first container that fails, and a recorder that is down at that moment is not restarted, so the
 * logs would be lost. So this container stays until the recorder has recorded the outcome of the task.
 */
static void await_recorder(void)
{
    if (options.ack && !signals_stop_at())
        await_ack(options.ack, options.ack_timeout * 1000, signal_queue);
}

/* A container may be started twice (its record lost by the runtime). The process must not be. */
static bool ran_before(int *code)
{
    struct result result = {0};
    char text[RESULT_SIZE];
    size_t size;
    if (exists(run_dir, "exit.json")) {
        if (result_read(run_dir, &result, text, &size) != 0) {
            print_message("%s/exit.json is malformed; not running", options.run);
            *code = EXIT_REFUSED;
            return true;
        }
        put_termination_message(options.termination_log, text, size);
        *code = decide(&result);
        if (*code != 0)
            await_recorder();
        return true;
    }
    if (exists(run_dir, "started")) {
        print_message("%s/started exists without exit.json: an earlier run has no recorded outcome; not running again",
                      options.run);
        *code = EXIT_REFUSED;
        return true;
    }
    return false;
}

static void remove_leftovers(void)
{
    static const char *const names[] = {"exit.json", "started", "failed", "skipped"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlinkat(run_dir, names[i], 0);
}

/* NULL for a file that is our own stream, which gets the bytes in any case. */
static struct tes_file *distinct(struct tes_file *file, int own)
{
    if (file->fd < 0 || !is_same_file(file->fd, own))
        return file;
    tes_file_close(file);
    return NULL;
}

static void open_outputs(void)
{
    struct tes_file *out_to = NULL, *err_to = NULL;
    if (options.err) {
        tes_file_open(&err_file, options.err);
        err.file = err_to = distinct(&err_file, STDERR_FILENO);
    }
    if (options.out) {
        tes_file_open(&out_file, options.out);
        out_to = distinct(&out_file, STDOUT_FILENO);
        if (err_to && out_file.fd >= 0 && err_file.fd >= 0 && is_same_file(out_file.fd, err_file.fd)) {
            tes_file_close(&out_file);
            out_to = err_to;
        }
    }
    stream_open(&out, STDOUT_FILENO, out_to, run_dir, "stdout", (size_t)options.log_bytes);
}

static int64_t sooner(int64_t one, int64_t other)
{
    return one < 0 || (other >= 0 && other < one) ? other : one;
}

/* Wait up to so long (-1: for ever) for output or a signal, and move what there is. True if there is a signal. */
static bool wait_and_move(int64_t milliseconds)
{
    struct pollfd slots[3] = {{.fd = signal_queue, .events = POLLIN}};
    stream_wants(&out, &slots[1]);
    stream_wants(&err, &slots[2]);
    milliseconds = sooner(milliseconds, sooner(log_work(&out.log), log_work(&err.log)));
    if (poll(slots, 3, (int)milliseconds) <= 0)
        return false;
    if (slots[1].revents)
        stream_move(&out);
    if (slots[2].revents)
        stream_move(&err);
    return slots[0].revents != 0;
}

/* Wait until the process ends. After a stop signal, kill all processes in time and set *killed. */
static int wait_for(pid_t process, bool *killed)
{
    int64_t margin = options.grace > EXIT_JSON_MARGIN_S ? options.grace - EXIT_JSON_MARGIN_S : 1;
    int status;
    for (bool signalled = true;;) {
        int64_t timeout = -1;
        if (signalled)
            signals_take(process);
        if (signalled && reap(process, &status))
            return status;
        if (signals_stop_at()) {
            timeout = signals_stop_at() + margin * 1000 - monotonic_ms();
            if (timeout <= 0) {
                kill_descendants(process);
                *killed = true;
                timeout = KILL_AGAIN_MS;
            } else if (timeout > 3600 * 1000) {
                timeout = 3600 * 1000; /* fits poll()'s int */
            }
        }
        signalled = wait_and_move(timeout);
    }
}

/* Everything that could write is dead: take what the pipes still hold. */
static void drain(void)
{
    int64_t begin = monotonic_ms();
    while (!stream_done(&out) || !stream_done(&err)) {
        signals_take(0);
        int64_t left = begin + (signals_stop_at() ? HURRIED_MS : DRAIN_MS) - monotonic_ms();
        if (left > 0) {
            wait_and_move(left);
            continue;
        }
        /* Nothing reads our own streams, or something unkillable holds the pipes: the files get the rest. */
        for (int i = 0; i < 2; i++) {
            struct stream *stream = i ? &err : &out;
            stream_drop_own(stream);
            stream_drop_file(stream);
            struct pollfd readable = {.fd = stream->pipe, .events = POLLIN};
            while (stream->pipe >= 0 && poll(&readable, 1, 0) == 1) {
                stream_move(stream);
                stream_drop_file(stream);
            }
            if (stream->pipe >= 0)
                close(stream->pipe);
            stream->pipe = -1;
        }
    }
}

static int open_stdin(void)
{
    /* O_NONBLOCK: a FIFO without a writer is empty, not a wait. */
    int fd = open(options.in, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        fcntl(fd, F_SETFL, 0);
    return fd;
}

static int open_pipe(struct stream *stream)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    (void)!fchmod(ends[1], 0622); /* a program that becomes another user may still open /dev/stdout */
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    stream->pipe = ends[0];
    return ends[1];
}

static int exec_failed(const char *program)
{
    if (errno == ENOENT && strchr(program, '/') && access(program, F_OK) == 0)
        print_message("%s: interpreter not found", program);
    else if (errno == ENOENT || errno == ENOTDIR)
        print_message("%s: not found", program);
    else
        print_message("%s: %s", program, strerror(errno));
    return errno == ENOENT || errno == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

/* With the process started, or not: close our copies of its ends. */
static pid_t start(char **argv, int *code)
{
    int streams[3] = {open_stdin(), -1, -1};
    pid_t process = -1;
    if (streams[0] < 0) {
        print_message("cannot open stdin %s: %s", options.in, strerror(errno));
        *code = EXIT_NO_INPUT;
        return -1;
    }
    streams[1] = open_pipe(&out);
    streams[2] = open_pipe(&err);
    enum spawn_step step = SPAWN_FORK;
    if (streams[1] >= 0 && streams[2] >= 0)
        process = spawn(argv, streams, &step);
    if (process < 0 && step == SPAWN_EXEC) {
        *code = exec_failed(argv[0]);
    } else if (process < 0) {
        print_message("cannot start a process: %s", strerror(errno));
        *code = EXIT_NO_PROCESS;
    }
    for (int i = 0; i < 3; i++)
        if (streams[i] >= 0)
            close(streams[i]);
    return process;
}

/* The counter may lag behind the kill: look again for a moment if an unexplained SIGKILL ended the process. */
static bool out_of_memory(long kills_before, bool unexplained_kill)
{
    for (int waited = 0;; waited += OOM_POLL_MS) {
        if (kills_before >= 0 && oom_kills(options.cgroup_root) > kills_before)
            return true;
        if (kills_before < 0 || !unexplained_kill || waited >= OOM_LATE_MS)
            return false;
        poll(NULL, 0, OOM_POLL_MS);
    }
}

/* The signal that ended the process, or 0. */
static int ending_signal(int status)
{
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* Start argv once and see it and everything it started to the end. */
static void run_once(char **argv, long kills_before, struct result *result)
{
    bool killed = false;
    result->signal = result->exit_code = 0;
    pid_t process = start(argv, &result->exit_code);
    if (process > 0) {
        int status = wait_for(process, &killed);
        result->signal = ending_signal(status);
        result->exit_code = result->signal ? EXIT_BY_SIGNAL + result->signal : WEXITSTATUS(status);
    }
    result->end_ns = realtime_ns();
    if (result->end_ns < result->start_ns)
        result->end_ns = result->start_ns;
    end_descendants(signals_stop_at() ? HURRIED_MS : END_MS);
    drain();
    result->oom = out_of_memory(kills_before, result->exit_code == EXIT_BY_SIGNAL + SIGKILL && !killed);
    if (result->oom)
        result->exit_code = EXIT_OOM;
}

/* 1 s, 2 s, 4 s ... up to 30 s, of which a random half to all, so that many filers do not retry together. */
static int64_t back_off_ms(long retry)
{
    int64_t most = retry < 5 ? 1000L << retry : BACK_OFF_MAX_MS;
    uint16_t random = 0;
    (void)!getrandom(&random, sizeof random, GRND_NONBLOCK);
    return most / 2 + most / 2 * random / UINT16_MAX;
}

/* Whether the process asked for another try, or could not finish its own. */
static bool may_pass(const struct result *result)
{
    return !result->oom &&
           (result->exit_code == options.retry_exit_code || (options.retry_killed && result->signal != 0));
}

/* After a stop signal the process is not started again. */
static bool may_start_again(void)
{
    return !signals_stop_at();
}

static void run_with_retries(char **argv, long kills_before, struct result *result)
{
    for (long retry = 0;; retry++) {
        run_once(argv, kills_before, result);
        if (!may_pass(result) || retry >= options.retry_attempts || !may_start_again())
            return;
        int64_t pause = back_off_ms(retry);
        print_message("exit code %d: restarting in %.1f s (retry %ld of %ld)", result->exit_code, (double)pause / 1000,
                      retry + 1, options.retry_attempts);
        int64_t until = monotonic_ms() + pause;
        for (int64_t left; (left = until - monotonic_ms()) > 0 && may_start_again();)
            if (wait_and_move(left))
                signals_take(0);
        if (!may_start_again())
            return;
    }
}

static bool put_started(int64_t start_ns)
{
    char text[64];
    int size = snprintf(text, sizeof text, "{\"start_ns\":%" PRId64 "}\n", start_ns);
    return put("started", text, (size_t)size);
}

/* False if there is no exit.json. */
static bool record(const struct result *result)
{
    char text[RESULT_SIZE];
    size_t size = result_json(result, text);
    bool recorded = put("exit.json", text, size);
    put_termination_message(options.termination_log, text, size);
    return recorded;
}

/* Not after a stop signal: the Pod is being deleted, so exit.json must be written in time and no files are needed. */
static bool hand_over(bool failed)
{
    if (!options.paths || signals_stop_at())
        return true;
    bool collected = collect_all();
    for (size_t i = 0; i < paths.share.count && (failed || !options.keep_modes); i++)
        share_tree(paths.share.items[i]);
    if (failed || !options.keep_modes)
        share_placed();
    signals_take(0);
    return collected;
}

/* False, with a message, if the task's files cannot be put where it wants them. */
static bool prepare(void)
{
    if (!options.paths)
        return true;
    if (paths_read(options.paths, &paths) != 0 || place_open(&paths, options.volume) != 0) {
        print_message("cannot open %s or %s: %s", options.paths, options.volume, strerror(errno));
        return false;
    }
    const char *unplaced = place_all();
    if (unplaced)
        print_message(
            "cannot place %s: %s (uid %u of the image); a file in a directory of its own, such as /data, works for "
            "every user",
            unplaced, strerror(errno), (unsigned)geteuid());
    return !unplaced;
}

/* By ptrace or by /proc/1/mem and /proc/1/fd, which take the same rights, it could write exit.json in our name. */
static void forbid_tracing(void)
{
    prctl(PR_SET_DUMPABLE, 0);
}

int run_main(int argc, char **argv)
{
    forbid_tracing();
    signal_queue = signals_open();
    char **process_argv = parse_options(&verb, argc, argv);
    check_options();
    prctl(PR_SET_CHILD_SUBREAPER, 1);

    run_dir = open(options.run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run_dir < 0) {
        print_message("cannot open %s: %s", options.run, strerror(errno));
        return EXIT_REFUSED;
    }
    if (failed_before()) {
        print_message("not running: an earlier executor failed");
        put("skipped", "", 0);
        return 0;
    }
    int earlier_code;
    if (!options.rerun && ran_before(&earlier_code))
        return earlier_code;
    lock_run(run_dir); /* before `started`: lock free, `started` and no exit.json mean that the helper was killed */
    remove_leftovers();

    long kills_before = oom_kills(options.cgroup_root);
    print_messages_also_to(NULL);
    stream_open(&err, STDERR_FILENO, NULL, run_dir, "stderr", (size_t)options.log_bytes);
    print_messages_also_to(&err); /* from here on, messages also reach the log */
    out_file.fd = err_file.fd = -1;
    bool prepared = prepare();
    open_outputs();
    struct result result = {.start_ns = realtime_ns()};
    if (!put_started(result.start_ns)) {
        /* Without it, a second start could not be detected. */
        print_message("not running");
        return EXIT_REFUSED;
    }
    if (options.time_limit)
        signals_limit(options.time_limit);
    if (prepared) {
        run_with_retries(process_argv, kills_before, &result);
    } else {
        result.exit_code = EXIT_NO_INPUT;
        result.end_ns = realtime_ns();
    }
    tes_file_close(&out_file);
    tes_file_close(&err_file);
    bool handed_over = hand_over(result.exit_code != 0 && !options.ignore_error);
    measure_usage(options.cgroup_root, options.volume, &result.usage);
    result.term = signals_stop_at() != 0;
    if (result.exit_code == 0 && (!handed_over || out_file.failed || err_file.failed))
        result.exit_code = EXIT_IO;
    log_close(&out.log);
    log_close(&err.log);
    int code = decide(&result);
    bool recorded = record(&result); /* readers of exit.json find the other files complete ... */
    unlock_run(run_dir);             /* ... and trust it now */
    if (code != 0 && recorded)
        await_recorder();
    return code;
}
