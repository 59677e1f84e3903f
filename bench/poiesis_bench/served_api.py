"""Serve the api on a free port of this machine with the database of a DSN, and print its URL.

For `poiesis_bench.requests`. Nothing is submitted to Kubernetes: the submitter does not run. The user is an
administrator, so lists show the tasks of all owners.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from poiesis_api.app import make_app
from poiesis_api.config import Database, Document, UserLimits
from poiesis_api.handlers import Services
from poiesis_api.identity.authenticators import NoAuthenticator
from poiesis_api.limits import RequestRates
from poiesis_api.postgres import open_pool
from poiesis_api.submitter import Submitter

DATABASE = Database(timeout_seconds=120)  # on a busy machine a measurement is slow, but does not fail
CONFIG = Path(__file__).resolve().parents[2] / "services/api/config.example.json"


async def serve(dsn: str) -> None:
    """Serve until the process ends."""
    config = Document.load(CONFIG).model_copy(update={"user_limits": UserLimits()})
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(dsn, DATABASE))
        services = Services(
            pool=pool,
            submitter=Submitter(pool, cast("Any", None), config),
            config=config,
            authenticator=NoAuthenticator(),
            rates=RequestRates(None),
        )
        runner = web.AppRunner(make_app(services), access_log=None, handle_signals=False)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        print(f"http://{host}:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
