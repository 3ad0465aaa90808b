"""Serving one application on one port until SIGTERM or SIGINT, as a pod's services do."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

_DRAIN_SECONDS = 5
# Uvicorn closes connections that are idle for 5 seconds; a client that keeps them shorter never writes to a closed one.
KEPT_ALIVE_SECONDS = 4.0


class _Server(uvicorn.Server):
    """Signals are the process's business: uvicorn would raise them again, before anything else is put in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: FastAPI, host: str, port: int, *, beside: asyncio.Task[None] | None = None) -> None:
    """Serve until a signal comes or `beside` ends; then drain, cancel `beside` and raise what it failed with."""
    server = _Server(_config(app, host, port))

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    if beside is not None:
        beside.add_done_callback(stop)
    try:
        await server.serve()
    finally:
        if beside is not None:
            beside.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beside


def _config(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
