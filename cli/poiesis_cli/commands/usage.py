"""The command usage."""

from collections.abc import Sequence

import click

from poiesis_cli import terminal
from poiesis_cli.errors import Exit
from poiesis_cli.invocation import Invocation, common_options
from poiesis_cli.terminal import message
from poiesis_cli.usage import read_report, usage_params
from poiesis_cli.web import Response


@click.command()
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
