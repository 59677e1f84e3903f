/* Declarations shared by the helper. Functions that can fail return -1 (or false) and set errno. */
#ifndef HELPER_H
#define HELPER_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum {
    EXIT_USAGE = 64,
    EXIT_NO_INPUT = 66,
    EXIT_REFUSED = 70,
    EXIT_NO_PROCESS = 71,
    EXIT_IO = 74,
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127,
    EXIT_BY_SIGNAL = 128, /* plus the signal's number */
    EXIT_OOM = 137,
};

/* main.c: one function per verb; argv[0] is the verb. */
int fill_main(int argc, char **argv);
int install_main(int argc, char **argv);
int rescue_main(int argc, char **argv);
int run_main(int argc, char **argv);
int wait_main(int argc, char **argv);

/* wait.c */
enum { ACK_NOT_IN_TIME = -1, ACK_NOT_AWAITED = -2 };

int await_ack(const char *ack, int64_t milliseconds, int signals);

/* options.c */
enum option_kind { FLAG, TEXT, LIST, NUMBER };

struct list {
    const char **items;
    size_t count;
};

struct option {
    const char *name;
    enum option_kind kind;
    void *value; /* bool *, const char **, struct list * or long * */
    bool required;
    long min, max; /* of a NUMBER */
    bool seen;
};

struct verb {
    const char *name;
    const char *usage; /* one line */
    const char *help;  /* the rest of --help */
    struct option *options;
    size_t option_count;
    bool takes_argv; /* the arguments after "--", at least one */
};

char **parse_options(const struct verb *verb, int argc, char **argv);
_Noreturn void usage_error(const struct verb *verb, const char *argument, const char *problem);

/* files.c */
int write_all(int fd, const void *data, size_t size);
int open_aside(int dir, const char *aside);
int put_file(int dir, const char *name, const void *data, size_t size);
int make_directory(const char *path);
int make_fifo(const char *path);
int make_parents(const char *path);

/* share.c */
void share_at(int dir, const char *name, const dev_t *device);
void share_tree(const char *path);

/* paths.c */
struct paths {
    struct list make, fifos;       /* made by install */
    struct list share;             /* directories of the task's volume that are mounted in executors */
    struct list place;             /* files of the task where nothing can be mounted */
    struct list fill, fresh;       /* directories to fill from the image, but for those in `fresh` */
    struct list outputs, patterns; /* whose links are followed out of the volume */
};

char *read_whole(int dir, const char *name, size_t *size);
int list_append(struct list *list, const char *item);
int paths_parse(char *text, size_t size, struct paths *paths);
int paths_read(const char *file, struct paths *paths);
bool is_below(const char *path, const struct list *directories);

/* copy.c */
struct copying {
    bool replace;            /* what is there already */
    bool keep_owner;         /* owner, mode and times */
    bool skip_unreadable;    /* leave out what this uid cannot read */
    bool follow_first;       /* the path to copy itself may be a link */
    mode_t added_mode;       /* without keep_owner */
    const struct list *skip; /* directories to leave out */
    FILE *record;            /* list of the copies */
    dev_t device;            /* other devices are not entered */
};

int open_parent(int root, const char *path, bool make, const char **name);
int copy_at(struct copying *copying, int from, const char *name, int to, const char *to_name, const char *path);
void allow_many_files(void);

/* place.c */
int place_open(const struct paths *paths, const char *data_root);
const char *place_all(void);
bool collect_all(void);
void share_placed(void);

/* clock.c */
int64_t monotonic_ms(void);
int64_t realtime_ns(void);

/* signals.c */
int signals_open(void);
void signals_restore(void);
void signals_limit(long seconds);
bool signals_take(pid_t process);
int64_t signals_stop_at(void);

/* processes.c */
enum spawn_step { SPAWN_FORK, SPAWN_EXEC };

pid_t spawn(char **argv, const int streams[3], enum spawn_step *failed_step);
bool reap(pid_t process, int *status);
void kill_descendants(pid_t group);
void end_descendants(int64_t milliseconds);

/* log.c: the last bytes of a stream, in a file that can be read at any time */
struct log {
    int dir;
    const char *name;
    int fd;
    bool broken;                           /* a write failed; log_close() tries once more */
    int64_t rewrite_at, no_rewrite_before; /* monotonic_ms; 0: no rewrite is waiting, none has been */
    size_t file_size, mark_size;           /* of the file, and of the mark at its start */
    size_t cap;
    char *tail; /* ring of `cap` bytes */
    size_t tail_next, tail_size;
    uint64_t total;
};

void log_open(struct log *log, int dir, const char *name, size_t cap);
void log_append(struct log *log, const char *data, size_t size);
int64_t log_work(struct log *log);
void log_close(struct log *log);

/* stream.c: one of the two output streams of the process */
struct tes_file {
    const char *path;
    int fd;
    bool failed, is_regular;
};

struct stream {
    int pipe;              /* read end; -1 from end of file on */
    int own;               /* the helper's own stdout or stderr; -1 once writing to it failed */
    size_t step;           /* bytes that one write to `own` takes without blocking */
    struct tes_file *file; /* or NULL; both streams may have the same */
    struct log log;
    size_t have, sent, filed; /* of `data`: read, written to `own`, written to `file` */
    char data[64 * 1024];
};

void tes_file_open(struct tes_file *file, const char *path);
bool is_same_file(int one, int other);
void tes_file_close(struct tes_file *file);
void stream_open(struct stream *stream, int own, struct tes_file *file, int dir, const char *log_name,
                 size_t log_bytes);
bool stream_done(const struct stream *stream);
void stream_wants(const struct stream *stream, struct pollfd *slot);
void stream_move(struct stream *stream);
void stream_drop_own(struct stream *stream);
void stream_drop_file(struct stream *stream);

/* message.c: one message line, on stderr and everywhere the stderr of the process goes */
void print_message(const char *format, ...) __attribute__((format(printf, 1, 2)));
void print_messages_also_to(struct stream *stderr_stream);

/* usage.c: of the whole container, in bytes and microseconds; -1 is unknown */
struct usage {
    int64_t user_us, sys_us, peak_memory, read_bytes, written_bytes, disk_bytes;
    long max_rss_kb; /* of the largest process */
};

void measure_usage(const char *cgroup_root, const char *volume, struct usage *usage);

/* cgroup.c */
long oom_kills(const char *root);
void cgroup_usage(const char *root, struct usage *usage);

/* record.c: the facts in exit.json */
struct result {
    int exit_code;
    int signal;
    bool oom;
    bool term;
    int64_t start_ns, end_ns;
    struct usage usage;
};

enum { RESULT_SIZE = 512 };

size_t result_json(const struct result *result, char text[RESULT_SIZE]);
int result_read(int dir, struct result *result, char text[RESULT_SIZE], size_t *size);
bool exists(int dir, const char *name);
void lock_run(int dir);
void unlock_run(int dir);
bool is_unlocked(int dir);
void put_termination_message(const char *path, const char *text, size_t size);

#endif
