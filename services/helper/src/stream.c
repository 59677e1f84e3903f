/* Where an output stream of the process goes: the helper's own stream, the file that the task names, the capped log. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void tes_file_failed(struct tes_file *file)
{
    int error = errno;
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
    file->failed = true;
    print_message("cannot write %s: %s", file->path, strerror(error));
}

static bool same(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

bool is_same_file(int one, int other)
{
    struct stat first, second;
    return fstat(one, &first) == 0 && fstat(other, &second) == 0 && same(&first, &second);
}

/*
 * Open the file that the task names. /dev/stdout and other names of the helper's own streams become copies of those:
 * the runtime's pipe may belong to another user, so that it cannot be opened again.
 */
static int open_named(const char *path)
{
    struct stat named, own;
    if (stat(path, &named) == 0 && !S_ISREG(named.st_mode))
        for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++)
            if (fstat(fd, &own) == 0 && same(&named, &own))
                return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    /* O_NONBLOCK: a FIFO without a reader is an error, not a wait. */
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666);
}

void tes_file_open(struct tes_file *file, const char *path)
{
    struct stat opened;
    *file = (struct tes_file){.path = path, .fd = -1};
    if (make_parents(path) != 0 || (file->fd = open_named(path)) < 0) {
        tes_file_failed(file);
        return;
    }
    file->is_regular = fstat(file->fd, &opened) == 0 && S_ISREG(opened.st_mode);
    if (file->is_regular && (opened.st_mode & 0444) != 0444)
        (void)!fchmod(file->fd, (opened.st_mode & 07777) | 0444);
}

void tes_file_close(struct tes_file *file)
{
    if (file->fd < 0)
        return;
    int fd = file->fd;
    file->fd = -1;
    if (close(fd) != 0) /* network file systems report a full disk here */
        tes_file_failed(file);
}

void stream_open(struct stream *stream, int own, struct tes_file *file, int dir, const char *log_name, size_t log_bytes)
{
    struct stat there;
    bool is_regular = fstat(own, &there) == 0 && S_ISREG(there.st_mode);
    stream->pipe = -1;
    stream->own = own;
    stream->step = is_regular ? sizeof stream->data : PIPE_BUF; /* poll() promises room for PIPE_BUF */
    stream->file = file;
    stream->have = stream->sent = stream->filed = 0;
    log_open(&stream->log, dir, log_name, log_bytes);
}

bool stream_done(const struct stream *stream)
{
    return stream->pipe < 0 && stream->sent == stream->have && stream->filed == stream->have;
}

/* What to poll for: room in the file and in `own` for what has been read, else more from the process. */
void stream_wants(const struct stream *stream, struct pollfd *slot)
{
    bool to_file = stream->filed < stream->have, to_own = stream->sent < stream->have;
    slot->fd = to_file ? stream->file->fd : to_own ? stream->own : stream->pipe;
    slot->events = to_file || to_own ? POLLOUT : POLLIN;
    slot->revents = 0;
}

void stream_drop_own(struct stream *stream)
{
    stream->own = -1;
    stream->sent = stream->have;
}

/* Give up a file that still does not take what it has to; a regular file always does. */
void stream_drop_file(struct stream *stream)
{
    if (stream->filed == stream->have)
        return;
    errno = ETIMEDOUT;
    tes_file_failed(stream->file);
    stream->filed = stream->have;
}

static void send_step(struct stream *stream)
{
    size_t left = stream->have - stream->sent;
    ssize_t sent = write(stream->own, stream->data + stream->sent, left < stream->step ? left : stream->step);
    if (sent >= 0)
        stream->sent += (size_t)sent;
    else if (errno != EAGAIN && errno != EINTR)
        stream_drop_own(stream);
}

static void file_step(struct stream *stream)
{
    struct tes_file *file = stream->file;
    size_t left = stream->have - stream->filed;
    ssize_t written = -1;
    if (file->fd >= 0)
        written = write(file->fd, stream->data + stream->filed, left < PIPE_BUF ? left : PIPE_BUF);
    if (written >= 0) {
        stream->filed += (size_t)written;
    } else if (file->fd < 0) { /* the other stream has the same file and failed */
        stream->filed = stream->have;
    } else if (errno != EAGAIN && errno != EINTR) {
        tes_file_failed(file);
        stream->filed = stream->have;
    }
}

/* Regular files take everything at once; pipes and terminals in steps, when poll() promises room. */
static void receive(struct stream *stream)
{
    ssize_t got = read(stream->pipe, stream->data, sizeof stream->data);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    stream->sent = stream->filed = stream->have = 0;
    if (got <= 0) {
        close(stream->pipe);
        stream->pipe = -1;
        return;
    }
    bool has_file = stream->file && stream->file->fd >= 0;
    if (has_file && stream->file->is_regular && write_all(stream->file->fd, stream->data, (size_t)got) != 0)
        tes_file_failed(stream->file);
    log_append(&stream->log, stream->data, (size_t)got);
    stream->have = (size_t)got;
    stream->sent = stream->own >= 0 ? 0 : stream->have;
    stream->filed = has_file && !stream->file->is_regular ? 0 : stream->have;
}

/* Do what stream_wants() waited for. */
void stream_move(struct stream *stream)
{
    if (stream->filed < stream->have)
        file_step(stream);
    else if (stream->sent < stream->have)
        send_step(stream);
    else if (stream->pipe >= 0)
        receive(stream);
}
