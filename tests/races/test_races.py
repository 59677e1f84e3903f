"""Search for races: real services, a real Postgres and a model of Kubernetes, in many orders.

A search chooses the next request, the requests that fail, and the processes that die before or after them. On
failure hypothesis prints the shortest steps that it found; a note of the error has the resulting events.
`POIESIS_RACES_EXAMPLES=5000` searches longer, with a different seed every time.
"""

import logging
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import races_postgres
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from races_cluster import Truth
from races_scheduler import Fate, VirtualLoop
from races_world import ErrorLog, Later, World

from poiesis_api.config import Document, Recorder, RecorderFiles
from poiesis_trec import recorder

pytestmark = pytest.mark.integration

EXAMPLES = os.environ.get("POIESIS_RACES_EXAMPLES")
ROOT = Path(__file__).parent.parent.parent
LOGGERS = ("poiesis_api", "poiesis_tctl", "poiesis_trec")

TRUTHS = st.sampled_from(
    [
        Truth(),
        Truth(codes=(3,)),
        Truth(codes=(0, 4), outputs=True),
        Truth(codes=(5, 0), outputs=True),
        Truth(codes=(6, 0)),
        Truth(codes=(0, 7), canceled_in="executor-0"),
        Truth(codes=(8,), outputs=True, canceled_in="executor-0"),
        Truth(outputs=True, tof_code=65),
    ]
)
PICK = st.integers(0, 11)
SEED = st.integers(0, 9999)
FATES = [Fate.CRASH_AFTER, Fate.CRASH_BEFORE, Fate.LOST, Fate.FAILS]
FAULTS = st.sampled_from(FATES)
LATER: st.SearchStrategy[Later] = st.sampled_from([*FATES, "cancel", "time"])


class Laboratory:
    """Resources that all searches share."""

    def __init__(
        self,
        loop: VirtualLoop,
        connection: asyncpg.Connection,
        folder: Path,
        *,
        transport: str,
        files_only: bool,
    ) -> None:
        self.loop, self.connection, self.folder = loop, connection, folder
        self.transport = transport
        (folder / "recorder-dsn").write_text("postgresql://")
        files = RecorderFiles(dsn_file=str(folder / "recorder-dsn"))
        example = Document.load(ROOT / "services" / "api" / "config.example.json")
        # Recorders in the model of the Pod choose their transport themselves.
        reports = Recorder(transport="postgres", files_only=files_only)
        update = {"recorder": reports, "recorder_postgres": files}
        self.config = example.model_copy(update=update)
        self.error_log = ErrorLog()

    def world(self) -> World:
        return World(
            self.loop, self.connection, self.config, self.folder, self.error_log, transport=self.transport
        )

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(work)


@pytest.fixture(
    params=[("gateway", False), ("postgres", False), ("gateway", True)],
    ids=["gateway", "postgres", "files only"],
)
def laboratory(
    request: pytest.FixtureRequest, postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Laboratory]:
    # The pause saves CPU in production; here it would last forever.
    monkeypatch.setattr(recorder, "_ROUND_SECONDS", 0.0)
    loop = VirtualLoop()
    connection = loop.run_until_complete(races_postgres.connect(postgres_dsn))
    loop.run_until_complete(connection.execute(races_postgres.CLOCK))
    transport, files_only = request.param
    laboratory = Laboratory(loop, connection, tmp_path, transport=transport, files_only=files_only)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(laboratory.error_log)
        monkeypatch.setattr(logger, "propagate", False)
        monkeypatch.setattr(logger, "level", logging.ERROR)
    yield laboratory
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(laboratory.error_log)
    loop.run_until_complete(connection.close())
    loop.close()


class Races(RuleBasedStateMachine):
    """Each rule is a possible next event."""

    laboratory: Laboratory

    def __init__(self) -> None:
        super().__init__()
        self.world = self.laboratory.world()
        self.broken = False
        self.do(self.world.begin())

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            self.laboratory.run(work)
        except AssertionError as error:
            self.broken = True
            error.add_note("\n".join(["events:", *self.world.scheduler.trace]))
            raise

    @initialize(
        truth=TRUTHS,
        later=st.dictionaries(st.integers(1, 90), LATER, max_size=5),
        reports=st.dictionaries(st.integers(1, 6), FAULTS, max_size=3),
        seed=SEED,
    )
    def first_task(self, truth: Truth, later: dict[int, Later], reports: dict[int, Fate], seed: int) -> None:
        self.world.plan(later, reports, seed)
        self.create(0, truth)

    @rule(api=PICK, truth=TRUTHS)
    def create(self, api: int, truth: Truth) -> None:
        if len(self.world.truths) < 3:
            self.world.create(api, truth)
            self.do(self.world.settle())

    @rule(api=PICK, task=PICK)
    def cancel(self, api: int, task: int) -> None:
        self.world.cancel(api, task)
        self.do(self.world.settle())

    @rule(pick=PICK)
    def one_request(self, pick: int) -> None:
        self.do(self.world.proceed(pick))

    @rule(pick=PICK, requests=st.integers(2, 12))
    def one_process(self, pick: int, requests: int) -> None:
        self.do(self.world.proceed_with(pick, requests))

    @rule(requests=st.integers(2, 30))
    def all_processes(self, requests: int) -> None:
        for _ in range(requests):
            self.do(self.world.proceed(0))

    @rule(pick=PICK, fate=FAULTS)
    def fault(self, pick: int, fate: Fate) -> None:
        self.do(self.world.proceed(pick, fate))

    @rule(picks=st.lists(PICK, min_size=1, max_size=8))
    def cluster(self, picks: list[int]) -> None:
        for pick in picks:
            self.do(self.world.cluster_step(pick))

    @rule(seconds=st.sampled_from([2.0, 6.0, 70.0, 350.0]))
    def time(self, seconds: float) -> None:
        self.do(self.world.pass_time(seconds))

    @rule(kind=st.sampled_from(["Job", "Pod"]), pick=PICK)
    def external_delete(self, kind: str, pick: int) -> None:
        self.do(self.world.external_delete(kind, pick))

    @rule()
    def second_leader(self) -> None:
        self.do(self.world.second_leader())

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.do(self.world.run_to_quiescence())
        finally:
            self.laboratory.run(self.world.stop())


def test_every_task_has_one_correct_outcome(laboratory: Laboratory) -> None:
    Races.laboratory = laboratory
    run_state_machine_as_test(
        Races,
        settings=settings(
            max_examples=int(EXAMPLES or 100),
            stateful_step_count=30,
            derandomize=EXAMPLES is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
