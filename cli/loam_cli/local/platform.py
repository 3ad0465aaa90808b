"""The whole local platform: servers, gateway, operator and pods, started together and stopped together."""

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Literal, TextIO, cast

import aiohttp
import structlog

from loam_cli.errors import CommandError
from loam_cli.local.buckets import SourceBuckets
from loam_cli.local.cluster import USER, LocalCluster, normalised
from loam_cli.local.control import Control, serve_control
from loam_cli.local.data import DataFolder, PlatformSecrets, Ports
from loam_cli.local.kubelet import Kubelet
from loam_cli.local.manifests import without_namespace
from loam_cli.local.pods import Planner
from loam_cli.local.pool import Pool, is_pool
from loam_cli.local.process import Guard, Program, State, Supervised, last_words, run_to_end, said_since_start
from loam_cli.local.report import Report
from loam_cli.local.servers import HOST, Addresses, Servers, inherited_environment
from loam_cli.local.store import Store
from loam_operator.adapters.gateway import GatewayAdmin
from loam_operator.api.admission import InvalidManifestError
from loam_operator.api.v1alpha1 import API_VERSION
from loam_operator.cluster import Manifest, Ref
from loam_operator.engine import Engine
from loam_operator.settings import Platform as PlatformNames
from loam_operator.settings import Settings as OperatorSettings

_QUIET_SECONDS = 3.0
_SETTLE_SECONDS = 60.0
# Kinder than a cluster's default: who looks at a laptop's screen waits for what it shows.
_STATES_SECONDS = 1.0
# The reason with which the operator says that a kind comes with a later version.
NOT_SERVED = "NotServed"
_NO_SPACE = "no space left on device"


@dataclass(frozen=True)
class Options:
    """What to start: manifests that were read, where data lies, the public port (any free one when None)."""

    manifests: Sequence[Manifest]
    data: Path
    port: int | None = None
    bedrock: Literal["local", "aws"] = "local"


@dataclass
class LocalPlatform:
    """A platform that runs."""

    data: DataFolder
    addresses: Addresses
    cluster: LocalCluster
    engine: Engine
    kubelet: Kubelet
    servers: dict[str, Supervised]

    def programs(self) -> dict[str, Supervised]:
        """Every process that is being kept running, by name."""
        return self.servers | self.kubelet.processes

    async def apply(self, manifests: Sequence[Manifest]) -> list[str]:
        """Apply all manifests or, when any is bad, none. Raises CommandError."""
        check(manifests, self.cluster)
        done = []
        for manifest in manifests:
            before = self.cluster.get(Ref.of(manifest))
            after = await self.cluster.apply(manifest, manager=USER)
            did = "created" if before is None else "unchanged" if after is before else "configured"
            done.append(f"{Ref.of(manifest)} {did}")
        return done

    async def settled(self) -> list[Manifest]:
        """Wait until every object is ready, or nothing moves any more; the ones that are not ready."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        moved, seen = time.monotonic(), -1
        while time.monotonic() < deadline:
            unready = [held for held in self.cluster.all() if is_unready(held)]
            if self.cluster.version != seen or self.kubelet.is_starting or not self.engine.idle:
                moved, seen = time.monotonic(), self.cluster.version
            if not unready or time.monotonic() - moved > _QUIET_SECONDS:
                break
            await asyncio.sleep(0.05)
        return unready


def is_unready(held: Manifest) -> bool:
    """Whether an object of Loam's, of a kind that is served, does not (yet) say that it is ready as it now is."""
    if held["apiVersion"] != API_VERSION:
        return False
    condition = ready_condition(held)
    if condition.get("reason") == NOT_SERVED:
        return False
    current = held.get("status", {}).get("observedGeneration") == held["metadata"]["generation"]
    return not current or condition.get("status") != "True"


def ready_condition(held: Manifest) -> Manifest:
    """The Ready condition of an object, or an empty one."""
    conditions: list[Manifest] = held.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def check(manifests: Sequence[Manifest], cluster: LocalCluster) -> None:
    """Raise CommandError with every reason that an API server would have to refuse one of them."""
    problems = list(_problems(manifests, cluster))
    if problems:
        listed = problems[0] if len(problems) == 1 else "\n".join(["", *(f"- {problem}" for problem in problems)])
        raise CommandError(f"nothing was applied: {listed}")


def _problems(manifests: Sequence[Manifest], cluster: LocalCluster) -> Iterator[str]:
    for manifest in manifests:
        try:
            normalised(manifest, cluster.get(Ref.of(manifest)))
        except InvalidManifestError as error:
            yield str(error)
    existing = [namespace["metadata"]["name"] for namespace in cluster.list("v1", "Namespace")]
    yield from without_namespace(manifests, existing)


@asynccontextmanager
async def running(options: Options, report: Report) -> AsyncIterator[LocalPlatform]:
    """A platform with the manifests applied, for the time of the context. Raises CommandError when it cannot start."""
    data = DataFolder(options.data.resolve())
    data.prepare()
    async with AsyncExitStack() as stack:
        stack.enter_context(data.lock())
        ports = Ports(data, {} if options.port is None else {"public": options.port})
        addresses = Addresses.choose(ports)
        store = stack.enter_context(contextlib.closing(_store(data)))
        cluster = LocalCluster(store, lambda service, _: f"http://{HOST}:{ports.of(_listener(service))}")
        check(options.manifests, cluster)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        servers = Servers(data, PlatformSecrets.load(data), ports, addresses, http, options.bedrock)
        guard = await Guard.start(str(data.root))
        stack.push_async_callback(guard.close)
        starter = _Starter(servers, guard, report)
        stack.push_async_callback(starter.stop)
        await starter.start()
        kubelet = Kubelet(cluster, _planner(cluster, data, ports), guard, http, data.logs, report.process)
        names = _names(addresses)
        engine = await stack.enter_async_context(_operator(cluster, servers, names))
        buckets = SourceBuckets(cluster, servers)
        buckets.write_profile(data)
        pool = Pool(cluster, names)
        await stack.enter_async_context(in_background(pool.run(), kubelet.run(), engine.run(), buckets.run()))
        platform = LocalPlatform(data, addresses, cluster, engine, kubelet, starter.running)
        await stack.enter_async_context(_reachable(platform, servers))
        await platform.apply(options.manifests)
        yield platform


def _store(data: DataFolder) -> Store:
    """The cluster's objects. Raises CommandError when they are lost and the data is not, for it belongs to them."""
    if data.postgres.exists() and not (data.objects.exists() and data.objects.stat().st_size):
        raise CommandError(
            f"{data.objects}, which holds this platform's objects and API keys, is missing or empty; "
            "put it back from a backup, or begin anew in another folder with --data"
        )
    return Store(data.objects)


@asynccontextmanager
async def in_background(*parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these for the time of the context. What fails, in one of them or in the context, ends all and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


class _Starter:
    """Starts the platform's servers, as many at once as can be, and stops them in two waves: gateway, then the rest."""

    def __init__(self, servers: Servers, guard: Guard, report: Report) -> None:
        self._servers = servers
        self._guard = guard
        self._report = report
        self._up = False
        self.running: dict[str, Supervised] = {}

    async def start(self) -> None:
        """Start everything. Raises CommandError with the reason when one does not come up."""
        servers = self._servers
        stand_in = (servers.bedrock_local,) if servers.bedrock == "local" else ()
        independent = (servers.valkey, servers.storage, *stand_in)
        try:
            async with asyncio.TaskGroup() as group:
                for program in independent:
                    group.create_task(self._serve(program()))
                group.create_task(self._database_and_gateway())
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        self._up = True

    async def stop(self) -> None:
        """Stop everything that was started."""
        gateway = self.running.pop("gateway", None)
        if gateway is not None:
            await gateway.stop()
        await asyncio.gather(*(server.stop() for server in self.running.values()))

    async def _database_and_gateway(self) -> None:
        servers = self._servers
        if (initdb := servers.make_database()) is not None:
            with self._report.step("new database"):
                await self._run(initdb)
                servers.keep_database()
        await self._serve(servers.postgres())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._migrate())
            # It waits for the schema by itself, and has some starting to do meanwhile.
            group.create_task(self._serve(servers.gateway()))

    async def _migrate(self) -> None:
        with self._report.step("database schema"):
            await self._run(self._servers.migration())

    async def _run(self, program: Program) -> None:
        log = self._log(program)
        if await run_to_end(program, self._guard, log) != 0:
            raise self._failure(program.name, log)

    async def _serve(self, program: Program) -> None:
        log = self._log(program)
        server = Supervised(program, self._guard, log, self._changed)
        self.running[program.name] = server
        with self._report.step(program.name):
            server.start()
            if await server.settled() is not State.READY:
                raise self._failure(program.name, log)

    def _changed(self, server: Supervised) -> None:
        # Until all are up, a crash ends the start with its reason, which says more than this line would.
        if self._up:
            self._report.process(server.program.name, server)

    def _log(self, program: Program) -> Path:
        return self._servers.data.logs / f"{program.name}.log"

    def _failure(self, name: str, log: Path) -> CommandError:
        if _NO_SPACE in said_since_start(log).lower():
            folder = self._servers.data.root
            return CommandError(f"the disk of {folder} is full: {name} could not write; free some space")
        return CommandError(f"{name} did not start: {last_words(log)} (log: {log})")


class LossyLog:
    """A log that loses lines while the disk is full: otherwise the line that says so would end the platform."""

    def __init__(self, file: RawIOBase) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Append a line."""
        with contextlib.suppress(OSError):
            self._file.write(text.encode())

    def flush(self) -> None:
        """Nothing is held back."""


def _names(addresses: Addresses) -> PlatformNames:
    return PlatformNames(
        gateway_internal_url=addresses.url("internal"),
        gateway_internal_port=addresses.internal,
        gateway_public_url=addresses.url("public"),
        retrieval_pool_url=addresses.url("pool"),
    )


@asynccontextmanager
async def _operator(cluster: LocalCluster, servers: Servers, names: PlatformNames) -> AsyncIterator[Engine]:
    """The operator itself, on the local cluster instead of Kubernetes; its log goes to a file like the others'."""
    settings = OperatorSettings(
        platform=names,
        admin_url=servers.addresses.url("admin"),
        admin_token_file=servers.secrets.admin_token_file,
        states_seconds=_STATES_SECONDS,
    )
    with (servers.data.logs / "operator.log").open("ab", buffering=0) as file:
        log = cast("TextIO", LossyLog(file))
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.WriteLoggerFactory(log),
        )
        gateway = GatewayAdmin(settings.admin_url, settings.admin_token_file)
        try:
            yield Engine(cluster, gateway, settings)
        finally:
            await gateway.close()


def _first(failures: BaseException) -> BaseException:
    """What failed first and so ended the others; as itself, so that whoever catches a CommandError gets it."""
    return _first(failures.exceptions[0]) if isinstance(failures, BaseExceptionGroup) else failures


def _planner(cluster: LocalCluster, data: DataFolder, ports: Ports) -> Planner:
    names = PlatformNames()
    return Planner(
        read=cluster.get,
        modules={names.image_retrieval: "loam_retrieval", names.image_ingestion: "loam_ingestion"},
        pods=data.pods,
        port_of=lambda deployment: ports.of(_listener(deployment)),
        base_env=inherited_environment(),
    )


def _listener(ref: Ref) -> str:
    """The name under which a port is remembered; a Deployment and its Service bear the same name, so share it."""
    if is_pool(ref, PlatformNames()):
        return "pool"
    return f"{ref.namespace}/{ref.name}"


@asynccontextmanager
async def _reachable(platform: LocalPlatform, servers: Servers) -> AsyncIterator[None]:
    """Let other commands find the platform, through a file that only we can read."""
    token, port = secrets.token_urlsafe(32), servers.ports.of("control")
    known = {
        "pid": os.getpid(),
        "url": platform.addresses.url("public"),
        "control": f"http://{HOST}:{port}",
        "token": token,
        "database_url": servers.database_url,
    }
    async with serve_control(Control(platform.cluster, platform.apply, platform.programs, token), port):
        platform.data.write_private(platform.data.running, json.dumps(known))
        try:
            yield
        finally:
            platform.data.running.unlink(missing_ok=True)
