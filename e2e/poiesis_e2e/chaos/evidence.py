"""Keep evidence of a violation: the task's document, and its Kubernetes objects and logs at that time."""

import json
from collections.abc import Sequence
from pathlib import Path

from poiesis_e2e.chaos.judge import Violation
from poiesis_e2e.chaos.stage import Site
from poiesis_e2e.kube import COMPONENT_LABEL, TASK_LABEL, CommandError, Kube
from poiesis_e2e.tes_client import Task

_SERVICES = ("tctl", "api", "gateway")


async def keep(folder: Path, site: Site, task: Task, found: Sequence[Violation], left: Sequence[str]) -> None:
    """Write evidence to the task's folder; earlier files stay. `left`: remaining objects, `<kind>/<name>`."""
    own = folder / task["id"]
    own.mkdir(parents=True, exist_ok=True)
    number = len(list(own.glob("violations*.txt")))
    lines = [f"{one.rule}: {one.words}" for one in found]
    (own / f"violations-{number}.txt").write_text("\n".join([*lines, ""]))
    (own / f"task-{number}.json").write_text(json.dumps(task, indent=2))
    selector = f"--selector={TASK_LABEL}={task['id']}"
    (own / f"describe-{number}.txt").write_text(
        "\n".join(
            [
                await _output(site.kube, "describe", "jobs,pods", selector),
                *[await _output(site.kube, "describe", one) for one in left],
            ]
        )
    )
    (own / f"pods-{number}.json").write_text(
        await _output(site.kube, "get", "jobs,pods", selector, "-o", "json")
    )
    for name, kube, chosen in (
        ("trec", site.kube, (selector, "--container=trec")),
        *((name, site.services, (f"--selector={COMPONENT_LABEL}={name}",)) for name in _SERVICES),
    ):
        text = await _output(kube, "logs", *chosen, "--tail=2000", "--prefix", "--ignore-errors")
        (own / f"{name}-{number}.log").write_text(text)


async def _output(kube: Kube, *arguments: str) -> str:
    try:
        return await kube.run(*arguments)
    except CommandError as error:
        return str(error)
