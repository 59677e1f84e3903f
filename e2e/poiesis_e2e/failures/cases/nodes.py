"""Failures of nodes."""

from collections.abc import Sequence
from math import ceil

from poiesis_e2e.failures.case import After, Case, Surroundings, World
from poiesis_e2e.failures.cases.builders import (
    AT_ONCE,
    QUEUED,
    RAN,
    READY,
    SOON,
    UNTIL_SIGNALED,
    WAIT,
    Builder,
    image,
    scripts,
    sent,
)
from poiesis_e2e.failures.disturbances import executor_runs
from poiesis_e2e.failures.node_disturbances import (
    Reboot,
    api_server_down,
    gone,
    gone_for_good,
    kubelet_away,
    kubelet_restarted,
    preempted,
    pulls,
    urgent_work,
)
from poiesis_e2e.failures.sights import (
    ended_meanwhile,
    explained,
    no_object,
    nothing_runs_when_its_node_is_back,
    printed,
    stored,
)
from poiesis_e2e.failures.surroundings import no_volumes, server
from poiesis_e2e.tes_client import Document, State

SECTION = "Nodes"

_SLOW = ("localhost:5081/slow:1", "localhost:5082/slow:1")  # the node's own ports
_BACK = 30  # seconds until a restarted kubelet has synchronized its Pods
_RECOVERED = 90  # seconds: the API server is back, then the kubelets' caches, then the outputs
_STALLED = 60  # tctl.thresholds.stalledSeconds is 15 there, counted from when the node is back
_SILENT = (
    70  # 12 s until it is unreachable, 10 s until the Pod is deleted, 10 s grace period, nodeLostSeconds 10
)
_COLLECTED = 120  # Kubernetes searches for Pods without a node every 20 s, and waits for another 40 s
_UNSCHEDULABLE = 40  # tctl.thresholds.unschedulableSeconds is 20 there

_REBOOT = Reboot()


def _slow_registry(name: str) -> Surroundings:
    port = int(name.partition(":")[2].partition("/")[0])
    return server("a registry that stalls", "sleep 600", port=port, on_node=True)


async def _half_of_the_node(world: World) -> Document:
    """Build a task whose executor takes more than half of the node."""
    node = await world.kube.get("node", world.node.container)
    assert node is not None
    cores = node["status"]["allocatable"]["cpu"]
    count = int(cores[:-1]) / 1000 if cores.endswith("m") else float(cores)
    return await scripts(f"{READY}; {WAIT}", resources={"cpu_cores": ceil(count / 2)})(world)


async def _half_of_the_node_preemptible(world: World) -> Document:
    document = await _half_of_the_node(world)
    document["resources"]["preemptible"] = True
    return document


_PREEMPTED: Sequence[tuple[str, str, Builder, State]] = (
    ("", "The scheduler preempts the Pod", _half_of_the_node, "SYSTEM_ERROR"),
    (
        "-preemptible",
        "The scheduler preempts the Pod, and the task has `preemptible`",
        _half_of_the_node_preemptible,
        "PREEMPTED",
    ),
)

CASES: Sequence[Case] = (
    Case(
        id="kubelet-restarted",
        section=SECTION,
        title="The task continues",
        document=scripts(UNTIL_SIGNALED),
        meanwhile=kubelet_restarted(),
        state="COMPLETE",
        exit_codes=(0,),
        reporter="recorder",
        within=AT_ONCE,
        after=After.EXECUTOR,
        states=RAN,
        sees=(printed("ready\ndone\n"),),
        release="nodes",
    ),
    Case(
        id="kubelet-away",
        section=SECTION,
        title="The next executor waits, and no executor runs twice",
        document=scripts(UNTIL_SIGNALED, "echo next"),
        meanwhile=kubelet_away(),
        state="COMPLETE",
        exit_codes=(0, 0),
        reporter="recorder",
        within=_BACK,
        after=After.ASKED,
        states=RAN,
        sees=(printed("ready\ndone\n"), printed("next\n", index=1)),
        release="nodes",
    ),
    Case(
        id="rebooted",
        section=SECTION,
        title="The executor is lost",
        document=scripts(f"{READY}; {WAIT}", "echo never"),
        meanwhile=_REBOOT.at("while an executor runs", executor_runs),
        state="SYSTEM_ERROR",
        reasons=("ContainerStatusUnknown",),
        message="the kubelet lost executor-0: its end is not known",
        container="executor-0",
        reporter="controller",
        within=_BACK,
        after=After.ASKED,
        states=RAN,
        sees=(nothing_runs_when_its_node_is_back(),),
        release="nodes",
        together="rebooted",
    ),
    *(
        Case(
            id=f"rebooted-pulling-{which}",
            section=SECTION,
            title="Kubernetes neither continues nor ends the Pod (`tctl.thresholds.stalledSeconds` 15)",
            document=image(name, *before),
            around=_slow_registry(name),
            meanwhile=_REBOOT.at(f"while the image of {words} is pulled", pulls(name)),
            state="SYSTEM_ERROR",
            reasons=("PodStalled",),
            message="every container of Pod <pod> is dead and the Pod does not end",
            exit_codes=(0,) * len(before),
            reporter="controller",
            within=_STALLED,
            after=After.ASKED,
            states=RAN if before else QUEUED,
            release="nodes",
            together="rebooted",
        )
        for which, words, name, before in (
            ("first", "the first executor", _SLOW[0], ()),
            ("second", "the second executor", _SLOW[1], ("echo kept",)),
        )
    ),
    Case(
        id="node-gone",
        section=SECTION,
        title="The outcome of the executor is unknown (`tctl.thresholds.nodeLostSeconds` 10)",
        document=scripts(f"{READY}; {WAIT}", "echo never"),
        meanwhile=gone(),
        state="SYSTEM_ERROR",
        reasons=("NodeLost",),
        message="DeletionByTaintManager: Taint manager: deleting due to NoExecute taint",
        reporter="controller",
        within=_SILENT,
        after=After.ASKED,
        states=RAN,
        sees=(nothing_runs_when_its_node_is_back(),),
        release="nodes",
    ),
    Case(
        id="node-deleted",
        section=SECTION,
        title="The outcome of the executor remains unknown",
        document=scripts(f"{READY}; {WAIT}", "echo never"),
        meanwhile=gone_for_good(),
        state="SYSTEM_ERROR",
        reasons=("NodeLost",),
        message="DeletionByPodGC: PodGC: node no longer exists",
        reporter="controller",
        within=_COLLECTED,
        after=After.ASKED,
        states=RAN,
        sees=(nothing_runs_when_its_node_is_back(),),
        release="nodes",
    ),
    *(
        Case(
            id=f"preempted{suffix}",
            section=SECTION,
            title=title,
            document=document,
            around=urgent_work(),
            meanwhile=preempted(),
            state=state,
            reasons=("PreemptionByScheduler",),
            message="default-scheduler: preempting to accommodate a higher priority pod",
            exit_codes=(143,),
            reporter="controller",
            within=SOON,
            after=After.ASKED,
            states=RAN,
            sees=(printed("ready\n"),),
            release="nodes",
        )
        for suffix, title, document, state in _PREEMPTED
    ),
    Case(
        id="unschedulable",
        section=SECTION,
        title="No node has the requested resources (`tctl.thresholds.unschedulableSeconds` 20)",
        document=scripts("echo never", resources={"cpu_cores": 250}),
        state="SYSTEM_ERROR",
        reasons=("Unschedulable",),
        message="Pod <pod>: 0/2 nodes are available: <message of the scheduler>",
        reporter="controller",
        within=_UNSCHEDULABLE,
        after=After.CREATED,
        states=("QUEUED",),
        sees=(no_object(),),
        release="nodes",
        together="unschedulable",
    ),
    Case(
        id="claim-unbound",
        section=SECTION,
        title="The PersistentVolumeClaim is not bound (`tctl.thresholds.unschedulableSeconds` 20)",
        document=sent("echo never"),
        around=no_volumes(),
        state="SYSTEM_ERROR",
        reasons=("Unschedulable",),
        message="Pod <pod>: 0/2 nodes are available: <message of the scheduler>",
        reporter="controller",
        within=_UNSCHEDULABLE,
        after=After.CREATED,
        states=("QUEUED",),
        sees=(no_object(), explained("ProvisioningFailed: no volume plugin matched")),
        release="nodes",
        together="unschedulable",
    ),
    Case(
        id="volume-unmountable",
        section=SECTION,
        title="The node cannot mount a volume (`tctl.thresholds.unschedulableSeconds` 20)",
        document=scripts("echo never", inputs=[{"url": "/lab/missing/it", "path": "/in/it"}]),
        state="SYSTEM_ERROR",
        reasons=("FailedMount",),
        message="Pod <pod>: MountVolume.SetUp failed for volume <message of the kubelet>",
        reporter="controller",
        within=_UNSCHEDULABLE,
        after=After.CREATED,
        states=("QUEUED",),
        sees=(explained("FailedMount: MountVolume.SetUp failed for volume"),),
        release="nodes",
    ),
    # Last: the cluster takes a minute to recover.
    Case(
        id="api-server-down",
        section=SECTION,
        title="Executors continue. Outputs wait for the API server, because the filer's credentials do",
        document=sent(f"{READY}; sleep 30; echo one", "echo two >/out/it; echo two"),
        meanwhile=api_server_down(60),
        state="COMPLETE",
        exit_codes=(0, 0),
        reporter="recorder",
        within=_RECOVERED,
        after=After.ASKED,
        states=RAN,
        sees=(
            ended_meanwhile(),
            printed("ready\none\n"),
            printed("two\n", index=1),
            stored("it", "two\n"),
        ),
        release="nodes",
    ),
)
