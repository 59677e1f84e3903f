"""Task Controller: store how a task ended when its own Pod could not, and end Pods that never would.

Several replicas may run; one leads, by a Lease. All settings are environment variables (see
poiesis_tctl.config).

Exit 0: asked to stop, the Lease is given back. Exit 1: the leader's work would not stop.
Exit 2: bad configuration.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from poiesis_tctl import config as config_module
from poiesis_tctl import health, kube, metrics, tasks_db
from poiesis_tctl.config import Config, ConfigError
from poiesis_tctl.controller import Controller
from poiesis_tctl.lease import Elector, WorkWouldNotStop
from poiesis_tctl.logs import configure_logging

logger = logging.getLogger(__name__)


async def run(config: Config, stop: asyncio.Event) -> None:
    """Until `stop`. Raise KubeError if there are no credentials at all, WorkWouldNotStop."""
    leader: Controller | None = None

    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(kube.connect(config.kubeconfig, config.namespace))
        tasks = await stack.enter_async_context(tasks_db.connect(config.dsn, connections=config.workers + 1))
        elector = Elector(api, name=config.lease_name, identity=config.pod_name, times=config.lease)

        async def lead() -> None:
            nonlocal leader
            leader = Controller(api, tasks, config)
            await leader.run()

        def ready() -> bool:
            return elector.is_answered() and (not elector.leading or (leader is not None and leader.synced))

        def scraped() -> bytes:
            figures = None if leader is None else leader.figures
            return metrics.exposition(leading=elector.leading, figures=figures)

        await stack.enter_async_context(
            health.serve(config.health_port, healthy=elector.is_alive, ready=ready, metrics=scraped)
        )
        await elector.run(lead, stop)


async def until_signal(config: Config) -> None:
    """SIGTERM and SIGINT set `stop`; run() ends by itself."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await run(config, stop)
    except WorkWouldNotStop:
        logger.critical("the leader's work would not stop; leaving")
        logging.shutdown()
        os._exit(1)  # an orderly end would wait for that very work


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="poiesis_tctl",
        description=__doc__,
        epilog=config_module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    configure_logging("INFO")
    try:
        config = Config.from_env(os.environ)
        configure_logging(config.log_level)
        asyncio.run(until_signal(config))
    except (ConfigError, kube.KubeError) as error:
        logger.error("cannot start: %s", error)  # noqa: TRY400 - the message says it all
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
