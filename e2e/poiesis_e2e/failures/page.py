"""`python -m poiesis_e2e.failures.page`: generate docs/reference/failures.md from the list of cases."""

import sys
from pathlib import Path

from poiesis_e2e.failures.case import Case
from poiesis_e2e.failures.cases import CASES, SECTIONS

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/failures.md"

_HEAD = """\
# Failures

This page lists the failures of tasks, and how Poiesis reports each of them to the client. Find the `reason` and the
`message` of your task here. [My task failed](../how-to/users/task-failed.md) explains what to do. Poiesis repairs some
failures: those tasks end as `COMPLETE`.

A test on a real cluster checks every row and every column. [e2e/README.md](../../e2e/README.md#the-failure-table)
describes these tests. The page is generated from them: do not edit it.

## How to read the tables

Request the task with `GET /ga4gh/tes/v1/tasks/<id>?view=FULL`. The columns correspond to these fields:

| column | field |
|---|---|
| case | name of the test |
| cause | what happens, followed by the configuration value or the event that causes it |
| state | `state` |
| reason, message | `logs[-1].metadata.reason` and `logs[-1].metadata.message`. Text in `<…>` differs from task to task. `logs[-1].system_logs` contains both, once: `<time> <state>: <reason>: <message>` |
| container | `logs[-1].metadata.container`: the container that failed |
| exit codes | `logs[-1].logs[*].exit_code`: exit codes of the executors that ran, in order |
| reported by | `logs[-1].metadata.reported_by`: `recorder` runs in the task's Pod; `controller` reports what the recorder cannot; `api` reports tasks that never had a Pod |
| within | maximum time until `GET` returns the final state, measured by the client |
| seen by the client | the states that the client can observe, in order, and other visible effects |

A dash (–) means that the field is absent or empty.

The times are valid for the default values of the chart. A row that uses another value names it. These values have the largest effect:

| chart value | default | effect |
|---|---|---|
| `tctl.thresholds.imagePullSeconds` | 60 | time before a task ends whose image cannot be pulled |
| `config.filerRetryAttempts` | 5 | retries of a transfer after a failure that may be temporary |
| `config.terminationGracePeriodSeconds` | 30 | time before an executor that ignores SIGTERM is killed |

Rows that mention `filesOnly` differ with [`config.recorder.filesOnly: true`](../how-to/operators/files-only.md). All
other rows hold with both values.

The kubelet measures the size of volumes once per minute, so evictions for disk usage take that long.

The section [Nodes](#nodes) is tested on a second cluster, which has two nodes and shorter timeouts:

| timeout | there | Kubernetes' default |
|---|---|---|
| a silent node becomes unreachable | 12 s | 50 s |
| Pods on an unreachable node are deleted | 10 s later | 300 s later |
| grace period of a Pod | 10 s | 30 s |
"""  # noqa: E501 (lines of a document)
_COLUMNS = (
    "case",
    "cause",
    "state",
    "reason",
    "message",
    "container",
    "exit codes",
    "reported by",
    "within",
    "seen by the client",
)


def page() -> str:
    """Return the whole document."""
    parts = [_HEAD]
    for section in SECTIONS:
        rows = [_row(case) for case in CASES if case.section == section]
        header = [_line(_COLUMNS), "|" + "---|" * len(_COLUMNS)]
        parts.append("\n".join([f"## {section}", "", *header, *rows, ""]))
    return "\n".join(parts)


def _row(case: Case) -> str:
    states = (*case.states, case.state) if case.state not in case.states else case.states
    cells = (
        f"`{case.id}`",
        "; ".join((case.title, *(one.words for one in (case.around, case.meanwhile) if one is not None))),
        case.state,
        " or ".join(f"`{reason}`" for reason in case.reasons) or "–",
        case.message.strip() if case.message else "–",
        f"`{case.container}`" if case.container else "–",
        ", ".join(map(str, case.exit_codes)) or "–",
        _reporter(case),
        f"{case.documented:.0f} s {case.after.value}",
        "; ".join((" → ".join(states), *(sight.words for sight in case.sees))),
    )
    return _line(tuple(_cell(text) for text in cells))


def _reporter(case: Case) -> str:
    if case.needs_access:
        return f"{case.reporter}; not with `filesOnly`"
    other = case.files_only_reporter
    return case.reporter if other is None else f"{case.reporter}; {other} with `filesOnly`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Write the page. Exit 0."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
