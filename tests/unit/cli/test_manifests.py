"""Manifests are read from files and folders, and checked before any of them counts."""

from pathlib import Path

import pytest

from loam_cli.errors import CommandError
from loam_cli.local.manifests import read_manifests
from loam_cli.local.rendering import rendered

ROOT = Path(__file__).parents[3]


def test_a_folder_is_read_in_the_order_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "2.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: n}}")
    (tmp_path / "1.yaml").write_text(
        "{apiVersion: v1, kind: Namespace, metadata: {name: n}}\n---\n"
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n}}\n---\n"
    )
    (tmp_path / "notes.txt").write_text("not a manifest")
    assert [m["metadata"]["name"] for m in read_manifests([tmp_path])] == ["n", "a", "b"]


def test_an_object_without_a_namespace_lies_in_default(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}')
    assert read_manifests([tmp_path])[0]["metadata"]["namespace"] == "default"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "cannot be read"),
        ("just words", "no Kubernetes object"),
        ("{kind: Secret, metadata: {name: s}}", "without apiVersion"),
        ("{apiVersion: v1, kind: Secret}", "without metadata.name"),
    ],
)
def test_what_is_no_manifest_is_named_by_its_file(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(CommandError, match=rf"bad\.yaml .*{sentence}"):
        read_manifests([file])


def test_a_path_that_is_not_there_and_a_folder_without_manifests_are_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="does not exist"):
        read_manifests([tmp_path / "absent"])
    with pytest.raises(CommandError, match="holds no manifests"):
        read_manifests([tmp_path])


async def test_rendering_the_sample_gives_every_object_of_the_tenant_and_its_pipeline() -> None:
    objects = await rendered(read_manifests([ROOT / "samples" / "acme"]))
    named = {f"{o['kind']}/{o['metadata']['name']}" for o in objects}
    assert {
        "Namespace/acme",
        "Deployment/handbook-retrieval",
        "Deployment/handbook-ingestion",
        "Service/handbook-retrieval",
        "HorizontalPodAutoscaler/handbook-retrieval",
        "PodDisruptionBudget/handbook-retrieval",
        "ConfigMap/handbook-pipeline",
    } <= named
    assert not any(o["kind"] == "Secret" for o in objects)
