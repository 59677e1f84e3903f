"""Commands that create tasks: run, create, rerun."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import click

from poiesis_cli import many, terminal
from poiesis_cli.commands.completion import task_ids
from poiesis_cli.commands.waiting import report_all, wait_for_one
from poiesis_cli.documents import RunRequest, check_fields, parse_document, task_document
from poiesis_cli.errors import BadUsage, CliError, Exit, Interrupted
from poiesis_cli.invocation import (
    POSITIVE,
    Invocation,
    WholeNumber,
    common_options,
    config_option,
    logs_option,
    quiet_option,
    server_option,
    timeout_option,
)
from poiesis_cli.mappings import parse_environment, parse_input, parse_output, parse_pairs
from poiesis_cli.scatter import check_used, fill, read_table
from poiesis_cli.terminal import message
from poiesis_cli.tes import Task

_SCATTER_TAG = "scatter"  # of the tasks of one `run --scatter`


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


@click.command(cls=_RunCommand)
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
@click.option(
    "--scatter",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Run one task per line of a TSV or CSV file; {column} in the command and options is its value.",
)
@click.option(
    "--after",
    "earlier",
    multiple=True,
    metavar="ID",
    shell_complete=task_ids,
    help="Create the task when this one is COMPLETE.",
)
@click.option("--wait/--detach", default=True, help="Wait for the end (default), or print the id and exit.")
@logs_option
@timeout_option
@click.option("--dry-run", is_flag=True, help="Print the task without sending it.")
@click.pass_obj
def run(
    call: Invocation,
    /,
    *,
    scatter: str | None,
    earlier: Sequence[str],
    wait: bool,
    logs: bool,
    timeout: float | None,
    dry_run: bool,
    **words: Any,
) -> int:
    """Run a command in a container and exit with its exit code.

    COMMAND is run in a container of IMAGE without a shell. Ctrl-C leaves the task running.

    \b
    poiesis run busybox -- echo hello
    poiesis run --logs alpine -- sh -c 'date; sleep 5; date'
    poiesis run -i s3://lab/reads.fq:/data/reads.fq -i ./count.sh:/work/count.sh \\
        -o '/out/*.txt:s3://lab/results' --cpu 4 --ram-gb 8 alpine -- sh /work/count.sh
    id=$(poiesis run --detach busybox -- sleep 60)
    poiesis run --scatter samples.tsv -i 's3://lab/{sample}.fq:/in.fq' busybox -- wc -l /in.fq

    If either side of a mapping ends with /, it is a directory. For JSON use: poiesis --output json run ...
    """
    if scatter is not None and logs:
        raise BadUsage("--logs cannot be combined with --scatter", "print the output of one: poiesis logs ID")
    tag = f"{_SCATTER_TAG}={secrets.token_hex(4)}"
    documents = (
        [_document(words, call.environ)] if scatter is None else _scattered(scatter, words, tag, call.environ)
    )
    if dry_run:
        terminal.write_json(documents[0] if scatter is None else documents)
        return Exit.OK
    failed = _await_earlier(call, earlier)
    if failed is not None:
        message(f"poiesis: task {failed.id} of --after ended as {failed.state}; nothing was created")
        message(f"  see poiesis describe {failed.id}")
        return failed.exit_code
    if scatter is None:
        return _run_one(call, documents[0], wait=wait, logs=logs, timeout=timeout)
    return _run_many(call, documents, tag, wait=wait, timeout=timeout)


@click.command()
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


@click.command()
@common_options
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=task_ids)
@click.pass_obj
def rerun(call: Invocation, /, ids: Sequence[str]) -> int:
    """Create the same tasks again and print their ids.

    The server's answer must contain the content of inputs (view FULL).

    \b
    poiesis rerun ID
    poiesis list --state SYSTEM_ERROR --output json | jq -r '.tasks[].id' | xargs poiesis rerun
    """

    async def work() -> None:
        async with call.client() as client:
            tasks = await many.for_each(
                ids, lambda one: client.with_full_id(one, lambda full: client.get(full, "FULL"))
            )
            created: dict[int, str] = {}
            try:
                await many.create_all(client, [task.request for task in tasks], created)
            finally:
                _write_ids(call, [created[index] for index in sorted(created)])

    call.run(work())
    return Exit.OK


def _document(words: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the task of the options as they were written."""
    return task_document(
        RunRequest(
            inputs=[parse_input(text) for text in words["inputs"]],
            outputs=[parse_output(text) for text in words["outputs"]],
            env=parse_environment(words["env"], environ),
            tags=parse_pairs("--tag", words["tags"]),
            backend_parameters=parse_pairs("--backend-parameter", words["parameters"]),
            cpu_cores=words["cpu"],
            preemptible=words["preemptible"] or None,
            **{name: words[name] for name in _UNCHANGED},
        )
    )


_UNCHANGED = (
    *("image", "command", "volumes", "name", "workdir", "stdin", "stdout", "stderr"),
    *("ram_gb", "disk_gb"),
)


def _run_one(
    call: Invocation, document: Mapping[str, Any], *, wait: bool, logs: bool, timeout: float | None
) -> int:
    task_id = _create(call, document)
    if not wait:
        _write_id(call, task_id)
        return Exit.OK
    call.task_id = task_id
    if not call.quiet:
        message(f"task {task_id}")
    return wait_for_one(call, task_id, logs=logs, timeout=timeout, result=call.output == "json")


def _run_many(
    call: Invocation, documents: Sequence[Mapping[str, Any]], tag: str, *, wait: bool, timeout: float | None
) -> int:
    created = _create_many(call, documents, tag)
    if not wait:
        _write_ids(call, created)
        return Exit.OK
    if not call.quiet:
        message(f"{len(created)} tasks with the tag {tag}; cancel them: poiesis cancel --tag {tag}")
    return report_all(call, task_ids=created, tags=[tag], timeout=timeout)


def _scattered(
    file: str, words: Mapping[str, Any], tag: str, environ: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return one task per row of the table; without --name, the first column is its name."""
    table = read_table(file)
    check_used(table, _texts(words), file)
    documents = []
    for number, row in enumerate(table.rows, start=1):
        filled = {name: _filled(value, row) for name, value in words.items()}
        named = filled | {
            "name": filled["name"] or row[table.columns[0]],
            "tags": [*filled["tags"], tag],
        }
        try:
            documents.append(_document(named, environ))
        except BadUsage as error:
            raise BadUsage(f"{file}, row {number}: {error}", error.advice) from error
    return documents


def _texts(words: Mapping[str, Any]) -> Iterator[str]:
    for value in words.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple):
            yield from value


def _filled(value: Any, row: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return fill(value, row)
    return tuple(fill(one, row) for one in value) if isinstance(value, tuple) else value


def _create_many(call: Invocation, documents: Sequence[Mapping[str, Any]], tag: str) -> list[str]:
    """Create tasks and return their ids. An error reports how many were created, and how to cancel them."""
    created: dict[int, str] = {}

    async def work() -> None:
        async with call.client() as client:
            await many.create_all(client, documents, created)

    try:
        call.run(work())
    except CliError:
        if created:
            message(
                f"poiesis: {len(created)} of {len(documents)} tasks were created;"
                f" cancel them: poiesis cancel --tag {tag}"
            )
        raise
    return [created[index] for index in range(len(documents))]


def _await_earlier(call: Invocation, ids: Sequence[str]) -> Task | None:
    """Wait for the end of these tasks; return one that is not COMPLETE, in the FULL view."""
    if not ids:
        return None

    async def work() -> list[Task]:
        async with call.client(waiting=True) as client:
            full = await many.full_ids(client, ids)
            tasks = await many.wait_for_all(client, many.by_id(client, full), quiet=call.quiet, timeout=None)
            return await many.ended_in_full(client, tasks)

    return next((task for task in call.run(work()) if task.state != "COMPLETE"), None)


def _create(call: Invocation, document: Mapping[str, Any]) -> str:
    """Create one task and return its id."""

    async def work() -> str:
        async with call.client() as client:
            return await client.create(document)

    try:
        return call.run(work())
    except Interrupted:
        raise Interrupted(
            "interrupted; the task may or may not have been created", "look for it: poiesis list --limit 10"
        ) from None


def _write_id(call: Invocation, task_id: str) -> None:
    """Write the id alone unless JSON is requested, also in a pipe: `id=$(poiesis create ...)`."""
    if call.output == "json":
        terminal.write_json({"id": task_id})
    else:
        terminal.write(f"{task_id}\n")


def _write_ids(call: Invocation, task_ids: Sequence[str]) -> None:
    if call.output == "json":
        terminal.write_json([{"id": task_id} for task_id in task_ids])
    else:
        terminal.write("".join(f"{task_id}\n" for task_id in task_ids))
