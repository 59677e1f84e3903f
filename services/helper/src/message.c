#include "helper.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct stream *also;

void print_messages_also_to(struct stream *stderr_stream)
{
    also = stderr_stream;
}

void print_message(const char *format, ...)
{
    char line[1024] = "poiesis: ";
    size_t size = strlen(line);
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(line + size, sizeof line - size - 1, format, arguments);
    va_end(arguments);
    if (wanted < 0)
        return;
    size = strlen(line); /* shorter than wanted if the text was cut */
    line[size++] = '\n';

    /* Nothing may be reading: a message is not worth hanging for. */
    struct pollfd writable = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&writable, 1, 1000) == 1)
        (void)!write(STDERR_FILENO, line, size);
    if (!also)
        return;
    log_append(&also->log, line, size);
    if (also->file && also->file->fd >= 0)
        (void)!write(also->file->fd, line, size);
}
