"""The command line: options, and what each command does with them."""

import os
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, BinaryIO

import click
from click.shell_completion import get_completion_class

from poiesis_cli import __version__, oidc, terminal
from poiesis_cli.address import unencrypted, web_url
from poiesis_cli.config import Config
from poiesis_cli.documents import RunRequest, parse_document, task_document
from poiesis_cli.errors import BadUsage, CliError, Exit, Interrupted, TimedOut
from poiesis_cli.follow import LogFilter, follow_logs, goes_on, say_verdict, wait_for_end
from poiesis_cli.invocation import (
    POSITIVE,
    Invocation,
    common_options,
    config_option,
    logs_option,
    quiet_option,
    server_option,
    timeout_option,
)
from poiesis_cli.mappings import parse_environment, parse_input, parse_output, parse_pairs
from poiesis_cli.terminal import say
from poiesis_cli.tes import STATES, Task
from poiesis_cli.timing import TIMING, Timing
from poiesis_cli.web import open_session

_EPILOG = """\b
Exit codes of run and wait: 0 COMPLETE; EXECUTOR_ERROR: that of the executor that failed
  (123 if it is not known); 120 SYSTEM_ERROR; 121 CANCELED; 122 PREEMPTED;
  124 --timeout is over; 130 Ctrl-C. In both cases the task goes on.
Of all commands: 64 usage; 65 the server refuses; 69 it does not answer;
  76 it does not speak TES; 77 credentials.

\b
The server and the credentials may stand in ~/.config/poiesis/config.toml too:
  server = "https://tes.example.org"
"""


class _RunCommand(click.Command):
    """`run`, whose command's own options easily end up among ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" in args:
                raise
            raise click.NoSuchOption(
                error.option_name,
                f"{error.message} If it is the command's own, write -- before the command.",
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
    "-o", "--output", "outputs", multiple=True, metavar="PATH:URL", help="Send a file or a pattern of files."
)
@click.option("--cpu", type=click.IntRange(min=1), metavar="CORES", help="CPU cores.")
@click.option("--ram-gb", type=POSITIVE, metavar="GB", help="Memory, in 10**9 bytes.")
@click.option("--disk-gb", type=POSITIVE, metavar="GB", help="Disk, in 10**9 bytes.")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="A variable; without value, that of here."
)
@click.option("-w", "--workdir", metavar="PATH", help="Working directory in the container.")
@click.option("--stdin", metavar="PATH", help="The command reads this file of the container.")
@click.option("--stdout", metavar="PATH", help="The command's output goes to this file of the container.")
@click.option("--stderr", metavar="PATH", help="The same for standard error.")
@click.option("--name", help="A name for the task.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag, to find the task by.")
@click.option(
    "--volume", "volumes", multiple=True, metavar="PATH", help="An empty directory on the task's volume."
)
@click.option("--preemptible", is_flag=True, help="The system may stop the task.")
@click.option(
    "--backend-parameter", "parameters", multiple=True, metavar="KEY=VALUE", help="See: poiesis info."
)
@click.option("--wait/--detach", default=True, help="Wait for the end (default), or print the id and leave.")
@logs_option
@timeout_option
@click.option("--dry-run", is_flag=True, help="Print the task and do not send it.")
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
    """Run a command, and exit with its exit code.

    COMMAND is argv, run in a container of IMAGE: no shell sees it. Ctrl-C leaves the task running.

    \b
    poiesis run busybox -- echo hello
    poiesis run --logs alpine -- sh -c 'date; sleep 5; date'
    poiesis run -i s3://lab/reads.fq:/data/reads.fq -i ./count.sh:/work/count.sh \\
        -o '/out/*.txt:s3://lab/results' --cpu 4 --ram-gb 8 alpine -- sh /work/count.sh
    id=$(poiesis run --detach busybox -- sleep 60)

    A mapping that ends with / is a directory. For JSON write: poiesis --output json run ...
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
        say(f"task {task_id}")
    return _until_end(call, task_id, logs=logs, timeout=timeout, result=call.output == "json")


@cli.command()
@common_options
@click.argument("file", type=click.File("rb"))
@click.pass_obj
def create(call: Invocation, /, file: BinaryIO) -> int:
    """Create a task from a JSON file.

    FILE may be - for standard input. The new task's id is printed.

    \b
    poiesis create task.json
    poiesis run --dry-run busybox -- date | jq '.executors += .executors' | poiesis create -
    """
    document = parse_document(file.read(), "FILE")
    _write_id(call, _create(call, document))
    return Exit.OK


@cli.command(name="list")
@common_options
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only tasks in this state.")
@click.option(
    "--tag", "tags", multiple=True, metavar="KEY[=VALUE]", help="Only tasks with this tag; all of several."
)
@click.option("--name-prefix", metavar="TEXT", help="Only tasks whose name begins so.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=100, show_default=True, help="At most so many; 0: all."
)
@click.pass_obj
def list_(
    call: Invocation, /, state: str | None, tags: Sequence[str], name_prefix: str | None, limit: int
) -> int:
    """List tasks, as a rule the newest first.

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
            # One more than wanted: whether there is one is worth a word.
            return [task async for task in client.list_tasks(filters, limit + 1 if limit else None)]

    tasks = call.run(work())
    shown = tasks[:limit] if limit else tasks
    if call.as_json:
        terminal.write_json({"tasks": [task.document for task in shown]})
    else:
        terminal.write_tasks(shown)
    if len(tasks) > len(shown):
        say(f"poiesis: there are more than {limit}: --limit 0 lists all")
    return Exit.OK


@cli.command()
@common_options
@click.argument("task_id", metavar="ID")
@click.option(
    "--view",
    type=click.Choice(["MINIMAL", "BASIC", "FULL"], case_sensitive=False),
    default="FULL",
    show_default=True,
    help="How much the server tells.",
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
            return await client.get(task_id, view.upper())

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

    Its progress is told, and its exit code passed on.
    A server that is away is waited for, ten minutes at most. Ctrl-C leaves the task running.

    \b
    poiesis wait ID && echo good
    poiesis wait ID --quiet --timeout 3600
    """
    call.task_id = task_id
    return _until_end(call, task_id, logs=logs, timeout=timeout, result=not logs or call.output == "json")


@cli.command()
@server_option
@config_option
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option(
    "--executor", type=click.IntRange(min=0), metavar="N", help="Only that of executor N (0 is the first)."
)
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only that one.")
@click.option("--system", is_flag=True, help="What the server logs of the task, instead.")
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
    """Print what a task has printed.

    What executors print to standard error goes to standard error.

    With -f Poiesis shows it while they run; most other servers have it when an executor has ended.

    \b
    poiesis logs -f ID
    poiesis logs ID --executor 1 --stream stderr
    """
    if follow and system:
        raise BadUsage("--system cannot be followed", f"poiesis wait {task_id} tells what happens")
    call.task_id = task_id if follow else None
    printer = LogFilter(executor=executor, streams=(stream,) if stream else ("stdout", "stderr"))

    async def work() -> Task:
        async with call.client(patient=follow) as client:
            if follow:
                return await follow_logs(client, task_id, printer)
            return await client.get(task_id, "FULL")

    task = call.run(work())
    if system:
        for attempt in task.attempts:
            terminal.write("".join(f"{line}\n" for line in attempt.system_logs))
        return Exit.OK
    printer.print(task)
    if not printer.printed:
        say(f"poiesis: the server has no such output of task {task_id}, which is {task.state}")
    return Exit.OK


@cli.command()
@common_options
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def cancel(call: Invocation, /, task_ids: Sequence[str]) -> int:
    """Ask the server to cancel tasks. A task that has ended stays as it is.

    \b
    poiesis cancel ID
    poiesis list --tag run=7 --output json | jq -r '.tasks[].id' | xargs poiesis cancel
    """

    async def work() -> dict[str, CliError | None]:
        async with call.client() as client:
            return {task_id: await _outcome(client.cancel(task_id)) for task_id in task_ids}

    outcomes = call.run(work())
    if call.output == "json":
        terminal.write_json(
            [{"id": key, "error": str(error) if error else None} for key, error in outcomes.items()]
        )
    for task_id, error in outcomes.items():
        if error is not None:
            terminal.say_error(error)
        elif call.output != "json":
            terminal.write(f"{task_id}\n")
    return max((error.exit for error in outcomes.values() if error), default=Exit.OK)


@cli.command()
@common_options
@click.pass_obj
def info(call: Invocation) -> int:
    """Show what the server says of itself."""

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
@click.option("--issuer", metavar="URL", help="Who gives tokens [POIESIS_ISSUER].")
@click.option("--client-id", metavar="ID", help="Our name there, of a public client [POIESIS_CLIENT_ID].")
@click.option("--scope", metavar="WORDS", help="What to ask for [POIESIS_SCOPE].")
@click.pass_obj
def login(call: Invocation, /, issuer: str | None, client_id: str | None, scope: str | None) -> int:
    """Log in with a browser.

    It may run on another device. The token is kept for this server, and renewed while the issuer allows it.

    \b
    poiesis login --server https://tes.example.org \\
        --issuer https://login.example.org/realms/lab --client-id poiesis-cli
    """
    config = call.settings()
    issuer = issuer or config.identity.issuer
    client_id = client_id or config.identity.client_id
    if issuer is None or client_id is None:
        missing = "--issuer" if issuer is None else "--client-id"
        raise BadUsage(
            f"{missing} is not given", "ask the server's operators, or see the configuration's issuer"
        )
    if unencrypted(web_url(issuer, "issuer")):
        say("poiesis: warning: the issuer is asked without encryption")
    call.run(_login(call, config, issuer, client_id, scope or config.identity.scope))
    say(f"logged in at {config.base}")
    return Exit.OK


@cli.command()
@server_option
@config_option
@click.pass_obj
def logout(call: Invocation) -> int:
    """Forget the token for this server. The issuer is not told: it stays good there until it expires."""
    base, kept = call.settings().base, call.logins()

    async def work() -> None:
        async with kept.locked():
            kept.write(str(base), None)

    call.run(work())
    say(f"no login is kept for {base}")
    return Exit.OK


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print what makes SHELL complete this.

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


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    timing: Timing = TIMING,
) -> int:
    """The exit code of one call (errors.Exit, or an executor's)."""
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
        error.show()
        return Exit.USAGE
    except click.Abort:
        say("poiesis: interrupted")
        return Exit.INTERRUPTED
    except CliError as error:
        terminal.say_error(error)
        return error.exit
    return int(code or Exit.OK)


def _create(call: Invocation, document: Mapping[str, Any]) -> str:
    async def work() -> str:
        async with call.client() as client:
            return await client.create(document)

    try:
        return call.run(work())
    except Interrupted:
        raise Interrupted(
            "interrupted: whether there is a task now is not known", "look for it: poiesis list --limit 10"
        ) from None


async def _login(call: Invocation, config: Config, issuer: str, client_id: str, scope: str) -> None:
    kept = call.logins()
    async with open_session(call.timing) as session:
        found = await oidc.discover(session, issuer)
        code = await oidc.ask_for_code(session, found, client_id, scope, call.timing)
        say(f"Open {code.verification_uri} and enter the code {code.user_code}")
        if code.verification_uri_complete:
            say(f"or open {code.verification_uri_complete}")
        login = await oidc.wait_for_login(
            session, found, code, client_id=client_id, scope=scope, timing=call.timing
        )
    async with kept.locked():
        kept.write(str(config.base), login)


async def _outcome(work: Awaitable[None]) -> CliError | None:
    try:
        await work
    except CliError as error:
        return error
    return None


def _until_end(call: Invocation, task_id: str, *, logs: bool, timeout: float | None, result: bool) -> int:
    async def work() -> Task:
        async with call.client(patient=True) as client:
            return await wait_for_end(client, task_id, quiet=call.quiet, logs=logs, timeout=timeout)

    try:
        task = call.run(work())
    except (TimedOut, Interrupted):
        raise
    except CliError:
        say(f"poiesis: stopped looking at task {task_id}, which may go on: {goes_on(task_id)}")
        raise
    if not call.quiet:
        say_verdict(task, output=not logs)
    if result:
        _write_task(call, task)
    return task.exit_code


def _write_id(call: Invocation, task_id: str) -> None:
    """The id alone, also into a pipe, unless JSON was asked for: `id=$(poiesis create ...)`."""
    if call.output == "json":
        terminal.write_json({"id": task_id})
    else:
        terminal.write(f"{task_id}\n")


def _write_task(call: Invocation, task: Task) -> None:
    if call.as_json:
        terminal.write_json(task.document)
    else:
        terminal.write_task(task)
