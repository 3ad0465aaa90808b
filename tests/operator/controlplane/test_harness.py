"""The control plane of the tests itself."""

import pytest

from .harness import ControlPlane

pytestmark = pytest.mark.kubernetes


def test_starts(control_plane: ControlPlane) -> None:
    print(control_plane.url)
