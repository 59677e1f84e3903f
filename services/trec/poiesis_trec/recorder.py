"""Follow the containers of this Pod and report to Postgres, until the task or the Pod ends.

One loop: read the files and the Pod's status, decide, report changes. Everything it waits for (a file, the
Pod's status, SIGTERM, a time) sets the same event, and each round starts from the current state.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from poiesis_models.report import Answer
from poiesis_models.states import TesState, terminal_state
from poiesis_models.together import together
from poiesis_trec import system_logs
from poiesis_trec.backoff import Backoff
from poiesis_trec.config import Config
from poiesis_trec.facts import (
    Container,
    PodView,
    Situation,
    awaited,
    containers,
    facts,
    phase,
    still_pouring,
    unexplained,
    unstarted,
    wants_rescue,
)
from poiesis_trec.filers import filers
from poiesis_trec.outbox import Draft, Outbox, Snapshot
from poiesis_trec.podwatch import PodUnknown, PodWatch
from poiesis_trec.regular import Signature
from poiesis_trec.rundir import RunDirectories
from poiesis_trec.tasks_db import DatabaseUnavailable, ReportRefused, TasksDb

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (0.2, 10.0)  # first and longest delay while Postgres is unavailable
_REFUSED_SECONDS = 60.0  # between tries of a report that Postgres rejects
_DOUBT_SECONDS = (0.02, 0.5)  # between two checks of a helper that has written exit.json and still runs
_SHUTDOWN_RETRY_SECONDS = 1.0
_SHUTDOWN_RESCAN_SECONDS = 0.5
_ROUND_SECONDS = 0.02  # between two rounds: a container that writes continuously must not cost a core
_STREAM_SECONDS = 30.0  # for streams to report their end after everything else has ended
_ASK_SECONDS = 3.0  # for the Pod's status in shutdown
# Before the end of the grace period. The helper kills a process that ignores SIGTERM 3 s before it and then
# writes the exit record, which decides whether the recorder reports CANCELED, so it waits for the record.
_WAIT_MARGIN_SECONDS = 2.6  # no more waiting for a running container
_LEAVE_MARGIN_SECONDS = 2.2  # leave
_LAST_WRITE_SECONDS = 0.2  # additional time for a write that ends the task


async def run(config: Config, stop: asyncio.Event) -> None:
    """Record the task until it ends or `stop` is set. Return only after `stop`."""
    changed = asyncio.Event()
    runs = RunDirectories(config.runs, config.plan, config.log_bytes, changed)
    watch = PodWatch(config.kubernetes, config.pod, changed) if config.kubernetes else None
    db = TasksDb(config.dsn_file, config.task_id, config.token)
    recorder = Recorder(config, runs=runs, watch=watch, db=db, changed=changed, stop=stop)
    helpers = [runs.follow(), _until_time_is_up(stop, changed, config)]
    if watch is not None:
        helpers.append(watch.run())
    try:
        await together([recorder.record()], helpers)
    except _OutOfTime:
        logger.warning("grace period over; the Task Controller records the outcome")
    finally:
        await db.close()
    await stop.wait()  # the kubelet restarts a sidecar that exits


class _OutOfTime(Exception):
    """The grace period is over, except for the time to exit."""


async def _until_time_is_up(stop: asyncio.Event, changed: asyncio.Event, config: Config) -> None:
    await stop.wait()
    changed.set()
    await asyncio.sleep(max(config.grace_seconds - _LEAVE_MARGIN_SECONDS, 1))
    raise _OutOfTime


class Recorder:
    """The state of the loop between rounds; Postgres and the files are sufficient to restore it."""

    def __init__(
        self,
        config: Config,
        *,
        runs: RunDirectories,
        watch: PodWatch | None,
        db: TasksDb,
        changed: asyncio.Event,
        stop: asyncio.Event,
    ) -> None:
        self._config, self._runs, self._watch, self._db = config, runs, watch, db
        self._changed, self._stop = changed, stop
        self._clock = asyncio.get_running_loop().time
        self._outbox = Outbox(config.pod, config.log_interval_seconds)
        self._backoff = Backoff(*_RETRY_SECONDS)
        self._doubt = Backoff(*_DOUBT_SECONDS)
        self._scheduled = system_logs.scheduled(config.pod, time.time_ns())
        self._cancel_requested = False
        self._round_at = self._rescan_at = self._retry_at = self._idle_at = float("-inf")
        self._stopped_at: float | None = None
        self._patient_until: float | None = None
        self._must_ask = False  # report even without changes, to learn whether a cancel was requested
        self._asked_pod = False
        self._give_up = False
        self._rescue_asked = False

    async def record(self) -> None:
        """Return when the task has ended and the ack is written, or when shutdown is complete."""
        while True:
            self._changed.clear()
            snapshot, known = self._look()
            if self._stop.is_set() and await self._stopping(snapshot, known):
                continue
            now = self._clock()
            draft = None
            if now >= self._retry_at:
                draft = self._outbox.draft(snapshot, now, self._read_log, anyway=self._must_ask)
            if draft is not None:
                answer = await self._tell(draft)
                if answer is not None and answer.ended:
                    await self._acknowledge(answer)
                    return
            elif self._nothing_left(known):
                return
            else:
                await self._pause(snapshot)

    def _look(self) -> tuple[Snapshot, tuple[Container, ...]]:
        now = self._clock()
        everything = now >= self._rescan_at
        if everything:
            stopping = self._stopped_at is not None
            pause = _SHUTDOWN_RESCAN_SECONDS if stopping else self._config.rescan_seconds
            self._rescan_at = now + pause
        self._runs.refresh(everything=everything)
        self._round_at = now
        situation = self._situation()
        known = containers(situation)
        situation = self._patiently(situation, known)
        if wants_rescue(situation, known):
            self._ask_rescue()
        pod, now_ns = situation.pod, time.time_ns()
        snapshot = Snapshot(
            at_ns=now_ns,
            state=phase(known),
            containers=known,
            logs={
                (one.name, stream): seen
                for one in known
                if one.executor is not None
                for stream, seen in self._runs[one.name].logs.items()
            },
            outputs={
                name: self._runs[name].outputs
                for name in (*self._config.plan.outputs, *self._config.plan.rescues)
            },
            inputs=tuple(one for name in self._config.plan.inputs for one in self._runs[name].files.inputs),
            filers=tuple(filers(situation, known, now_ns)),
            system_logs=(
                self._scheduled,
                *system_logs.lines(known, pod, now_ns),
                *system_logs.stream_lines(situation, now_ns),
                *system_logs.rescue_lines(situation, known, now_ns),
            ),
            ending=terminal_state(facts(situation, known)),
            cancel_seen=situation.cancel_requested,
            final=situation.shutting_down and (awaited(known) is None or self._past_waiting()),
        )
        return snapshot, known

    def _ask_rescue(self) -> None:
        """Let the sidecars send the outputs now. Without it they do so when the Pod ends."""
        if self._rescue_asked:
            return
        try:
            _write_aside(self._config.rescue_file, "1")
        except OSError as error:
            logger.error("cannot write %s: %s", self._config.rescue_file, error)  # noqa: TRY400
        else:
            self._rescue_asked = True

    def _situation(self) -> Situation:
        return Situation(
            plan=self._config.plan,
            files=self._runs.files,
            pod=self._watch.view if self._watch else None,
            cancel_requested=self._cancel_requested,
            shutting_down=self._stopped_at is not None,
        )

    def _patiently(self, situation: Situation, known: tuple[Container, ...]) -> Situation:
        """Wait a limited time for the end of streams once everything else has ended."""
        if not still_pouring(situation) or facts(replace(situation, patient=False), known).running:
            self._patient_until = None
            return situation
        now = self._clock()
        if self._patient_until is None:
            self._patient_until = now + _STREAM_SECONDS
        return replace(situation, patient=now < self._patient_until)

    def _read_log(self, container: str, stream: str) -> tuple[str, Signature] | None:
        return self._runs[container].log(stream)

    async def _tell(self, draft: Draft) -> Answer | None:
        """Send a report; None if Postgres did not store it. A later round sends a new one."""
        try:
            answer = await self._write(draft)
        except DatabaseUnavailable as error:
            pause = self._backoff.next()
            if self._stopped_at is not None:
                pause = min(pause, _SHUTDOWN_RETRY_SECONDS)
            logger.warning("postgres unavailable, retrying in %.1f s: %s", pause, error)
            self._retry_at = self._clock() + pause
            self._give_up = False
            return None
        except ReportRefused as error:
            logger.error("postgres rejected the report: %s", error)  # noqa: TRY400 (the stack does not help)
            self._retry_at = self._clock() + _REFUSED_SECONDS
            self._give_up = True
            return None
        now = self._clock()
        self._backoff.reset()
        self._outbox.told(draft, now)
        for name, sent in draft.outputs.items():
            self._runs.outputs_stored(name, sent)
        self._idle_at = now + self._config.db_idle_seconds
        self._must_ask = self._give_up = False
        if draft.report.ending is not None and not answer.ended and not answer.cancel_requested:
            logger.error("postgres did not store the outcome %s", draft.report.ending.state)
            self._retry_at = now + _REFUSED_SECONDS
        self._cancel_requested = answer.cancel_requested
        return answer

    async def _write(self, draft: Draft) -> Answer:
        """Send the report; a write that ends the task is completed even after the grace period."""
        write = asyncio.create_task(self._db.record(draft.report), name="report")
        try:
            return await asyncio.shield(write)
        except asyncio.CancelledError:
            if draft.report.ending is not None:
                await asyncio.wait({write}, timeout=_LAST_WRITE_SECONDS)
            write.cancel()
            await asyncio.wait({write})
            if not write.cancelled() and (error := write.exception()) is not None:
                logger.warning("last report failed: %s", error)
            raise

    async def _acknowledge(self, answer: Answer) -> None:
        """Write the file that makes `pause` exit."""
        logger.info("task ended: %s", answer.state)
        backoff = Backoff(*_RETRY_SECONDS)
        while True:
            try:
                write_ack(self._config.ack_file, complete=answer.state is TesState.COMPLETE)
            except OSError as error:
                logger.error("cannot write %s: %s", self._config.ack_file, error)  # noqa: TRY400
            else:
                return
            if self._stop.is_set():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._stop.wait()

    async def _stopping(self, snapshot: Snapshot, known: tuple[Container, ...]) -> bool:
        """Handle shutdown before the rest of a round. Return True to start the round again."""
        if self._stopped_at is None:
            logger.info("SIGTERM received")
            self._stopped_at = self._clock()
            self._must_ask = True
            self._retry_at = self._rescan_at = float("-inf")
            return True
        silent = unexplained(known)
        if silent is None and snapshot.ending is None:
            silent = unstarted(known)
        if silent is None or self._asked_pod or self._watch is None:
            return False
        self._asked_pod = True
        await self._ask_pod(self._watch, silent)
        return True

    async def _ask_pod(self, watch: PodWatch, silent: Container) -> None:
        """Poll the Pod until its status has the container's end, which the kubelet sends a moment later."""

        def answers(view: PodView) -> bool:
            return silent.name in view.ends or (view.going and not silent.seen)

        backoff = Backoff(0.2, 0.5)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ASK_SECONDS):
                while True:
                    try:
                        view = await watch.fetch()
                    except PodUnknown as error:
                        logger.info("cannot read the exit status of %s: %s", silent.name, error)
                    else:
                        if answers(view):
                            return
                    await asyncio.sleep(backoff.next())
        logger.warning("exit status of %s unknown", silent.name)

    def _past_waiting(self) -> bool:
        return self._stopped_at is not None and self._clock() >= self._wait_until(self._stopped_at)

    def _wait_until(self, stopped_at: float) -> float:
        return stopped_at + max(self._config.grace_seconds - _WAIT_MARGIN_SECONDS, 0)

    def _nothing_left(self, known: tuple[Container, ...]) -> bool:
        """Return whether, in shutdown, all is reported and no exit record is expected any more."""
        if self._stopped_at is None:
            return False
        if self._give_up:
            return True
        if self._must_ask or self._clock() < self._retry_at:
            return False
        return awaited(known) is None or self._past_waiting()

    async def _pause(self, snapshot: Snapshot) -> None:
        now = self._clock()
        if self._db.has_had_its_turn or (self._db.is_open and now >= self._idle_at):
            await self._db.close()
            return
        until = [self._rescan_at]
        if now < self._retry_at:
            until.append(self._retry_at)
        elif (due_at := self._outbox.due_at(snapshot, now)) is not None:
            until.append(due_at)
        if self._runs.doubtful:
            until.append(now + self._doubt.next())
        else:
            self._doubt.reset()
        if self._db.is_open:
            until.append(self._idle_at)
        if self._patient_until is not None and now < self._patient_until:
            until.append(self._patient_until)
        if self._stopped_at is not None and not self._past_waiting():
            until.append(self._wait_until(self._stopped_at))
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(until)):
                await self._changed.wait()
        await asyncio.sleep(self._round_at + _ROUND_SECONDS - self._clock())


def write_ack(path: Path, *, complete: bool) -> None:
    """Write the ack, by which `pause` exits."""
    _write_aside(path, "0" if complete else "1")


def _write_aside(path: Path, text: str) -> None:
    """Write to a temporary file and rename it, so that other containers read it completely."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text)
    aside.chmod(0o644)
    aside.rename(path)
