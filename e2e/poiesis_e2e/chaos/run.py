"""Execute a plan: submit, kill, observe, and wait until no object is left."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from poiesis_e2e.chaos import evidence, faults, judge
from poiesis_e2e.chaos.client import RetryingClient
from poiesis_e2e.chaos.ledger import Ledger, of_task
from poiesis_e2e.chaos.plan import Kind, Plan, Submission
from poiesis_e2e.chaos.record import Injected, Observed, Record
from poiesis_e2e.chaos.shapes import document, input_key, output_key
from poiesis_e2e.chaos.stage import Site, Stage
from poiesis_e2e.tes_client import TERMINAL, Document, History, Task, connect
from poiesis_e2e.waiting import NotInTime, eventually
from poiesis_lab.shell import report

KINDS = (
    "jobs",
    "pods",
    "persistentvolumeclaims",
    "secrets",
    "configmaps",
    "serviceaccounts",
    "roles",
    "rolebindings",
)
_POLL_SECONDS = 0.3
_REQUEST_SECONDS = 10.0
_SETTLE_SECONDS = 300.0  # for the last tasks to end, after the last fault
_LATE_SECONDS = 15.0  # a request that timed out may still create its task
_CLEANED_SECONDS = 120.0  # after the TTL


async def carry_out(plan: Plan, stage: Stage, folder: Path) -> Record:
    """Execute the plan and return its record. Evidence of violations goes to `folder`."""
    return await _Run(plan, stage, folder).whole()


class _Run:
    """The state of one run."""

    def __init__(self, plan: Plan, stage: Stage, folder: Path) -> None:
        self._plan, self._stage, self._folder = plan, stage, folder
        self._retries: Counter[str] = Counter()
        self._wrong_answers: list[str] = []
        self._posted: dict[str, Submission] = {}
        self._answered: dict[str, str] = {}
        self._cancel_at: dict[str, float] = {}
        self._injected: list[Injected] = []
        self._histories: dict[str, History] = {}
        self._sites: dict[str, Site] = {}  # by task id
        self._first: dict[str, Task] = {}
        self._acting = True
        self._last_post_at = self._start = time.monotonic()

    async def whole(self) -> Record:
        stage, plan = self._stage, self._plan
        for submission in plan.submissions:
            if (content := submission.shape.input) is not None:
                await stage.bucket.put(input_key(content), content.encode())
        async with AsyncExitStack() as stack:
            ledger = Ledger()
            url = await stack.enter_async_context(ledger.at(await stage.node.host_address()))
            clients = {
                site.name: RetryingClient(
                    await stack.enter_async_context(connect(site.url, seconds=_REQUEST_SECONDS)),
                    self._retries,
                    self._wrong_answers,
                )
                for site in stage.sites.values()
            }
            self._start = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for site in stage.sites.values():
                    group.create_task(self._follow(site, clients[site.name], ledger))
                async with asyncio.TaskGroup() as acting:
                    acting.create_task(self._kill())
                    for submission in plan.submissions:
                        acting.create_task(self._submit(submission, clients[submission.site], url))
                self._acting = False
            report(f"chaos: {len(self._histories)} tasks ended or timed out; waiting for the cleanup")
            left = await self._left()
            observed = [
                await self._observed(task_id, clients[site.name], ledger, left[task_id])
                for task_id, site in self._sites.items()
            ]
            names = {one.name for one in observed}
            record = Record(
                plan=plan,
                observed=tuple(observed),
                injected=tuple(self._injected),
                posted=self._posted,
                answered=self._answered,
                strays=tuple(entry for entry in ledger if entry.task_name not in names),
                retries=self._retries,
                wrong_answers=tuple(self._wrong_answers),
            )
        for one in observed:
            if found := judge.task_violations(one):
                await evidence.keep(self._folder, self._sites[one.task_id], one.last, found, one.left)
        return record

    # --- actions ---------------------------------------------------------------------------------------

    async def _submit(self, submission: Submission, client: RetryingClient, ledger: str) -> None:
        await self._until(submission.at)

        def attempt() -> Document:
            tries = sum(one == submission for one in self._posted.values())
            name = f"{self._stage.run}-{submission.number}-{tries}"
            self._posted[name] = submission
            self._last_post_at = time.monotonic()
            return document(
                submission.shape,
                name=name,
                image=self._stage.busybox,
                ledger=ledger,
                bucket=self._stage.bucket.url(),
            )

        task_id = await client.create(attempt)
        name = next(name for name in reversed(self._posted) if self._posted[name] == submission)
        self._answered[name] = task_id
        if submission.cancel_after is not None:
            await asyncio.sleep(submission.cancel_after)
            self._cancel_at[task_id] = time.time()
            await client.cancel(task_id)

    async def _kill(self) -> None:
        """Inject the faults one after the other; a slow one delays the next."""
        for fault in self._plan.faults:
            await self._until(fault.at)
            self._injected.append(done := await faults.inject(fault, self._stage))
            since = time.monotonic() - self._start
            report(f"chaos: {since:6.1f} s {fault.kind}: {', '.join(done.victims) or 'no candidate'}")

    async def _until(self, at: float) -> None:
        await asyncio.sleep(self._start + at - time.monotonic())

    # --- observations ----------------------------------------------------------------------------------

    async def _follow(self, site: Site, client: RetryingClient, ledger: Ledger) -> None:
        """Poll the run's tasks at a site until all have ended and none can follow, or until the timeout."""
        quiet_at: float | None = None
        while True:
            states = await client.states(f"{self._stage.run}-")
            for task_id, state in states.items():
                self._sites[task_id] = site
                self._histories.setdefault(task_id, History(task_id=task_id)).note(state)
                if state in TERMINAL and task_id not in self._first:
                    self._first[task_id] = await client.get(task_id)
                    await self._look(task_id, client, ledger)
            if not self._acting:
                now = time.monotonic()
                quiet_at = quiet_at or now
                late = now < self._last_post_at + _LATE_SECONDS
                if not late and all(state in TERMINAL for state in states.values()):
                    return
                if now > quiet_at + _SETTLE_SECONDS:
                    return
            await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, task_id: str, client: RetryingClient, ledger: Ledger) -> None:
        """Keep evidence of a wrong outcome immediately: Kubernetes keeps it only briefly."""
        one = await self._observed(task_id, client, ledger, ())
        if found := judge.document_violations(one, self._first[task_id]):
            report(f"chaos: {found[0].rule}: {found[0].words}")
            await evidence.keep(self._folder, self._sites[task_id], self._first[task_id], found, ())

    async def _observed(
        self, task_id: str, client: RetryingClient, ledger: Ledger, left: Iterable[str]
    ) -> Observed:
        last = await client.get(task_id)
        name = last.get("name", "")
        stored = await self._stage.bucket.text_if_any(output_key(name))
        return Observed(
            submission=self._posted[name],
            name=name,
            task_id=task_id,
            states=tuple(self._histories[task_id].seen),
            first=self._first.get(task_id),
            last=last,
            entries=of_task(ledger, name),
            cancel_at=self._cancel_at.get(task_id),
            stored=stored,
            left=tuple(left),
            restarts=tuple(one.at for one in self._injected if one.fault.kind is Kind.KUBELET),
        )

    async def _left(self) -> dict[str, list[str]]:
        """Return `<kind>/<name>` of each task's remaining objects, when none is left or after the timeout."""
        found: dict[str, list[str]] = {}

        async def none() -> bool:
            found.clear()
            found.update({task_id: [] for task_id in self._sites})
            for site in self._stage.sites.values():
                await self._collect(site, found)
            return not any(found.values())

        try:
            await eventually(none, "nothing left", seconds=self._stage.ttl + _CLEANED_SECONDS, every=2)
        except NotInTime:
            report(f"chaos: left: {[one for left in found.values() for one in left]}")
        return found

    async def _collect(self, site: Site, found: dict[str, list[str]]) -> None:
        """Add objects by name, regardless of labels; volumes by the name of their claim."""
        for one in await site.kube.find(",".join(KINDS)):
            name = one["metadata"]["name"]
            for task_id, left in found.items():
                if task_id in name:
                    left.append(f"{one['kind'].lower()}/{name}")
        for one in await site.kube.find("persistentvolumes"):
            claim = one["spec"].get("claimRef", {}).get("name", "")
            for task_id, left in found.items():
                if task_id in claim and self._sites[task_id] is site:
                    left.append(f"persistentvolume/{one['metadata']['name']}")
