"""`python -m poiesis_e2e.failures.page`: write docs/failures.md from the list of cases."""

import sys
from pathlib import Path

from poiesis_e2e.failures.case import Case
from poiesis_e2e.failures.cases import CASES, SECTIONS

PAGE = Path(__file__).resolve().parents[3] / "docs/failures.md"

_HEAD = """\
# Failures

Each way in which a task ends otherwise than well: what brings it about, and what the client is told.
This page is made from the list in `e2e/poiesis_e2e/failures/cases` (`python -m poiesis_e2e.failures.page`), and every row is a test
on a real cluster (`e2e/stories/test_failures.py`): each column is what that test asserts.
That a row proves something can be seen, too: `make mutants` takes the handling
behind each of them away, one after the other (`e2e/poiesis_e2e/failures/mutations.py`), and every row has to fail then, by what it
asserts. It needs the lab's cluster and the better part of an hour; `make mutants NAMES="no-signals"` makes one
mutation, `NAMES=--list` names them.

Where to look, in `GET /ga4gh/tes/v1/tasks/<id>?view=FULL`:

| column | field |
|---|---|
| state | `state` |
| reason, message | `logs[-1].metadata.reason` and `.message`; the same is a line of `logs[-1].system_logs`, once: `<time> <state>: <reason>: <message>`. Text in `<…>` differs each time |
| container | `logs[-1].metadata.container`: what failed |
| exit codes | `logs[-1].logs[*].exit_code`: of the executors that ran, in order |
| told by | `logs[-1].metadata.reported_by`: `recorder`, in the task's Pod; `controller`, where the Pod could not tell; `api`, where no Pod could be |
| within | at most so long until a `GET` shows the end, by the client's clock |
| the client sees | the states that it can see one after the other, and what else there is |

The times hold for the chart's values as they are; a value that rules one is named with it:
`tctl.thresholds.imagePullSeconds` 60 for images that cannot be pulled, `filerRetryAttempts` 5 for what may pass,
`terminationGracePeriodSeconds` 30 for executors that ignore SIGTERM. The kubelet measures volumes once a minute.
"What nodes do" is seen on a second cluster, of two nodes, that loses patience sooner: there Kubernetes takes a node that
is silent for 12 s for lost (by default 50 s), deletes its Pods after another 10 s (by default 300 s), and a Pod's grace is 10 s.
"""  # noqa: E501 (lines of a document)
_COLUMNS = (
    "case",
    "what happens",
    "state",
    "reason",
    "message",
    "container",
    "exit codes",
    "told by",
    "within",
    "the client sees",
)


def page() -> str:
    """The whole document."""
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
        case.reporter,
        f"{case.documented:.0f} s {case.after.value}",
        "; ".join((" → ".join(states), *(sight.words for sight in case.sees))),
    )
    return _line(tuple(_cell(text) for text in cells))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Exit 0: it is written."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
