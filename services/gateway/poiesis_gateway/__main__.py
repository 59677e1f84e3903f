"""Gateway: accept the recorders' reports over HTTPS and apply them in Postgres, until SIGTERM.

Any number of replicas may run. All settings are environment variables.

Exit 0: stopped on request. Exit 2: invalid configuration.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from aiohttp import web

from poiesis_gateway import metrics, reports_db
from poiesis_gateway.app import make_app
from poiesis_gateway.config import Config
from poiesis_gateway.connections import BUFFER_BYTES, Bounds, Connections
from poiesis_gateway.logs import configure_logging
from poiesis_gateway.reports import Database, Reports
from poiesis_gateway.tls import Certificate, CertificateError
from poiesis_models.run_all import run_all
from poiesis_server import health, program
from poiesis_server.metrics import exposition
from poiesis_server.program import stop_event
from poiesis_server.sockets import listen

logger = logging.getLogger("poiesis_gateway")

_SHUTDOWN_SECONDS = 15.0  # for reports in progress, after connections are no longer accepted


async def run(config: Config, certificate: Certificate, stop: asyncio.Event) -> None:
    """Serve with Postgres until `stop`."""
    async with reports_db.connect(
        config.dsn_file, connections=config.database_connections, seconds=config.database_seconds
    ) as database:
        await serve(config, certificate, database, stop)


async def serve(config: Config, certificate: Certificate, database: Database, stop: asyncio.Event) -> None:
    """Serve until `stop`; then report unready, wait until no more requests arrive, and close."""
    connections = Connections(
        Bounds(
            total=config.connections,
            per_address=config.connections_per_address,
            head=config.head_seconds,
            idle=config.idle_seconds,
        )
    )
    async with AsyncExitStack() as stack:  # opened in order, closed in reverse
        reports = Reports(database=database, config=config)
        _watch(reports, connections)
        await stack.enter_async_context(
            health.serve(
                config.health_port,
                healthy=lambda: True,
                ready=lambda: not stop.is_set(),
                metrics=partial(exposition, metrics.REGISTRY),
            )
        )
        runner = web.AppRunner(
            make_app(reports, connections, stop.is_set),
            access_log=None,
            handle_signals=False,
            keepalive_timeout=config.idle_seconds,
            read_bufsize=BUFFER_BYTES,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if runner.server is None:
            raise RuntimeError("the application runner has no server after setup")
        listening = listen(config.port, backlog=config.connections)
        stack.callback(listening.close)
        listening.setblocking(False)
        logger.info("serving", extra={"port": config.port})

        async def drain() -> None:
            await stop.wait()
            logger.info("stopping")
            await asyncio.sleep(config.drain_seconds)  # until no Endpoint refers to this replica any more

        await run_all(
            [drain()],
            [
                connections.accept(listening, runner.server, lambda: certificate.context),
                connections.watch(),
                certificate.watch(),
            ],
        )


def _watch(reports: Reports, connections: Connections) -> None:
    """Let the gauges read these values at each scrape."""
    metrics.BODIES.set_function(lambda: reports.incoming.bodies)
    metrics.BODY_BYTES.set_function(lambda: reports.incoming.held_bytes)
    metrics.DATABASE.waiting.set_function(lambda: reports.line.waiting)
    metrics.CONNECTIONS.set_function(lambda: len(connections))


async def until_signal(config: Config) -> None:
    """Run until SIGTERM or SIGINT. Raise CertificateError if there is no certificate to start with."""
    configure_logging(config.log_level)
    stop = stop_event()
    await run(config, Certificate(config.certificate_file, config.key_file), stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    configure_logging()
    return program.run(
        Config,
        until_signal,
        name="poiesis_gateway",
        about=__doc__,
        unusable=(CertificateError,),
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
