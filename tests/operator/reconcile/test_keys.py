"""Keys: never lost, never two where one is meant, rotated with overlap; whatever moment the operator is killed at."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import pytest

from loam_operator.adapters.api import Api
from loam_operator.adapters.gateway import GatewayAdmin
from loam_operator.adapters.kubernetes import KubernetesCluster
from loam_operator.apply.push import Pushes
from loam_operator.cluster import Ref
from loam_operator.reconcile import apikey
from loam_operator.reconcile.context import Context
from loam_operator.settings import Platform
from loam_shared.errors import ConflictError

from ..controlplane.harness import ControlPlane
from ._gateway import Gateway
from ._kube import Kube, ours, until

pytestmark = pytest.mark.kubernetes

NAMESPACE = "keys"


class Killed(BaseException):
    """The process ended here."""


class Operator:
    """One life of the operator, as far as ApiKeys go; it can be made to end at its n-th write."""

    def __init__(self, cluster: KubernetesCluster, gateway: GatewayAdmin) -> None:
        self._cluster, self._gateway = cluster, gateway
        self.now = datetime.now(UTC).replace(microsecond=0)

    async def reconcile(self, ref: Ref, *, writes: int | None = None, after: bool = True) -> None:
        """Reconcile until it is settled; die before or after the n-th write."""
        left = Countdown(writes, after)
        context = Context(
            Dying(self._cluster, left), Pushes(Dying(self._gateway, left), 600, lambda: 0), Platform(), lambda: self.now
        )
        for _ in range(10):
            try:
                outcome = await apikey.reconcile(context, ref)
            except ConflictError:
                await asyncio.sleep(0.1)
                continue
            if not outcome.retry:
                return
        raise AssertionError("it never settles")


class Countdown:
    def __init__(self, writes: int | None, after: bool) -> None:
        self.writes, self.after = writes, after


class Dying:
    """Passes everything on to the real thing, and ends the operator at the write that was asked for."""

    def __init__(self, real: object, left: Countdown) -> None:
        self._real, self._left = real, left

    def __getattr__(self, name: str):
        member = getattr(self._real, name)
        if not asyncio.iscoroutinefunction(member) or name == "kind_is_going":
            return member

        async def write(*arguments: object, **named: object) -> object:
            left = self._left
            if left.writes is not None:
                left.writes -= 1
            dies = left.writes == 0
            if dies and not left.after:
                raise Killed
            answer = await member(*arguments, **named)
            if dies:
                raise Killed
            return answer

        return write


@pytest.fixture(scope="module")
async def life(control_plane: ControlPlane, gateway: Gateway, admin: Kube, operator) -> Operator:
    """A tenant that the running operator made; then that one stops, and we are the operator."""
    manifest = {"apiVersion": "loam.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": NAMESPACE}, "spec": {}}
    await admin.apply(manifest)

    async def is_ready() -> bool:
        return await admin.condition(ours("Tenant", NAMESPACE)) == ("True", "Ready")

    await until(is_ready, "the tenant is ready")
    operator.stop()
    cluster = KubernetesCluster(await Api.connect(str(control_plane.admin)), "loam-system")
    admin_api = GatewayAdmin(gateway.admin, gateway.token_file)
    await cluster.start()
    yield Operator(cluster, admin_api)
    await cluster.stop()
    await admin_api.close()


async def new_key(kube: Kube, life: Operator, name: str, **spec: object) -> Ref:
    whole = {"scopes": ["ai:complete"], "secretName": f"{name}-key"} | spec
    metadata = {"name": name, "namespace": NAMESPACE}
    await kube.apply({"apiVersion": "loam.dev/v1alpha1", "kind": "ApiKey", "metadata": metadata, "spec": whole})
    live = await kube.get(ours("ApiKey", name, NAMESPACE))
    # What kopf would pass on.
    life._cluster.store.put(live)
    return Ref.of(live)


async def key_in(kube: Kube, ref: Ref) -> str | None:
    secret = await kube.get(Ref("v1", "Secret", f"{ref.name}-key", NAMESPACE))
    return base64.b64decode(secret["data"]["key"]).decode() if secret else None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", [1, 2, 3, 4])
async def test_killed_at_any_write_it_goes_on_with_the_same_key(
    admin: Kube, life: Operator, gateway: Gateway, write: int, after: bool
) -> None:
    ref = await new_key(admin, life, f"k{write}{'after' if after else 'before'}")
    with pytest.raises(Killed):
        await life.reconcile(ref, writes=write, after=after)
    at_death = await key_in(admin, ref)
    await life.reconcile(ref)
    key = await key_in(admin, ref)
    assert key is not None
    assert at_death in {None, key}
    assert gateway.answer(key) == 200
    assert await admin.condition(ref) == ("True", "Ready")


async def test_a_rotated_key_overlaps_with_the_old_one_and_then_replaces_it(
    admin: Kube, life: Operator, gateway: Gateway
) -> None:
    ref = await new_key(admin, life, "rotating", rotation={"everyDays": 1, "overlapHours": 1})
    await life.reconcile(ref)
    old = await key_in(admin, ref)
    started = life.now
    life.now = started + timedelta(days=1)
    await life.reconcile(ref)
    new = await key_in(admin, ref)
    assert new != old
    assert [gateway.answer(key) for key in (old, new)] == [200, 200]
    life.now = started + timedelta(days=1, hours=2)
    await life.reconcile(ref)
    assert await key_in(admin, ref) == new
    await until(lambda: answers(gateway, old, 401), "the old key is refused")
    assert gateway.answer(new) == 200
    status = (await admin.get(ref))["status"]
    assert "previousExpiresAt" not in status
    life.now = started


async def answers(gateway: Gateway, key: str, status: int) -> bool:
    return gateway.answer(key) == status


async def test_a_lost_secret_means_a_new_key_and_the_end_of_the_old_one(
    admin: Kube, life: Operator, gateway: Gateway
) -> None:
    ref = await new_key(admin, life, "lost")
    await life.reconcile(ref)
    old = await key_in(admin, ref)
    await admin.delete(Ref("v1", "Secret", "lost-key", NAMESPACE))

    async def is_seen() -> bool:
        return life._cluster.get(Ref("v1", "Secret", "lost-key", NAMESPACE)) is None

    await until(is_seen, "the loss is seen")
    await life.reconcile(ref)
    new = await key_in(admin, ref)
    assert new not in {None, old}
    assert gateway.answer(new) == 200
    await until(lambda: answers(gateway, old, 401), "the old key is refused")


async def test_a_second_reconcile_of_a_key_writes_nothing(admin: Kube, life: Operator) -> None:
    ref = await new_key(admin, life, "still")
    await life.reconcile(ref)
    before = [await admin.get(ref), await admin.get(Ref("v1", "Secret", "still-key", NAMESPACE))]
    await life.reconcile(ref)
    assert [await admin.get(ref), await admin.get(Ref("v1", "Secret", "still-key", NAMESPACE))] == before
