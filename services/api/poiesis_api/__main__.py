"""Serve TES 1.1 and submit tasks to Kubernetes, until SIGTERM.

Exit 0: stopped on request. Exit 2: bad configuration.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from functools import partial

from aiohttp import web

from poiesis_api import config as configuration
from poiesis_api import kube, metrics, queue_depth
from poiesis_api.app import make_app
from poiesis_api.config import Config, ConfigError, Http
from poiesis_api.gateway_ca import gateway_ca
from poiesis_api.handlers import Services
from poiesis_api.identity.authenticators import open_authenticator
from poiesis_api.identity.credentials import HEADER_BYTES
from poiesis_api.limits import RequestRates, active_per_owner
from poiesis_api.logs import configure_logging
from poiesis_api.outages import WriteHealth
from poiesis_api.postgres import open_pool
from poiesis_api.recorder_files import recorder_postgres
from poiesis_api.stored_documents import keep_stored
from poiesis_api.submitter import Submitter, pace_of
from poiesis_models.run_all import run_all
from poiesis_server import health
from poiesis_server.metrics import exposition

logger = logging.getLogger(__name__)


async def run(config: Config, stop: asyncio.Event) -> None:
    """Serve until `stop`; then report unready, wait until no more requests arrive, and close."""
    document = config.document
    user_limits = document.effective_user_limits
    # A file that cannot be used is an error of the configuration now, of a task later.
    gateway_ca(document)
    recorder_postgres(document)
    async with AsyncExitStack() as stack:  # opened in order, closed in reverse
        pool = await stack.enter_async_context(open_pool(config.dsn, document.database))
        pace = pace_of(document.queue)
        cluster = await stack.enter_async_context(kube.connect(config.namespace, observe=pace.observe))
        authenticator = await stack.enter_async_context(open_authenticator(document.auth))
        write_health = WriteHealth(time.monotonic)
        submitter = Submitter(
            pool,
            cluster,
            document,
            max_active_per_owner=active_per_owner(user_limits),
            write_health=write_health,
            pace=pace,
        )
        services = Services(
            pool=pool,
            submitter=submitter,
            config=document,
            authenticator=authenticator,
            rates=RequestRates(user_limits.requests),
            write_health=write_health,
        )
        metrics.RESPONSE_BYTES.set_function(lambda: services.outgoing.held_bytes)
        await stack.enter_async_context(
            health.serve(document.http.metrics_port, metrics=partial(exposition, metrics.REGISTRY))
        )
        await _listen(services, document.http, stack)
        logger.info("serving", extra={"port": document.http.port, "namespace": config.namespace})

        async def drain() -> None:
            await stop.wait()
            services.stopping = True
            logger.info("stopping")
            await asyncio.sleep(
                document.http.drain_seconds
            )  # until no Endpoint refers to this replica any more

        await run_all(
            [submitter.run(stop), keep_stored(pool, stop), drain()],
            [services.connections.watch(), queue_depth.follow(pool, document)],
        )


async def _listen(services: Services, http: Http, stack: AsyncExitStack) -> None:
    runner = web.AppRunner(
        make_app(services),
        access_log=None,
        handle_signals=False,
        max_field_size=HEADER_BYTES,
        keepalive_timeout=http.keep_alive_seconds,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if runner.server is None:
        raise RuntimeError("the application runner has no server after setup")
    server = runner.server
    metrics.CONNECTIONS.set_function(lambda: len(server.connections))
    factory = services.connections.factory(server)
    # asyncio's backlog of 100 is too small for a burst of requests: a client whose connection request was
    # dropped repeats it after a second or more.
    listening = await asyncio.get_running_loop().create_server(
        factory, http.host, http.port, backlog=http.max_connections
    )
    stack.callback(listening.close)


async def until_signal(config: Config) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(config, stop)


def main() -> int:
    """Run the service and return the exit code."""
    argparse.ArgumentParser(
        prog="poiesis_api",
        description=f"{__doc__}\n{configuration.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    configure_logging()
    try:
        config = Config.from_env(os.environ)
        configure_logging(config.log_level)
        asyncio.run(until_signal(config))
    except ConfigError as error:
        logger.error("cannot start: %s", error)  # noqa: TRY400
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
