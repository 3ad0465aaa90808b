"""kopf's part: it watches our own kinds and calls back. A handler does nothing but pass the object on."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import kopf

from loam_operator.adapters.api import Access
from loam_operator.api.v1alpha1 import GROUP, VERSION
from loam_operator.cluster import Manifest
from loam_operator.kinds import OURS

Sink = Callable[[Manifest], None]
Login = Callable[[], Awaitable[Access]]


def registry(seen: Sink, gone: Sink, access: Login) -> kopf.OperatorRegistry:
    """Handlers that pass each event of our kinds to `seen`, or to `gone` when the object is no more."""
    handlers = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        how = await access()
        return kopf.ConnectionInfo(
            server=how.server,
            ca_path=how.ca_file,
            insecure=not how.verify,
            scheme=how.scheme,
            token=how.token,
            certificate_path=how.certificate_file,
            private_key_path=how.key_file,
        )

    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        manifest = cast("Manifest", event["object"])
        (gone if event["type"] == "DELETED" else seen)(manifest)

    kopf.on.login(registry=handlers)(login)
    for kind in OURS:
        kopf.on.event(GROUP, VERSION, kind.plural, registry=handlers)(on_event)
    return handlers


def settings() -> kopf.OperatorSettings:
    """Kopf as a watcher only: it posts, scans and patches nothing, and lets no dead watch linger."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.peering.standalone = True
    chosen.watching.server_timeout = 240
    chosen.watching.client_timeout = 300
    chosen.watching.inactivity_timeout = 90
    chosen.queueing.idle_timeout = 1.0
    return chosen
