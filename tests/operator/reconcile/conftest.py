"""The operator as it runs in a cluster: its own process with exactly its own rights, beside a real gateway."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from loam_operator import rbac
from loam_operator.adapters.api import Api
from loam_operator.settings import Platform

from ..controlplane.harness import ControlPlane
from ._gateway import Gateway, running
from ._kube import Kube

SAMPLES = Path(__file__).parents[3] / "samples"
OPERATOR = "system:serviceaccount:loam-system:loam-operator"


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A real gateway."""
    with running(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="session")
async def admin(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    """A cluster administrator, once the operator's rights are there."""
    api = await Api.connect(str(control_plane.admin))
    kube = Kube(api)
    await api.request("POST", "/api/v1/namespaces", body={"metadata": {"name": Platform().namespace}})
    for manifest in rbac.manifests(Platform()):
        path = _rbac_path(manifest)
        await api.request("POST", path, body=manifest)
    yield kube
    await api.close()


def _rbac_path(manifest: dict) -> str:
    namespace = manifest["metadata"].get("namespace")
    root = "/api/v1" if manifest["apiVersion"] == "v1" else f"/apis/{manifest['apiVersion']}"
    return f"{root}{f'/namespaces/{namespace}' if namespace else ''}/{manifest['kind'].lower()}s"


@pytest_asyncio.fixture
async def as_user(control_plane: ControlPlane) -> AsyncIterator[Callable]:
    """Clients of other users: ``await as_user("ann", "acme-admins")``."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(user: str, *groups: str) -> Kube:
            api = await Api.connect(str(control_plane.kubeconfig(user, list(groups))))
            stack.push_async_callback(api.close)
            return Kube(api)

        yield connect


class Operator:
    """The operator's process, which may be stopped, killed and started again."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._process = subprocess.Popen([sys.executable, "-m", "loam_operator"], env=self._environment)

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a warning."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(10)


@pytest.fixture(scope="session")
def stopped_operator(admin: Kube, control_plane: ControlPlane, gateway: Gateway) -> Iterator[Operator]:
    """The operator with its own identity, not started yet."""
    groups = ["system:serviceaccounts", "system:serviceaccounts:loam-system"]
    operator = Operator(
        {
            "PATH": os.environ["PATH"],
            "LOAM_KUBECONFIG": str(control_plane.kubeconfig(OPERATOR, groups)),
            "LOAM_ADMIN_URL": gateway.admin,
            "LOAM_ADMIN_TOKEN_FILE": str(gateway.token_file),
            "LOAM_STATES_SECONDS": "1",
            "LOAM_PLATFORM__STORAGE_CIDRS": '["10.0.0.0/24"]',
        }
    )
    yield operator
    operator.kill()


@pytest.fixture(scope="module")
def operator(stopped_operator: Operator) -> Iterator[Operator]:
    """The running operator."""
    stopped_operator.start()
    yield stopped_operator
    assert stopped_operator.stop() == 0


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder with the sample manifests."""
    return SAMPLES


@pytest.fixture
def document() -> Callable[[str], dict]:
    """Reads a manifest from text."""
    return yaml.safe_load
