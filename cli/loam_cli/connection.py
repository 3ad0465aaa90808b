"""Which gateway, key and pipeline a command means: what it was told, else the local platform's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from loam_cli.adapters.control import RunningPlatform, api_keys, of_kind
from loam_cli.adapters.gateway import Gateway
from loam_cli.errors import CommandError

DEFAULT_DATA = Path(".loam")

Url = Annotated[str | None, typer.Option("--url", envvar="LOAM_URL", help="Base URL of the gateway.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="LOAM_API_KEY", help="API key, or name of one of the local platform's."),
]
Data = Annotated[Path, typer.Option("--data", envvar="LOAM_DATA", help="Data folder of the local platform.")]
Pipeline = Annotated[
    str | None, typer.Option("--pipeline", "-p", envvar="LOAM_PIPELINE", help="Name of the RagPipeline.")
]
PipelineName = Annotated[
    str | None, typer.Argument(metavar="[PIPELINE]", envvar="LOAM_PIPELINE", help="Name of the RagPipeline.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class Connection:
    """What commands that call the gateway were told. Without `url`, the platform of the data folder is meant."""

    url: str | None
    api_key: str | None
    data: Path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Gateway]:
        """A client. Raises CommandError when there is nothing to connect to."""
        url, key = self.url, self.api_key
        if url is None or key is None:
            platform = self.local()
            url = url or platform.url
            keys = api_keys(await platform.objects())
            key = keys.get(key, key) if key else only(keys, "API key", "--api-key")
        async with Gateway.open(url, key) as gateway:
            yield gateway

    async def pipeline(self, named: str | None, option: str = "--pipeline") -> str:
        """The pipeline that was named, with `option`, or the only one there is."""
        if named is not None:
            return named
        if self.url is not None:
            raise CommandError(f"say which pipeline with {option}")
        pipelines = of_kind(await self.local().objects(), "RagPipeline")
        return only({p["metadata"]["name"]: p["metadata"]["name"] for p in pipelines}, "RagPipeline", option)

    def local(self) -> RunningPlatform:
        """The local platform. Raises CommandError when none runs."""
        platform = RunningPlatform.find(self.data)
        if platform is None:
            raise CommandError(
                f"no local platform runs on {self.data}; start one with `loam up -f samples/acme/`, "
                "or name a gateway with --url and --api-key"
            )
        return platform


def only(choices: dict[str, str], what: str, option: str) -> str:
    """The one choice there is. Raises CommandError that lists them when there are several, or none."""
    if len(choices) == 1:
        return next(iter(choices.values()))
    if not choices:
        raise CommandError(f"there is no {what} yet; give one with {option}")
    raise CommandError(f"there are several of {what}: {', '.join(choices)}; choose with {option}")
