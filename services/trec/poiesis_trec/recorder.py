"""Follow the containers of this Pod and report them, until the task or the Pod ends.

One loop: read the files and the Pod's status, decide, report changes. Everything it waits for (a file, the
Pod's status, SIGTERM, a time) sets the same event, and each round starts from the current state.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import random

from poiesis_models.report import ReportResponse
from poiesis_models.run_all import run_all
from poiesis_models.states import TesState, terminal_state
from poiesis_trec import system_logs
from poiesis_trec.backoff import RetryDelay
from poiesis_trec.config import Config
from poiesis_trec.facts import (
    Observation,
    PlannedContainer,
    PodView,
    awaited,
    containers,
    facts,
    phase,
    still_streaming,
    unexplained,
    unstarted,
    wants_rescue,
)
from poiesis_trec.filers import filers
from poiesis_trec.outbox import Outbox, PendingReport, Snapshot
from poiesis_trec.podwatch import NoPodStatus, PodStatus, PodWatch
from poiesis_trec.regular import Signature
from poiesis_trec.rundir import RunDirectories
from poiesis_trec.sink import ReportRefused, ReportSink, ReportUnavailable, report_sink

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (0.2, 5.0)  # first and longest delay while reports cannot be sent
_RETRY_AFTER_SPREAD = 0.5  # of Retry-After: recorders that were sent away together return one after the other
_REFUSED_SECONDS = 60.0  # between tries of a report that is rejected
_UNCONFIRMED_SECONDS = (0.02, 0.5)  # between two checks of a helper that has written exit.json and still runs
_SHUTDOWN_RETRY_SECONDS = 1.0
_SHUTDOWN_RESCAN_SECONDS = 0.5
_ROUND_SECONDS = 0.02  # between two rounds: a container that writes continuously must not cost a core
_STREAM_SECONDS = 30.0  # for streams to report their end after everything else has ended
# Before the end of the grace period. The helper kills a process that ignores SIGTERM 3 s before it and then
# writes the exit record, which decides whether the recorder reports CANCELED, so it waits for the record.
_WAIT_MARGIN_SECONDS = 2.6  # no more waiting for a running container
_LEAVE_MARGIN_SECONDS = 2.2  # leave
_LAST_WRITE_SECONDS = 0.2  # additional time for a write that ends the task


async def run(config: Config, stop: asyncio.Event) -> None:
    """Record the task until it ends or `stop` is set. Return only after `stop`."""
    changed = asyncio.Event()
    runs = RunDirectories(config.runs, config.plan, config.log_bytes, changed)
    status = PodWatch(config.kubernetes, config.pod, changed) if config.kubernetes else NoPodStatus()
    sink = report_sink(config)
    recorder = Recorder(config, runs=runs, status=status, sink=sink, changed=changed, stop=stop)
    helpers = [runs.follow(), status.run(), _until_time_is_up(stop, changed, config)]
    try:
        await run_all([recorder.record()], helpers)
    except _OutOfTime:
        logger.warning("grace period over; the Task Controller records the outcome")
    finally:
        await sink.close()
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
        status: PodStatus,
        sink: ReportSink,
        changed: asyncio.Event,
        stop: asyncio.Event,
    ) -> None:
        self._config, self._runs, self._status, self._sink = config, runs, status, sink
        self._changed, self._stop = changed, stop
        self._clock = asyncio.get_running_loop().time
        self._outbox = Outbox(config.pod, config.log_interval_seconds, config.log_bytes)
        self._backoff = RetryDelay(*_RETRY_SECONDS)
        self._unconfirmed_delay = RetryDelay(*_UNCONFIRMED_SECONDS)
        self._scheduled = system_logs.scheduled(config.pod, time.time_ns())
        self._cancel_requested = False
        self._round_at = self._rescan_at = self._retry_at = self._idle_at = float("-inf")
        self._stopped_at: float | None = None
        self._streams_until: float | None = None
        self._cancel_check_due = False  # report even without changes, to learn whether a cancel was requested
        self._pod_polled = False
        self._give_up = False
        self._rescue_requested = False

    async def record(self) -> None:
        """Return when the task has ended and the ack is written, or when shutdown is complete."""
        while True:
            self._changed.clear()
            snapshot, known = self._observe()
            if self._stop.is_set() and await self._stopping(snapshot, known):
                continue
            now = self._clock()
            pending = None
            if now >= self._retry_at:
                pending = self._outbox.next_report(
                    snapshot, now, self._read_log, force=self._cancel_check_due
                )
            if pending is not None:
                response = await self._send(pending)
                if response is not None and response.ended:
                    await self._acknowledge(response)
                    return
            elif self._is_complete(known):
                return
            else:
                await self._pause(snapshot)

    def _observe(self) -> tuple[Snapshot, tuple[PlannedContainer, ...]]:
        now = self._clock()
        everything = now >= self._rescan_at
        if everything:
            stopping = self._stopped_at is not None
            pause = _SHUTDOWN_RESCAN_SECONDS if stopping else self._config.rescan_seconds
            self._rescan_at = now + pause
        self._runs.refresh(everything=everything)
        self._round_at = now
        observation = self._observation()
        known = containers(observation)
        observation = self._with_stream_timeout(observation, known)
        if wants_rescue(observation, known):
            self._request_rescue()
        pod, now_ns = observation.pod, time.time_ns()
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
            filers=tuple(filers(observation, known, now_ns)),
            system_logs=(
                self._scheduled,
                *system_logs.lines(known, pod, now_ns),
                *system_logs.stream_lines(observation, now_ns),
                *system_logs.rescue_lines(observation, known, now_ns),
            ),
            outcome=terminal_state(facts(observation, known)),
            cancel_seen=observation.cancel_requested,
            final=observation.shutting_down and (awaited(known) is None or self._wait_is_over()),
        )
        return snapshot, known

    def _request_rescue(self) -> None:
        """Let the sidecars send the outputs now. Without it they do so when the Pod ends."""
        if self._rescue_requested:
            return
        try:
            _write_aside(self._config.rescue_file, "1")
        except OSError as error:
            logger.error("cannot write %s: %s", self._config.rescue_file, error)  # noqa: TRY400
        else:
            self._rescue_requested = True

    def _observation(self) -> Observation:
        return Observation(
            plan=self._config.plan,
            files=self._runs.files,
            pod=self._status.view,
            cancel_requested=self._cancel_requested,
            shutting_down=self._stopped_at is not None,
        )

    def _with_stream_timeout(
        self, observation: Observation, known: tuple[PlannedContainer, ...]
    ) -> Observation:
        """Wait a limited time for the end of streams once everything else has ended."""
        if (
            not still_streaming(observation)
            or facts(replace(observation, streams_awaited=False), known).running
        ):
            self._streams_until = None
            return observation
        now = self._clock()
        if self._streams_until is None:
            self._streams_until = now + _STREAM_SECONDS
        return replace(observation, streams_awaited=now < self._streams_until)

    def _read_log(self, container: str, stream: str) -> tuple[bytes, Signature] | None:
        return self._runs[container].log(stream)

    async def _send(self, pending: PendingReport) -> ReportResponse | None:
        """Send a report; None if it is not confirmed. A later round sends a new one."""
        try:
            response = await self._write(pending)
        except ReportUnavailable as error:
            pause = self._retry_pause(error.retry_after)
            logger.warning("report not confirmed, retrying in %.1f s: %s", pause, error)
            self._outbox.mark_failed(pending)
            self._retry_at = self._clock() + pause
            self._give_up = False
            return None
        except ReportRefused as error:
            logger.error("report rejected: %s", error)  # noqa: TRY400 (the stack does not help)
            self._outbox.mark_failed(pending)
            self._retry_at = self._clock() + _REFUSED_SECONDS
            self._give_up = True
            return None
        now = self._clock()
        self._backoff.reset()
        self._outbox.mark_stored(pending, now)
        for name, sent in pending.outputs.items():
            self._runs.outputs_stored(name, sent)
        self._idle_at = now + self._config.idle_seconds
        self._cancel_check_due = self._give_up = False
        if pending.report.ending is not None and not response.ended and not response.cancel_requested:
            logger.error("the outcome %s was not stored", pending.report.ending.state)
            self._retry_at = now + _REFUSED_SECONDS
        self._cancel_requested = response.cancel_requested
        return response

    def _retry_pause(self, retry_after: float | None) -> float:
        """Return the seconds before the next try. In shutdown a try must fit into the grace period."""
        pause = self._backoff.next()
        if self._stopped_at is not None:
            pause = min(pause, _SHUTDOWN_RETRY_SECONDS)
        if retry_after is None:
            return pause
        pause = max(pause, retry_after * (1 + _RETRY_AFTER_SPREAD * random()))  # noqa: S311 (spreads load)
        if self._stopped_at is None:
            return pause
        left = self._stopped_at + self._config.grace_seconds - _LEAVE_MARGIN_SECONDS - self._clock()
        return min(pause, max(left / 2, _SHUTDOWN_RETRY_SECONDS))

    async def _write(self, pending: PendingReport) -> ReportResponse:
        """Send the report; a write that ends the task is completed even after the grace period."""
        write = asyncio.create_task(self._sink.record(pending.report), name="report")
        try:
            return await asyncio.shield(write)
        except asyncio.CancelledError:
            if pending.report.ending is not None:
                await asyncio.wait({write}, timeout=_LAST_WRITE_SECONDS)
            write.cancel()
            await asyncio.wait({write})
            if not write.cancelled() and (error := write.exception()) is not None:
                logger.warning("last report failed: %s", error)
            raise

    async def _acknowledge(self, response: ReportResponse) -> None:
        """Write the file that makes `pause` exit."""
        logger.info("task ended: %s", response.state)
        backoff = RetryDelay(*_RETRY_SECONDS)
        while True:
            try:
                write_ack(self._config.ack_file, complete=response.state is TesState.COMPLETE)
            except OSError as error:
                logger.error("cannot write %s: %s", self._config.ack_file, error)  # noqa: TRY400
            else:
                return
            if self._stop.is_set():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._stop.wait()

    async def _stopping(self, snapshot: Snapshot, known: tuple[PlannedContainer, ...]) -> bool:
        """Handle shutdown before the rest of a round. Return True to start the round again."""
        if self._stopped_at is None:
            logger.info("SIGTERM received")
            self._stopped_at = self._clock()
            self._cancel_check_due = True
            self._retry_at = self._rescan_at = float("-inf")
            return True
        silent = unexplained(known)
        if silent is None and snapshot.outcome is None:
            silent = unstarted(known)
        if silent is None or self._pod_polled:
            return False
        self._pod_polled = True
        await self._poll_status(silent)
        return True

    async def _poll_status(self, silent: PlannedContainer) -> None:
        """Read the Pod's status until it has the container's end."""

        def has_the_end(view: PodView) -> bool:
            return silent.name in view.ends or (view.terminating and not silent.reached)

        if not await self._status.poll(has_the_end):
            logger.warning("exit status of %s unknown", silent.name)

    def _wait_is_over(self) -> bool:
        return self._stopped_at is not None and self._clock() >= self._wait_until(self._stopped_at)

    def _wait_until(self, stopped_at: float) -> float:
        return stopped_at + max(self._config.grace_seconds - _WAIT_MARGIN_SECONDS, 0)

    def _is_complete(self, known: tuple[PlannedContainer, ...]) -> bool:
        """Return whether, in shutdown, all is reported and no exit record is expected any more."""
        if self._stopped_at is None:
            return False
        if self._give_up:
            return True
        if self._cancel_check_due or self._clock() < self._retry_at:
            return False
        return awaited(known) is None or self._wait_is_over()

    async def _pause(self, snapshot: Snapshot) -> None:
        now = self._clock()
        if self._sink.must_be_closed or (self._sink.is_open and now >= self._idle_at):
            await self._sink.close()
            return
        until = [self._rescan_at]
        if now < self._retry_at:
            until.append(self._retry_at)
        elif (due_at := self._outbox.due_at(snapshot, now)) is not None:
            until.append(due_at)
        if self._runs.unconfirmed:
            until.append(now + self._unconfirmed_delay.next())
        else:
            self._unconfirmed_delay.reset()
        if self._sink.is_open:
            until.append(self._idle_at)
        if self._streams_until is not None and now < self._streams_until:
            until.append(self._streams_until)
        if self._stopped_at is not None and not self._wait_is_over():
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
