"""The control plane that the tests run against is a real one, knows who is who, and never outlives its tests."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest
import yaml

from .harness import ControlPlane

pytestmark = pytest.mark.kubernetes

_STARTER = """
import pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from tests.operator.controlplane.binaries import locate, to_stderr
from tests.operator.controlplane.harness import ControlPlane
ControlPlane(pathlib.Path(sys.argv[2]), locate(to_stderr)).start()
print("ready", flush=True)
time.sleep(600)
"""


@contextlib.asynccontextmanager
async def _as(plane: ControlPlane, user: str, *groups: str) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=plane.tls(user, groups))
    async with aiohttp.ClientSession(plane.url, connector=connector, raise_for_status=False) as session:
        yield session


async def test_a_client_certificate_says_who_somebody_is_and_rbac_what_they_may(control_plane: ControlPlane) -> None:
    path = "/api/v1/namespaces/kube-system/secrets"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    async with _as(control_plane, "ana", "acme-admins") as session:
        async with session.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json=review) as answer:
            info = (await answer.json())["status"]["userInfo"]
        async with session.get(path) as answer:
            assert answer.status == 403
    assert (info["username"], info["groups"]) == ("ana", ["acme-admins", "system:authenticated"])
    async with _as(control_plane, "admin", "system:masters") as session, session.get(path) as answer:
        assert answer.status == 200


async def test_a_kubeconfig_can_be_used_by_any_client(control_plane: ControlPlane) -> None:
    config = yaml.safe_load(control_plane.admin.read_text())
    assert config["clusters"][0]["cluster"]["server"] == control_plane.url
    assert control_plane.admin.stat().st_mode & 0o077 == 0


async def test_the_controllers_furnish_a_new_namespace(control_plane: ControlPlane) -> None:
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "furnished"}}
    async with _as(control_plane, "admin", "system:masters") as session:
        async with session.post("/api/v1/namespaces", json=manifest) as answer:
            assert answer.status == 201
        await _until_status(session, "/api/v1/namespaces/furnished/serviceaccounts/default", 200)
        await _until_status(session, "/api/v1/namespaces/furnished/configmaps/kube-root-ca.crt", 200)


async def test_what_one_of_our_objects_owns_goes_with_it(control_plane: ControlPlane) -> None:
    tenant = {"apiVersion": "loam.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "owner"}, "spec": {}}
    async with _as(control_plane, "admin", "system:masters") as session:
        async with session.post("/apis/loam.dev/v1alpha1/tenants", json=tenant) as answer:
            uid = (await answer.json())["metadata"]["uid"]
        owner = {"apiVersion": "loam.dev/v1alpha1", "kind": "Tenant", "name": "owner", "uid": uid}
        owned = {"name": "owned", "ownerReferences": [owner]}
        async with session.post("/api/v1/namespaces/default/configmaps", json={"metadata": owned}) as answer:
            assert answer.status == 201
        async with session.delete("/apis/loam.dev/v1alpha1/tenants/owner") as answer:
            assert answer.status == 200
        await _until_status(session, "/api/v1/namespaces/default/configmaps/owned", 404)


async def _until_status(session: aiohttp.ClientSession, path: str, wanted: int) -> None:
    for _ in range(600):
        async with session.get(path) as answer:
            if answer.status == wanted:
                return
        await asyncio.sleep(0.05)
    pytest.fail(f"{path} did not answer {wanted} in 30 s")


def test_no_process_is_left_when_the_tests_are_killed(control_plane: ControlPlane, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    starter = subprocess.Popen([sys.executable, "-c", _STARTER, str(root), str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert starter.stdout is not None
        with starter.stdout:
            assert starter.stdout.readline() == b"ready\n"
        started = [process for process in psutil.process_iter() if str(tmp_path) in " ".join(_command(process))]
        names = {Path(_command(process)[0]).name for process in started}
        assert names >= {"etcd", "kube-apiserver", "kube-controller-manager"}
    finally:
        starter.kill()
        starter.wait()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]
