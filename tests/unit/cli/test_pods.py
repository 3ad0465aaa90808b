"""A Deployment's pod as a process of this machine."""

import base64
import sys
from pathlib import Path
from typing import Any

import pytest

from loam_cli.local.pods import NotRunnableLocallyError, Planner, Volume, WaitingError
from loam_operator.cluster import Manifest, Ref


def held(kind: str, name: str, **body: Any) -> tuple[Ref, Manifest]:
    manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "acme"}} | body
    return Ref.of(manifest), manifest


OBJECTS = dict(
    [
        held("ConfigMap", "spec", data={"pipeline.json": "{}"}),
        held("ConfigMap", "faq", data={"a.md": "A"}, binaryData={"b.pdf": base64.b64encode(b"%PDF").decode()}),
        held("Secret", "storage", data={"AWS_ACCESS_KEY_ID": base64.b64encode(b"AKIA").decode()}),
        held("Secret", "key", data={"key": base64.b64encode(b"loam_x").decode()}),
    ]
)


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    return Planner(OBJECTS.get, {"ours:1": "loam_retrieval"}, tmp_path, lambda _: 23456, {"PATH": "/bin"})


def deployment(*volumes: Manifest, **container: Any) -> Manifest:
    container = {"name": "main", "image": "ours:1"} | container
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "acme"},
        "spec": {"template": {"spec": {"containers": [container], "volumes": list(volumes)}}},
    }


def test_variables_come_from_values_secrets_and_whole_secrets(planner: Planner) -> None:
    key = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "key"}}}
    where = {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    plan = planner.plan(
        deployment(env=[{"name": "PLAIN", "value": "1"}, key, where], envFrom=[{"secretRef": {"name": "storage"}}])
    )
    wanted = {"PATH": "/bin", "PLAIN": "1", "KEY": "loam_x", "WHERE": "acme", "AWS_ACCESS_KEY_ID": "AKIA"}
    assert plan.env == wanted | {"LOAM_HOST": "127.0.0.1"}


def test_a_port_becomes_one_of_this_machine_on_loopback(planner: Planner) -> None:
    env = [{"name": "LOAM_HOST", "value": "0.0.0.0"}, {"name": "LOAM_PORT", "value": "8080"}]
    probe = {"httpGet": {"path": "/healthz", "port": "http"}}
    plan = planner.plan(deployment(env=env, ports=[{"containerPort": 8080}], readinessProbe=probe))
    assert (plan.env["LOAM_HOST"], plan.env["LOAM_PORT"]) == ("127.0.0.1", "23456")
    assert (plan.port, plan.probe_path) == (23456, "/healthz")


def test_mount_paths_become_folders_with_the_files(planner: Planner, tmp_path: Path) -> None:
    plan = planner.plan(
        deployment(
            {"name": "config", "configMap": {"name": "spec"}},
            {"name": "tmp", "emptyDir": {}},
            volumeMounts=[
                {"name": "config", "mountPath": "/etc/loam/config"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
            env=[
                {"name": "FILE", "value": "/etc/loam/config/pipeline.json"},
                {"name": "OTHER", "value": "/etc/loam/configuration"},
            ],
        )
    )
    folder = tmp_path / "acme" / "web" / "config"
    assert plan.env["FILE"] == f"{folder}/pipeline.json"
    assert plan.env["OTHER"] == "/etc/loam/configuration"
    for volume in plan.volumes:
        volume.write()
    assert (folder / "pipeline.json").read_text() == "{}"
    assert (folder / "pipeline.json").stat().st_mode & 0o077 == 0


def test_projected_sources_become_one_folder_each(planner: Planner, tmp_path: Path) -> None:
    items = [{"key": key, "path": f"faq/{key}"} for key in ("a.md", "b.pdf")]
    volume = {"name": "sources", "projected": {"sources": [{"configMap": {"name": "faq", "items": items}}]}}
    (planned,) = planner.plan(deployment(volume)).volumes
    planned.write()
    folder = tmp_path / "acme" / "web" / "sources" / "faq"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"a.md": b"A", "b.pdf": b"%PDF"}


def test_a_file_that_left_its_config_map_leaves_the_folder(tmp_path: Path) -> None:
    Volume(tmp_path / "v", {"faq/a.md": b"A", "faq/b.md": b"B"}).write()
    Volume(tmp_path / "v", {"faq/b.md": b"B2"}).write()
    assert {file.name: file.read_bytes() for file in (tmp_path / "v" / "faq").iterdir()} == {"b.md": b"B2"}


def test_what_a_pod_wrote_to_an_empty_dir_stays(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "work").write_text("x")
    Volume(tmp_path / "v", None).write()
    assert (tmp_path / "v" / "work").exists()


def test_our_images_run_with_our_own_python(planner: Planner) -> None:
    assert planner.plan(deployment()).command == (sys.executable, "-m", "loam_retrieval")
    command = planner.plan(deployment(command=["python", "-m", "loam_ingestion"], args=["--fast"])).command
    assert command == (sys.executable, "-m", "loam_ingestion", "--fast")


def test_a_foreign_image_needs_a_container_engine(planner: Planner) -> None:
    with pytest.raises(NotRunnableLocallyError, match="nginx:1 is no image of Loam's"):
        planner.plan(deployment(image="nginx:1"))


def test_a_missing_secret_is_waited_for_by_name_unless_it_is_optional(planner: Planner) -> None:
    with pytest.raises(WaitingError, match="Secret absent is missing"):
        planner.plan(deployment(envFrom=[{"secretRef": {"name": "absent"}}]))
    planner.plan(deployment(envFrom=[{"secretRef": {"name": "absent", "optional": True}}]))


def test_a_changed_template_is_another_process_and_a_changed_file_is_not(planner: Planner) -> None:
    volume = {"name": "config", "configMap": {"name": "spec"}}
    plan = planner.plan(deployment(volume))
    assert plan.same_process(planner.plan(deployment(volume)))
    rolled = deployment(volume)
    rolled["spec"]["template"]["metadata"] = {"annotations": {"loam.dev/inputs": "new"}}
    assert not plan.same_process(planner.plan(rolled))
