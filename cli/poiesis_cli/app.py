"""The command line: the group of all commands, and the errors of the parser."""

import os
from collections.abc import Mapping, Sequence

import click

from poiesis_cli import __version__, terminal
from poiesis_cli.commands import run, server, tasks, usage, waiting
from poiesis_cli.errors import BadUsage, CliError, Exit
from poiesis_cli.invocation import Invocation, common_options
from poiesis_cli.terminal import message
from poiesis_cli.timing import TIMING, Timing

_EPILOG = """\b
Exit codes of run and wait: 0 COMPLETE; EXECUTOR_ERROR: that of the failed executor
  (123 if the server does not return it); 120 SYSTEM_ERROR; 121 CANCELED; 122 PREEMPTED;
  124 --timeout expired, 130 Ctrl-C: the task continues.
All commands: 64 usage error; 65 request rejected by the server; 69 server unavailable;
  76 response is not TES; 77 credentials.

\b
The server and credentials can be set in ~/.config/poiesis/config.toml:
  server = "https://tes.example.org"
"""


@click.group(
    epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="poiesis")
@common_options
def cli() -> None:
    """Run tasks on a GA4GH TES 1.1 server.

    \b
    poiesis run --server https://tes.example.org busybox -- echo hello
    poiesis list --state RUNNING
    poiesis logs -f ID
    poiesis describe ID

    The ID of a task can be shortened to its first characters, at least 4.
    """


for _command in (
    *(run.run, run.create, run.rerun),
    *(tasks.list_, tasks.get, tasks.describe, waiting.wait, tasks.logs, tasks.cancel),
    usage.usage,
    *(server.info, server.login, server.logout, server.token, server.use_server, server.completion),
):
    cli.add_command(_command)


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    timing: Timing = TIMING,
) -> int:
    """Run one command and return its exit code: one of errors.Exit, or an executor's."""
    call = Invocation(environ=os.environ if environ is None else environ, timing=timing)
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="poiesis",
            standalone_mode=False,
            obj=call,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        terminal.print_error(_usage_error(error))
        return Exit.USAGE
    except click.Abort:
        message("poiesis: interrupted")
        return Exit.INTERRUPTED
    except CliError as error:
        terminal.print_error(error)
        return error.exit
    return int(code or Exit.OK)


def _usage_error(error: click.ClickException) -> BadUsage:
    """Return the parser's error in the form of all other errors: a message, then where to look."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "poiesis"
    text = error.format_message()
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        name = error.param.opts[-1] if isinstance(error.param, click.Option) else _argument_name(error)
        text = f"{name}{'' if error.message.startswith('must ') else ':'} {error.message}"
    if text[1:2].islower():
        text = text[0].lower() + text[1:]
    return BadUsage(text.rstrip("."), f"see {path} --help")


def _argument_name(error: click.BadParameter) -> str:
    return "argument" if error.param is None else error.param.make_metavar(error.ctx or click.Context(cli))
