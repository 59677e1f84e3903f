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
    say("cannot write %s: %s", file->path, strerror(error));
}

void tes_file_open(struct tes_file *file, const char *path)
{
    struct stat opened;
    *file = (struct tes_file){.path = path, .fd = -1};
    /* O_NONBLOCK: a FIFO without a reader is an error, not a wait. */
    if (make_parents(path) != 0 ||
        (file->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666)) < 0) {
        tes_file_failed(file);
        return;
    }
    if (fstat(file->fd, &opened) == 0 && S_ISREG(opened.st_mode) && (opened.st_mode & 0444) != 0444)
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
    stream->have = stream->sent = 0;
    log_open(&stream->log, dir, log_name, log_bytes);
}

bool stream_done(const struct stream *stream)
{
    return stream->pipe < 0 && stream->sent == stream->have;
}

/* What to poll for: room in `own` for what has been read, else more from the process. */
void stream_wants(const struct stream *stream, struct pollfd *slot)
{
    bool pending = stream->sent < stream->have;
    slot->fd = pending ? stream->own : stream->pipe;
    slot->events = pending ? POLLOUT : POLLIN;
    slot->revents = 0;
}

void stream_drop_own(struct stream *stream)
{
    stream->own = -1;
    stream->sent = stream->have;
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

static void receive(struct stream *stream)
{
    ssize_t got = read(stream->pipe, stream->data, sizeof stream->data);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    stream->sent = stream->have = 0;
    if (got <= 0) {
        close(stream->pipe);
        stream->pipe = -1;
        return;
    }
    if (stream->file && stream->file->fd >= 0 && write_all(stream->file->fd, stream->data, (size_t)got) != 0)
        tes_file_failed(stream->file);
    log_append(&stream->log, stream->data, (size_t)got);
    if (stream->own >= 0)
        stream->have = (size_t)got;
}

/* Do what stream_wants() waited for. */
void stream_move(struct stream *stream)
{
    if (stream->sent < stream->have)
        send_step(stream);
    else if (stream->pipe >= 0)
        receive(stream);
}
