"""The door through which other commands reach a running `loam up`: loopback only, with a token from its folder."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from aiohttp import web

from loam_cli.errors import CommandError
from loam_cli.local.cluster import LocalCluster
from loam_cli.local.process import State, Supervised, last_words
from loam_cli.local.servers import HOST
from loam_operator.cluster import Manifest, Ref

Apply = Callable[[Sequence[Manifest]], Awaitable[list[str]]]


class Control:
    """Serves the cluster's objects and events, and takes manifests to apply or delete."""

    def __init__(
        self, cluster: LocalCluster, apply: Apply, programs: Callable[[], dict[str, Supervised]], token: str
    ) -> None:
        self._cluster = cluster
        self._apply = apply
        self._programs_now = programs
        self._token = token

    def app(self) -> web.Application:
        """The routes: GET /objects, /events and /programs; POST /apply and /delete with a JSON list of manifests."""
        app = web.Application(middlewares=[self._authorised], client_max_size=64 * 2**20)
        app.router.add_get("/objects", self._objects)
        app.router.add_get("/events", self._events)
        app.router.add_get("/programs", self._programs)
        app.router.add_post("/apply", self._applied)
        app.router.add_post("/delete", self._deleted)
        return app

    @web.middleware
    async def _authorised(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return web.json_response({"error": "the token is not that of this platform"}, status=401)
        try:
            return await handler(request)
        except CommandError as error:
            return web.json_response({"error": str(error)}, status=422)

    async def _objects(self, _: web.Request) -> web.Response:
        return web.json_response(list(self._cluster.all()))

    async def _events(self, _: web.Request) -> web.Response:
        return web.json_response([{**asdict(event), "about": str(event.about)} for event in self._cluster.events])

    async def _programs(self, _: web.Request) -> web.Response:
        return web.json_response([_described(name, process) for name, process in self._programs_now().items()])

    async def _applied(self, request: web.Request) -> web.Response:
        return web.json_response(await self._apply(await request.json()))

    async def _deleted(self, request: web.Request) -> web.Response:
        refs = [Ref.of(manifest) for manifest in await request.json()]
        live = [(ref, held) for ref in refs if (held := self._cluster.get(ref)) is not None]
        for ref, held in live:
            await self._cluster.delete(ref, held["metadata"]["uid"])
        return web.json_response([f"{ref} deleted" for ref, _ in live])


def _described(name: str, process: Supervised) -> dict[str, str | int]:
    words = last_words(process.log) if process.state is State.CRASHED else ""
    return {"name": name, "state": process.state, "restarts": process.restarts, "lastWords": words}


@asynccontextmanager
async def serve_control(control: Control, port: int) -> AsyncIterator[None]:
    """Serve on a loopback port for the time of the context."""
    runner = web.AppRunner(control.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield
    finally:
        await runner.cleanup()
