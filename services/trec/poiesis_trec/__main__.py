"""Task Recorder: a native sidecar that reports the containers of its Pod.

Exit 0: SIGTERM, after all reports. Exit 1: a defect; the kubelet restarts the recorder, and nothing is lost,
because the state is in Postgres and in files. Exit 2: invalid configuration.
"""

import signal
import sys

_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def main() -> int:
    """Return the exit code."""
    # PID 1 ignores a SIGTERM without a handler, so the signal is blocked until there is one.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    import asyncio
    import logging
    import os
    from collections.abc import Awaitable, Callable

    from poiesis_models.logs import configure_logging
    from poiesis_trec.config import Config, ConfigError
    from poiesis_trec.recorder import run

    async def until_signal(work: Callable[[Config, asyncio.Event], Awaitable[None]], config: Config) -> None:
        stop = asyncio.Event()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        await work(config, stop)

    configure_logging()
    logger = logging.getLogger("poiesis_trec")
    try:
        config = Config.from_env(os.environ)
    except ConfigError as error:
        logger.error("cannot start: %s", error)  # noqa: TRY400 (no stack: the message is complete)
        return 2
    configure_logging(task=str(config.task_id))
    if config.install and (code := os.spawnv(os.P_WAIT, config.install[0], config.install)) != 0:  # noqa: S606
        logger.error(
            "%s ended with %d", " ".join(config.install[:2]), code
        )  # the postStart hook fails, too, and decides
    logger.info("recording task", extra={"pod": config.pod.name})

    asyncio.run(until_signal(run, config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
