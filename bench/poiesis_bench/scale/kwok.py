"""kwok plays the kubelet of one simulated node. Its Pods change their status, but run no process.

The files in stages/ say what happens to the node and its Pods. Until `end.yaml` is among them, executors run.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poiesis_lab import binaries
from poiesis_lab.cluster import Cluster

NODE = "simulated"
_STAGES = Path(__file__).parent / "stages"
_SELECTOR = "kwok.x-k8s.io/node=fake"
_WAIT_SECONDS = 30.0


def add_node(cluster: Cluster) -> None:
    """Create the simulated node, and let the scheduler use no other."""
    key, value = _SELECTOR.split("=")
    metadata = {"name": NODE, "annotations": {key: value}, "labels": {"kubernetes.io/hostname": NODE}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
    cluster.kubectl("apply", "-f", "-", input_text=json.dumps(node))
    if cluster.spec is not None:
        cluster.kubectl("cordon", cluster.spec.control_plane)


@contextmanager
def playing(cluster: Cluster, folder: Path, *, end_within: float | None = None) -> Iterator[None]:
    """Play the kubelet. `end_within`: seconds in which all executors end; None: they do not end.

    `folder` gets kwok's configuration and log.
    """
    names = ["node", "start"] if end_within is None else ["node", "start", "end"]
    files = []
    for name in names:
        text = (_STAGES / f"{name}.yaml").read_text(encoding="utf-8")
        file = folder / f"{name}.yaml"
        file.write_text(text.replace("@SPREAD_MS@", str(round((end_within or 0) * 1000))))
        files.append(f"--config={file}")
    command = [
        *(str(binaries.compiled("kwok")), "--kubeconfig", str(cluster.kubeconfig), *files),
        *("--manage-all-nodes=false", f"--manage-nodes-with-annotation-selector={_SELECTOR}"),
        *("--node-lease-duration-seconds=40", "--server-address=127.0.0.1:0"),
    ]
    with (folder / "kwok.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(_WAIT_SECONDS)
