/* The whole content of an image without a shell: `tool VERB ...`, for tests.
 *
 *   echo WORD...   the words, separated by spaces        cat [FILE...]   the files, else standard input
 *   err WORD...    the same, on standard error           write FILE WORD...   the words, into the file
 *   exit N         exit with N                           sleep SECONDS
 *   eat MIB        touch that much memory, then sleep    env NAME        the variable's value; exits 1 if unset
 *   id             uid and gid
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int words(FILE *out, int count, char **word) {
    for (int i = 0; i < count; i++)
        fprintf(out, "%s%s", i ? " " : "", word[i]);
    fputc('\n', out);
    return fclose(out) ? 1 : 0;
}

static int copy(int from) {
    static char block[65536];
    ssize_t got;
    while ((got = read(from, block, sizeof block)) > 0)
        for (ssize_t done = 0, put; done < got; done += put)
            if ((put = write(1, block + done, got - done)) < 0)
                return 1;
    return got < 0;
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "echo"))
        return words(stdout, argc - 2, argv + 2);
    if (!strcmp(verb, "err"))
        return words(stderr, argc - 2, argv + 2);
    if (!strcmp(verb, "write") && argc > 2) {
        FILE *out = fopen(argv[2], "w");
        if (out)
            return words(out, argc - 3, argv + 3);
        perror(argv[2]);
        return 1;
    }
    if (!strcmp(verb, "cat")) {
        int failed = argc == 2 ? copy(0) : 0;
        for (int i = 2; i < argc; i++) {
            int file = open(argv[i], O_RDONLY);
            if (file < 0)
                perror(argv[i]);
            failed |= file < 0 || copy(file);
            if (file >= 0)
                close(file);
        }
        return failed;
    }
    if (!strcmp(verb, "exit") && argc == 3)
        return atoi(argv[2]);
    if (!strcmp(verb, "sleep") && argc == 3)
        return sleep(atoi(argv[2])) != 0;
    if (!strcmp(verb, "eat") && argc == 3) {
        for (int mib = atoi(argv[2]); mib > 0; mib--) {
            char *block = malloc(1 << 20);
            if (!block)
                return 1;
            memset(block, mib, 1 << 20);
        }
        pause();
    }
    if (!strcmp(verb, "env") && argc == 3) {
        const char *value = getenv(argv[2]);
        return value ? words(stdout, 1, (char *[]){(char *)value}) : 1;
    }
    if (!strcmp(verb, "id")) {
        printf("%d %d\n", (int)getuid(), (int)getgid());
        return 0;
    }
    fprintf(stderr, "usage: tool echo|err|write|cat|exit|sleep|eat|env|id ...\n");
    return 2;
}
