"""Let executors of clients that request whole cores run on a node without a free core."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from poiesis_e2e.failures.surroundings import MARKED_JOB
from poiesis_e2e.kube import Kube, Node, Object
from poiesis_e2e.webhook import PROBE, admission, pod_spec, rule


@asynccontextmanager
async def little_cpu(kube: Kube, node: Node, marker: str) -> AsyncIterator[None]:
    """Reduce CPU requests in kube's namespace, only of tasks with `marker` in a command."""

    async def review(asked: Object) -> Sequence[Object]:
        path, spec = pod_spec(asked["object"])
        return [
            {
                "op": "replace",
                "path": f"{path}/initContainers/{index}/resources/requests/cpu",
                "value": "50m",
            }
            for index, container in enumerate(spec["initContainers"])
            if container["name"].startswith("executor-")
        ]

    rules = [rule("CREATE", "batch", "jobs")]
    condition = MARKED_JOB.replace("<marker>", marker)
    async with admission(kube, node, review, rules=rules, probe=_probe(marker), condition=condition):
        yield


def _probe(marker: str) -> Object:
    container: Object = {"name": "c", "image": "none", "command": [marker]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": PROBE},
        "spec": {
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "initContainers": [container],
                    "containers": [container | {"name": "d"}],
                }
            }
        },
    }
