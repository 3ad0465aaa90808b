"""The CRDs in crds/ are what the API's models say, and say enough for people and for the API server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loam_operator.api.crd import crd
from loam_operator.api.generate import differing, main
from loam_operator.api.v1alpha1 import KINDS

ROOT = Path(__file__).parents[3]
CRDS = {name: crd(kind) for name, kind in KINDS.items()}


def _schema(name: str) -> dict[str, Any]:
    return CRDS[name]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from _nodes(schema[key], f"{path}[]")


FIELDS = [
    pytest.param(schema, id=f"{name}{path}")
    for name in KINDS
    for path, schema in _nodes(_schema(name))
    if path.startswith((".spec", ".status"))
]


def test_the_committed_crds_are_the_generated_ones() -> None:
    assert differing(ROOT / "crds") == []


def test_the_check_names_a_file_that_was_edited_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    edited = tmp_path / "tenants.loam.dev.yaml"
    edited.write_text(edited.read_text().replace("Hard caps", "Soft caps"))
    assert main(["--check", str(tmp_path)]) == 1
    assert "tenants.loam.dev.yaml differs from the API's models" in capsys.readouterr().err


def test_the_check_names_a_file_of_a_kind_that_is_gone_and_generating_removes_it(tmp_path: Path) -> None:
    main([str(tmp_path)])
    leftover = tmp_path / "widgets.loam.dev.yaml"
    leftover.write_text("kind: CustomResourceDefinition\n")
    assert differing(tmp_path) == ["widgets.loam.dev.yaml"]
    main([str(tmp_path)])
    assert not leftover.exists()


@pytest.mark.parametrize("schema", FIELDS)
def test_every_field_is_described_and_bounded(schema: dict[str, Any]) -> None:
    if "type" in schema and "description" not in schema:
        assert "x-kubernetes-list-type" not in schema, "a list without a description"
    match schema.get("type"):
        case "string":
            assert "enum" in schema or schema.get("format") == "date-time" or "maxLength" in schema
        case "integer":
            assert "minimum" in schema
        case "array":
            assert "maxItems" in schema
            assert "x-kubernetes-list-type" in schema
        case "object" if "additionalProperties" in schema:
            assert "maxProperties" in schema


@pytest.mark.parametrize("name", KINDS)
def test_every_named_field_has_a_sentence_for_kubectl_explain(name: str) -> None:
    for path, schema in _nodes(_schema(name)):
        for field, child in schema.get("properties", {}).items():
            if path == ".metadata" or field == "metadata":
                continue
            assert re.fullmatch(r"\S.*\.", child.get("description", ""), re.DOTALL), f"{name}{path}.{field}"


@pytest.mark.parametrize("name", KINDS)
def test_every_rule_carries_a_sentence(name: str) -> None:
    for _, schema in _nodes(_schema(name)):
        for rule in schema.get("x-kubernetes-validations", []):
            assert re.match(r"(must|needs) ", rule["message"])


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_shows_with_kubectl_get_loam_and_keeps_its_status_apart(name: str) -> None:
    spec = CRDS[name]["spec"]
    assert spec["names"]["categories"] == ["loam"]
    assert spec["names"]["shortNames"]
    assert spec["versions"][0]["subresources"]["status"] == {}
    columns = [column["name"] for column in spec["versions"][0]["additionalPrinterColumns"]]
    assert columns[-3:] == ["Ready", "Reason", "Age"]


def test_the_generated_yaml_has_no_anchors() -> None:
    for path in (ROOT / "crds").glob("*.yaml"):
        assert not re.search(r"[&*]id\d", path.read_text())
        assert yaml.safe_load(path.read_text())["spec"]["group"] == "loam.dev"
