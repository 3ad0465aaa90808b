"""The Kubernetes control plane that all tests below share: one for the whole session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .controlplane.binaries import BinariesMissingError, locate, to_stderr
from .controlplane.harness import ControlPlane

_CRDS = Path(__file__).parents[2] / "crds"
_BINARIES = pytest.StashKey[object]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Get the programs before the clock of any test runs: a first build takes minutes."""
    if any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items):
        session.stash[_BINARIES] = _located()


def _located() -> object:
    try:
        return locate(to_stderr)
    except BinariesMissingError as error:
        to_stderr(f"THERE IS NONE: {error}")
        return error


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server with its controllers and Loam's CRDs, empty but for what Kubernetes itself makes."""
    binaries = request.session.stash[_BINARIES]
    if isinstance(binaries, BinariesMissingError):
        _do_without(f"no real Kubernetes API server to test against: {binaries}")
    plane = ControlPlane(tmp_path_factory.mktemp("controlplane"), binaries)
    try:
        plane.start([yaml.safe_load(path.read_text()) for path in sorted(_CRDS.glob("*.yaml"))])
        yield plane
    finally:
        plane.stop()


def _do_without(reason: str) -> None:
    """Skip with the reason; in CI fail, since there nobody looks."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
