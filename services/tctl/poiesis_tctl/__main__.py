"""Task Controller: record the outcome of a task if its own Pod could not, and end Pods that are stuck.

Several replicas may run; one leads, by a Lease. All settings are environment variables.

Exit 0: stopped on request, and the Lease is released. Exit 1: the leader's task did not stop.
Exit 2: invalid configuration.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from poiesis_kube.errors import Unreachable
from poiesis_models.logs import configure_logging
from poiesis_server import health, program
from poiesis_server.program import stop_event
from poiesis_tctl import kube, metrics, tasks_db
from poiesis_tctl.archive import Archive, UnusableArchive
from poiesis_tctl.config import Config
from poiesis_tctl.leader import Leader
from poiesis_tctl.lease import Elector, LeaderTaskStuck

logger = logging.getLogger("poiesis_tctl")


async def run(config: Config, stop: asyncio.Event) -> None:
    """Run until `stop`.

    Raise Unreachable if there are no credentials for Kubernetes, UnusableArchive, or LeaderTaskStuck.
    """
    leader: Leader | None = None
    url = config.retention.archive
    archive = None if url is None else Archive.from_env(url, os.environ)

    async with AsyncExitStack() as stack:
        namespace_of = await stack.enter_async_context(kube.connect(config.kubeconfig))
        kubes = [namespace_of(name) for name in config.watched_namespaces]
        dsn = config.dsn.get_secret_value()
        tasks = await stack.enter_async_context(
            tasks_db.connect(dsn, connections=config.workers + 2, home=config.namespace)
        )
        home = namespace_of(config.namespace)
        elector = Elector(home, name=config.lease_name, identity=config.pod_name, times=config.lease)

        async def lead() -> None:
            nonlocal leader
            leader = Leader(kubes, tasks, config, archive=archive)
            await leader.run()

        def synced() -> Mapping[str, bool]:
            return {} if leader is None else leader.synced

        def ready() -> bool:
            # One namespace suffices: others may be forbidden or deleted, which a metric shows.
            return elector.is_connected() and (not elector.leading or any(synced().values()))

        def scraped() -> bytes:
            if leader is None or not elector.leading:
                return metrics.exposition(leading=elector.leading)
            return metrics.exposition(
                leading=True,
                figures=leader.figures,
                totals=leader.totals,
                deletions=leader.deletions,
                synced=leader.synced,
                watches=leader.watches,
            )

        await stack.enter_async_context(
            health.serve(config.health_port, healthy=elector.is_alive, ready=ready, metrics=scraped)
        )
        await elector.run(lead, stop)


async def until_signal(config: Config) -> None:
    """Run until SIGTERM or SIGINT."""
    configure_logging(config.log_level)
    try:
        await run(config, stop_event())
    except LeaderTaskStuck:
        logger.critical("leader tasks did not stop in time; exiting")
        logging.shutdown()
        os._exit(1)  # a regular exit would wait for these tasks


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    configure_logging()
    return program.run(
        Config,
        until_signal,
        name="poiesis_tctl",
        about=__doc__,
        unusable=(Unreachable, UnusableArchive),
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
