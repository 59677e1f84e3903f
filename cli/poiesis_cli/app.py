"""The command line: the commands, their options, and the errors of the parser."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import click
from click.shell_completion import get_completion_class

from poiesis_cli import __version__, oidc, terminal
from poiesis_cli.address import unencrypted, web_url
from poiesis_cli.client import TesClient
from poiesis_cli.config import Config
from poiesis_cli.credentials import StaticCredentials
from poiesis_cli.documents import RunRequest, check_fields, parse_document, task_document
from poiesis_cli.errors import AuthFailed, BadUsage, CliError, Exit, Interrupted, NotFound, TimedOut
from poiesis_cli.follow import LogPrinter, follow_logs, next_steps, print_outcome, wait_for_end
from poiesis_cli.invocation import (
    POSITIVE,
    Invocation,
    OneOf,
    WholeNumber,
    common_options,
    config_option,
    logs_option,
    quiet_option,
    server_option,
    timeout_option,
)
from poiesis_cli.mappings import parse_environment, parse_input, parse_output, parse_pairs
from poiesis_cli.terminal import message
from poiesis_cli.tes import STATES, Task
from poiesis_cli.timing import TIMING, Timing
from poiesis_cli.usage import read_report, usage_params
from poiesis_cli.web import Response, open_session

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


class _RunCommand(click.Command):
    """The `run` command, with advice about options that belong to the command in the container."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" in args:
                raise
            raise click.NoSuchOption(
                error.option_name,
                f"No such option: {error.option_name} (for an option of the command, write -- first).",
                ctx=ctx,
            ) from error


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

    The ID of a task can be shortened to its first characters, at least 4.
    """


@cli.command(cls=_RunCommand)
@server_option
@config_option
@quiet_option
@click.argument("image")
@click.argument("command", nargs=-1, required=True)
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="URL:PATH", help="Stage a URL, or a small local file."
)
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="PATH:URL",
    help="Send a file, or the files that match a pattern.",
)
@click.option("--cpu", type=WholeNumber(1), metavar="CORES", help="CPU cores.")
@click.option("--ram-gb", type=POSITIVE, metavar="GB", help="Memory, in 10**9 bytes.")
@click.option("--disk-gb", type=POSITIVE, metavar="GB", help="Disk, in 10**9 bytes.")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="A variable; its default is your own value."
)
@click.option("-w", "--workdir", metavar="PATH", help="Working directory in the container.")
@click.option("--stdin", metavar="PATH", help="Read standard input from this file in the container.")
@click.option("--stdout", metavar="PATH", help="Write standard output to this file in the container.")
@click.option("--stderr", metavar="PATH", help="Write standard error to this file in the container.")
@click.option("--name", help="Name of the task.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag of the task.")
@click.option(
    "--volume", "volumes", multiple=True, metavar="PATH", help="An empty directory in the container."
)
@click.option("--preemptible", is_flag=True, help="Allow the system to stop the task.")
@click.option(
    "--backend-parameter", "parameters", multiple=True, metavar="KEY=VALUE", help="See poiesis info."
)
@click.option("--wait/--detach", default=True, help="Wait for the end (default), or print the id and exit.")
@logs_option
@timeout_option
@click.option("--dry-run", is_flag=True, help="Print the task without sending it.")
@click.pass_obj
def run(
    call: Invocation,
    /,
    image: str,
    command: Sequence[str],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    cpu: int | None,
    env: Sequence[str],
    tags: Sequence[str],
    parameters: Sequence[str],
    preemptible: bool,
    wait: bool,
    logs: bool,
    timeout: float | None,
    dry_run: bool,
    **rest: Any,
) -> int:
    """Run a command in a container and exit with its exit code.

    COMMAND is run in a container of IMAGE without a shell. Ctrl-C leaves the task running.

    \b
    poiesis run busybox -- echo hello
    poiesis run --logs alpine -- sh -c 'date; sleep 5; date'
    poiesis run -i s3://lab/reads.fq:/data/reads.fq -i ./count.sh:/work/count.sh \\
        -o '/out/*.txt:s3://lab/results' --cpu 4 --ram-gb 8 alpine -- sh /work/count.sh
    id=$(poiesis run --detach busybox -- sleep 60)

    If either side of a mapping ends with /, it is a directory. For JSON use: poiesis --output json run ...
    """
    document = task_document(
        RunRequest(
            image=image,
            command=command,
            inputs=[parse_input(text) for text in inputs],
            outputs=[parse_output(text) for text in outputs],
            env=parse_environment(env, call.environ),
            tags=parse_pairs("--tag", tags),
            backend_parameters=parse_pairs("--backend-parameter", parameters),
            cpu_cores=cpu,
            preemptible=preemptible or None,
            **rest,
        )
    )
    if dry_run:
        terminal.write_json(document)
        return Exit.OK
    task_id = _create(call, document)
    if not wait:
        _write_id(call, task_id)
        return Exit.OK
    call.task_id = task_id
    if not call.quiet:
        message(f"task {task_id}")
    return _wait(call, task_id, logs=logs, timeout=timeout, result=call.output == "json")


@cli.command()
@common_options
@click.argument("file", type=click.File("rb"))
@click.option("--allow-unknown-fields", is_flag=True, help="Send fields that TES 1.1 does not define.")
@click.pass_obj
def create(call: Invocation, /, file: BinaryIO, allow_unknown_fields: bool) -> int:
    """Create a task from a JSON or YAML file and print its id.

    Use - for standard input.

    \b
    poiesis create task.yaml
    poiesis run --dry-run busybox -- date | jq '.executors += .executors' | poiesis create -
    """
    name = getattr(file, "name", "<stdin>")
    source = "standard input" if name in {"-", "<stdin>"} else str(name)
    document = parse_document(file.read(), source)
    if not allow_unknown_fields:
        check_fields(document, source)
    _write_id(call, _create(call, document))
    return Exit.OK


@cli.command(name="list")
@common_options
@click.option(
    "--state", type=OneOf(STATES, case_sensitive=False), metavar="STATE", help="Only tasks in this state."
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="Only tasks with this tag; repeat for more tags.",
)
@click.option("--name-prefix", metavar="TEXT", help="Only tasks whose name starts with this text.")
@click.option(
    "--limit",
    type=WholeNumber(0),
    default=100,
    show_default=True,
    metavar="N",
    help="List at most N tasks; 0 for all.",
)
@click.pass_obj
def list_(
    call: Invocation, /, state: str | None, tags: Sequence[str], name_prefix: str | None, limit: int
) -> int:
    """List tasks, usually the newest first.

    The table has one line per task, also in a pipe; --output json prints the documents.

    \b
    poiesis list --state RUNNING --tag project=x
    poiesis list --limit 0 --output json | jq -r '.tasks[].id'
    """
    filters = [("view", "BASIC")]
    if state:
        filters.append(("state", state.upper()))
    if name_prefix:
        filters.append(("name_prefix", name_prefix))
    for tag in tags:
        key, _, value = tag.partition("=")
        filters += [("tag_key", key), ("tag_value", value)]

    async def work() -> list[Task]:
        async with call.client() as client:
            # One more than the limit shows whether there are more.
            return await _list(client, filters, limit + 1 if limit else None)

    tasks = call.run(work())
    shown = tasks[:limit] if limit else tasks
    if call.output == "json":
        terminal.write_json({"tasks": [task.document for task in shown]})
    else:
        terminal.write_tasks(shown)
    if len(tasks) > len(shown):
        message(f"poiesis: there are more than {limit} tasks; list all with --limit 0")
    return Exit.OK


@cli.command()
@common_options
@click.argument("task_id", metavar="ID")
@click.option(
    "--view",
    type=OneOf(["MINIMAL", "BASIC", "FULL"], case_sensitive=False),
    default="FULL",
    show_default=True,
    help="How much the server returns.",
)
@click.pass_obj
def get(call: Invocation, /, task_id: str, view: Any) -> int:
    """Show one task.

    \b
    poiesis get ID
    poiesis get ID --output json | jq '.logs[-1].logs[].exit_code'
    """

    async def work() -> Task:
        async with call.client() as client:
            return await client.with_full_id(task_id, lambda full: client.get(full, view.upper()))

    _write_task(call, call.run(work()))
    return Exit.OK


@cli.command()
@common_options
@quiet_option
@click.argument("task_id", metavar="ID")
@logs_option
@timeout_option
@click.pass_obj
def wait(call: Invocation, /, task_id: str, logs: bool, timeout: float | None) -> int:
    """Wait for the end of a task.

    Prints the task's progress and exits with its exit code.
    If the server does not respond, requests are retried for ten minutes. Ctrl-C leaves the task running.

    \b
    poiesis wait ID && echo good
    poiesis wait ID --quiet --timeout 3600
    """
    call.task_id = task_id
    return _wait(call, task_id, logs=logs, timeout=timeout, result=not logs or call.output == "json")


@cli.command()
@server_option
@config_option
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Print new output until the task has ended.")
@click.option("--executor", type=WholeNumber(0), metavar="N", help="Only executor N; the first is 0.")
@click.option("--stream", type=OneOf(["stdout", "stderr"]), help="Only this stream.")
@click.option("--system", is_flag=True, help="Print the server's messages about the task instead.")
@click.pass_obj
def logs(
    call: Invocation,
    /,
    task_id: str,
    *,
    follow: bool,
    executor: int | None,
    stream: str | None,
    system: bool,
) -> int:
    """Print the output of a task's executors.

    Their standard error goes to standard error.

    With -f, Poiesis returns output while an executor runs; most other servers return it when it has ended.

    \b
    poiesis logs -f ID
    poiesis logs ID --executor 1 --stream stderr
    """
    if follow and system:
        raise BadUsage(
            "--follow cannot be combined with --system", f"see the progress: poiesis wait {task_id}"
        )
    call.task_id = task_id if follow else None
    printer = LogPrinter(executor=executor, streams=(stream,) if stream else ("stdout", "stderr"))

    async def work() -> Task:
        async with call.client(waiting=follow) as client:

            async def read(full: str) -> Task:
                return await (follow_logs(client, full, printer) if follow else client.get(full, "FULL"))

            return await client.with_full_id(task_id, read)

    task = call.run(work())
    if system:
        for attempt in task.attempts:
            terminal.write("".join(f"{line}\n" for line in attempt.system_logs))
        return Exit.OK
    printer.print(task)
    if not printer.printed:
        message(f"poiesis: no such output of task {task_id} ({task.state})")
    return Exit.OK


@cli.command()
@common_options
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def cancel(call: Invocation, /, task_ids: Sequence[str]) -> int:
    """Cancel tasks. Tasks that have ended stay unchanged.

    \b
    poiesis cancel ID
    poiesis list --tag run=7 --output json | jq -r '.tasks[].id' | xargs poiesis cancel
    """

    async def work() -> dict[str, Task | CliError]:
        async with call.client() as client:
            return {task_id: await _cancel(client, task_id) for task_id in task_ids}

    outcomes = call.run(work())
    errors = {task_id: one for task_id, one in outcomes.items() if isinstance(one, CliError)}
    if call.output == "json":
        terminal.write_json(
            [
                {
                    "id": task_id,
                    "state": one.state if isinstance(one, Task) else None,
                    "error": None if isinstance(one, Task) else str(one),
                }
                for task_id, one in outcomes.items()
            ]
        )
    for task_id, one in outcomes.items():
        if isinstance(one, CliError):
            terminal.print_error(one)
        elif one.ended and one.state != "CANCELED":
            message(f"poiesis: task {task_id} had already ended: {one.state}")
        elif call.output != "json":
            terminal.write(f"{task_id}\n")
    return max((error.exit for error in errors.values()), default=Exit.OK)


@cli.command()
@common_options
@click.pass_obj
def info(call: Invocation) -> int:
    """Show information about the server.

    \b
    poiesis info --server https://tes.example.org
    """

    async def work() -> tuple[Mapping[str, Any], str]:
        async with call.client() as client:
            return await client.service_info(), str(client.base)

    document, base = call.run(work())
    if call.as_json:
        terminal.write_json(document)
    else:
        terminal.write_service(document, base)
    return Exit.OK


@cli.command()
@server_option
@config_option
@click.option("--issuer", metavar="URL", help="OpenID issuer [POIESIS_ISSUER].")
@click.option("--client-id", metavar="ID", help="Id of a public client at the issuer [POIESIS_CLIENT_ID].")
@click.option("--scope", metavar="SCOPES", help="Scopes to request [POIESIS_SCOPE].")
@click.pass_obj
def login(call: Invocation, /, issuer: str | None, client_id: str | None, scope: str | None) -> int:
    """Log in with a browser.

    The browser may run on another device. The token is stored for this server only, and renewed as long as
    the issuer allows it.

    \b
    poiesis login --server https://tes.example.org \\
        --issuer https://login.example.org/realms/lab --client-id poiesis-cli
    """
    config = call.settings()
    issuer = issuer or config.identity.issuer
    client_id = client_id or config.identity.client_id
    if issuer is None or client_id is None:
        missing = "--issuer" if issuer is None else "--client-id"
        raise BadUsage(f"{missing} is required", "ask the server's operators, or set it in the configuration")
    if unencrypted(web_url(issuer, "issuer")):
        message("poiesis: warning: the connection to the issuer is not encrypted")
    call.run(_login(call, config, issuer, client_id, scope or config.identity.scope))
    message(f"logged in to {config.base}")
    return Exit.OK


@cli.command()
@server_option
@config_option
@click.pass_obj
def logout(call: Invocation) -> int:
    """Delete the stored token for this server. At the issuer it stays valid until it expires.

    \b
    poiesis logout --server https://tes.example.org
    """
    base, logins = call.settings().base, call.logins()

    async def work() -> bool:
        async with logins.locked():
            found = logins.read(str(base)) is not None
            logins.write(str(base), None)
            return found

    found = call.run(work())
    message(f"logged out of {base}" if found else f"poiesis: you were not logged in to {base}")
    return Exit.OK


@cli.command()
@click.argument("shell", metavar="SHELL", type=OneOf(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print a completion script for SHELL: bash, zsh or fish.

    \b
    bash: poiesis completion bash > ~/.local/share/bash-completion/completions/poiesis
    zsh:  poiesis completion zsh > "${fpath[1]}/_poiesis"
    fish: poiesis completion fish > ~/.config/fish/completions/poiesis.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise BadUsage(f"no completion for {shell}")
    terminal.write(kind(cli, {}, "poiesis", "_POIESIS_COMPLETE").source())
    return Exit.OK


@cli.command()
@common_options
@click.option("--since", metavar="DATE", help="First day, in UTC; default: 30 days before --until.")
@click.option("--until", metavar="DATE", help="Day after the last day; default: tomorrow.")
@click.option(
    "--by",
    "groups",
    multiple=True,
    metavar="GROUP",
    help="A row per month, day, owner, group or tag:KEY; repeat for more.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.pass_obj
def usage(
    call: Invocation,
    /,
    since: str | None,
    until: str | None,
    groups: Sequence[str],
    *,
    as_csv: bool,
) -> int:
    """Show what your tasks used; for administrators, the tasks of all users.

    Only for servers that are Poiesis.

    \b
    poiesis usage --since 2026-11-01 --until 2026-12-01 --by owner
    poiesis usage --by month --by tag:project --csv > usage.csv
    """
    params = usage_params(since, until, groups, as_csv=as_csv)

    async def work() -> Response:
        async with call.client() as client:
            return await client.usage(params)

    response = call.run(work())
    if as_csv:
        terminal.write(response.body.decode("utf-8", "replace"))
        return Exit.OK
    report = read_report(response.json())
    if call.as_json:
        terminal.write_json(report.document)
    else:
        terminal.write_report(report)
    if report.truncated:
        message("poiesis: the report is not complete; request a shorter period or fewer groups")
    return Exit.OK


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


async def _list(client: TesClient, filters: Sequence[tuple[str, str]], limit: int | None) -> list[Task]:
    """Collect tasks, with a counter on a terminal: a long list takes many requests."""
    tasks: list[Task] = []
    spinner = terminal.status("listing tasks")
    try:
        async for task in client.list_tasks(filters, limit):
            tasks.append(task)
            if spinner is not None and len(tasks) % 100 == 0:
                spinner.update(f"listing tasks: {len(tasks)}")
    finally:
        if spinner is not None:
            spinner.stop()
    return tasks


async def _cancel(client: TesClient, task_id: str) -> Task | CliError:
    """Return the task after the cancel, or the error."""

    async def cancel_and_get(full: str) -> Task:
        await client.cancel(full)
        return await client.get(full)

    try:
        return await client.with_full_id(task_id, cancel_and_get)
    except CliError as error:
        return error


def _create(call: Invocation, document: Mapping[str, Any]) -> str:
    async def work() -> str:
        async with call.client() as client:
            return await client.create(document)

    try:
        return call.run(work())
    except Interrupted:
        raise Interrupted(
            "interrupted; the task may or may not have been created", "look for it: poiesis list --limit 10"
        ) from None


async def _login(call: Invocation, config: Config, issuer: str, client_id: str, scope: str) -> None:
    logins = call.logins()
    async with open_session(call.timing) as session:
        found = await oidc.discover(session, issuer)
        code = await oidc.request_code(session, found, client_id, scope, call.timing)
        message(f"Open {code.verification_uri} and enter the code {code.user_code}")
        if code.verification_uri_complete:
            message(f"or open {code.verification_uri_complete}")
        token = await oidc.poll_for_login(
            session, found, code, client_id=client_id, scope=scope, timing=call.timing
        )
        client = call.client_with(session, config.base, StaticCredentials(f"Bearer {token.access_token}"))
        await _check_token(client)
    async with logins.locked():
        logins.write(str(config.base), token)


async def _check_token(client: TesClient) -> None:
    """Raise AuthFailed if the server rejects the token of a new login."""
    try:
        async for _ in client.list_tasks([("view", "MINIMAL")], 1):
            break
    except AuthFailed as error:
        raise AuthFailed(
            f"the issuer returned a token, but {client.base} does not accept it: {error}",
            "check --client-id and --scope, or ask the server's operators",
        ) from error
    except CliError as error:
        message(f"poiesis: warning: cannot check the token with the server: {error}")


def _wait(call: Invocation, task_id: str, *, logs: bool, timeout: float | None, result: bool) -> int:
    """Wait for the end of a task, print its outcome and return its exit code."""

    async def work() -> Task:
        async with call.client(waiting=True) as client:
            return await client.with_full_id(
                task_id,
                lambda full: wait_for_end(client, full, quiet=call.quiet, logs=logs, timeout=timeout),
            )

    try:
        task = call.run(work())
    except (TimedOut, Interrupted, NotFound, BadUsage):
        raise
    except CliError:
        message(f"poiesis: stopped watching task {task_id}, which may continue: {next_steps(task_id)}")
        raise
    if not call.quiet:
        print_outcome(task, logs_printed=logs)
    if result:
        _write_task(call, task)
    return task.exit_code


def _write_id(call: Invocation, task_id: str) -> None:
    """Write the id alone unless JSON is requested, also in a pipe: `id=$(poiesis create ...)`."""
    if call.output == "json":
        terminal.write_json({"id": task_id})
    else:
        terminal.write(f"{task_id}\n")


def _write_task(call: Invocation, task: Task) -> None:
    if call.as_json:
        terminal.write_json(task.document)
    else:
        terminal.write_task(task)
