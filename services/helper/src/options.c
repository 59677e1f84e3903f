/* Options: "--name value" or "--name=value", each at most once unless it is a list. Whatever is not understood is
 * refused. */
#include "helper.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void usage_error(const struct verb *verb, const char *argument, const char *problem)
{
    fprintf(stderr, "helper %s: %s: %s\nusage: %s\n", verb->name, argument, problem, verb->usage);
    exit(EXIT_USAGE);
}

static struct option *find(const struct verb *verb, const char *argument, size_t length)
{
    for (size_t i = 0; i < verb->option_count; i++) {
        struct option *option = &verb->options[i];
        if (strlen(option->name) == length && strncmp(option->name, argument, length) == 0)
            return option;
    }
    return NULL;
}

static void set(const struct verb *verb, struct option *option, const char *value, int argc)
{
    if (option->seen && option->kind != LIST)
        usage_error(verb, option->name, "given twice");
    option->seen = true;
    if (option->kind == FLAG) {
        *(bool *)option->value = true;
        return;
    }
    if (*value == '\0')
        usage_error(verb, option->name, "its value is empty");
    if (option->kind == TEXT) {
        *(const char **)option->value = value;
    } else if (option->kind == LIST) {
        struct list *list = option->value;
        if (!list->items && !(list->items = calloc((size_t)argc, sizeof *list->items)))
            usage_error(verb, option->name, "out of memory");
        list->items[list->count++] = value;
    } else {
        char *end;
        errno = 0;
        long number = strtol(value, &end, 10);
        if (strspn(value, "0123456789") != strlen(value) || errno || number < option->min || number > option->max) {
            char problem[160];
            snprintf(problem, sizeof problem, "'%.60s' is not a number from %ld to %ld", value, option->min,
                     option->max);
            usage_error(verb, option->name, problem);
        }
        *(long *)option->value = number;
    }
}

/* Fill the options' values. Return the NULL-terminated argv after "--" (verb->takes_argv) or NULL. May exit. */
char **parse_options(const struct verb *verb, int argc, char **argv)
{
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            printf("usage: %s\n\n%s", verb->usage, verb->help);
            exit(fflush(stdout) == 0 ? 0 : 1);
        }
        size_t length = strcspn(argv[i], "=");
        struct option *option = find(verb, argv[i], length);
        if (!option)
            usage_error(verb, argv[i], "unknown option");
        if (option->kind == FLAG) {
            if (argv[i][length] == '=')
                usage_error(verb, option->name, "takes no value");
            set(verb, option, NULL, argc);
        } else if (argv[i][length] == '=') {
            set(verb, option, argv[i] + length + 1, argc);
        } else {
            if (i + 1 == argc)
                usage_error(verb, option->name, "its value is missing");
            set(verb, option, argv[++i], argc);
        }
    }
    for (size_t o = 0; o < verb->option_count; o++)
        if (verb->options[o].required && !verb->options[o].seen)
            usage_error(verb, verb->options[o].name, "is required");
    if (!verb->takes_argv) {
        if (i < argc)
            usage_error(verb, argv[i], "unexpected argument");
        return NULL;
    }
    if (i + 1 >= argc)
        usage_error(verb, "-- ARGV...", "is required");
    return argv + i + 1;
}
