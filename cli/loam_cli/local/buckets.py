"""Source buckets of the local platform: made as Tenants list them, with a profile by which AWS's tools fill them."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import structlog

from loam_cli.local.cluster import LocalCluster
from loam_cli.local.data import DataFolder
from loam_cli.local.servers import Servers
from loam_operator.api.v1alpha1 import API_VERSION
from loam_operator.cluster import Manifest

PROFILE = "loam"
_AGAIN_SECONDS = 2.0
_log = structlog.get_logger()


class SourceBuckets:
    """Makes every bucket that a Tenant lists, and never deletes one: what lies in it is the user's."""

    def __init__(self, cluster: LocalCluster, servers: Servers) -> None:
        self._cluster = cluster
        self._login = servers.storage_administrator()
        self._endpoint = servers.addresses.url("storage")
        self._made: set[str] = set()
        self._wake = asyncio.Event()

    def write_profile(self, data: DataFolder) -> None:
        """Let AWS's tools find the platform's S3, through a file that only we can read."""
        lines = {
            "aws_access_key_id": self._login["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": self._login["AWS_SECRET_ACCESS_KEY"],
            "region": self._login["AWS_REGION"],
            "endpoint_url": self._endpoint,
        }
        text = "\n".join([f"[profile {PROFILE}]", *(f"{name} = {value}" for name, value in lines.items()), ""])
        data.write_private(data.aws_config, text)

    async def run(self) -> None:
        """Make what is listed, now and whenever a Tenant changes, until cancelled."""
        self._cluster.subscribe(self._notice)
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted = set(source_buckets(self._cluster)) - self._made
            if wanted and not await self._make(wanted):
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._wake.set)

    def _notice(self, changed: Manifest) -> None:
        if changed["kind"] == "Tenant":
            self._wake.set()

    async def _make(self, wanted: set[str]) -> bool:
        """Whether all are there now."""
        # A remote platform's users have no AWS libraries, and whoever lists no bucket need not wait for them.
        from aiobotocore.session import get_session  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        login = {name.lower(): self._login[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        where = {"endpoint_url": self._endpoint, "region_name": self._login["AWS_REGION"]}
        try:
            async with get_session().create_client("s3", **login, **where) as client:
                there = {bucket["Name"] for bucket in (await client.list_buckets())["Buckets"]}
                for name in wanted - there:
                    await client.create_bucket(Bucket=name)
                    _log.info("made a source bucket", bucket=name)
        except (BotoCoreError, ClientError) as error:
            _log.warning("could not make source buckets", reason=str(error), again_in=_AGAIN_SECONDS)
            return False
        self._made |= wanted
        return True


def source_buckets(cluster: LocalCluster) -> list[str]:
    """The buckets that Tenants list, each once."""
    return sorted(set(_listed(cluster.list(API_VERSION, "Tenant"))))


def _listed(tenants: Iterable[Manifest]) -> Iterable[str]:
    for tenant in tenants:
        yield from tenant["spec"].get("storage", {}).get("sourceBuckets", ())


def copy_command(aws_config: Path, bucket: str) -> str:
    """How a user copies a folder into a bucket."""
    return f"AWS_CONFIG_FILE={aws_config} aws --profile {PROFILE} s3 cp --recursive FOLDER s3://{bucket}/"
