"""What a user does with a running platform, through the `loam` command and the public API."""

import contextlib
import json
import time
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path

import psutil
import pytest
import yaml

from .conftest import SAMPLE, Up, until

pytestmark = pytest.mark.platform

HARBOUR = "# Harbour\n\nThe harbour master of Port Ellen is Morag Campbell. She has kept the log since 1987.\n"


@pytest.fixture(scope="module")
def harbour(platform: Up, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A document of the pipeline's."""
    file = tmp_path_factory.mktemp("documents") / "harbour.md"
    file.write_text(HARBOUR)
    added = platform.loam("documents", "add", str(file))
    assert added.code == 0, added.err
    assert "1 documents are searchable" in added.out
    return file.name


def test_an_uploaded_document_answers_with_a_citation_of_what_it_says(platform: Up, harbour: str) -> None:
    answer = platform.loam("ask", "Who is the harbour master of Port Ellen?", "--json").json
    assert "Morag Campbell" in answer["content"]
    quotes = [citation["quote"] for citation in answer["citations"] if citation["source"] == harbour]
    assert any("Morag Campbell" in quote for quote in quotes)
    for citation in answer["citations"]:
        if citation["source"] == harbour:
            assert HARBOUR[citation["span"]["start"] : citation["span"]["end"]].strip()
    assert Decimal(answer["usage"]["costUsd"]) > 0


def test_people_see_the_answer_its_sources_its_cost_and_what_is_left(platform: Up, harbour: str) -> None:
    shown = platform.loam("ask", "Since when has the log been kept?").out
    assert "1987" in shown
    assert f"[1] {harbour}" in shown
    assert "cost $0.00" in shown
    assert "of $20 left to user backend-service this month" in shown


def test_usage_adds_up_to_what_the_budget_says_was_spent(platform: Up, harbour: str) -> None:
    seen = platform.loam("usage", "--by", "model,user", "--json").json
    spent = sum(Decimal(row["costUsd"]) for row in seen["usage"]["rows"])
    (tenant,) = [cap for cap in seen["budget"]["caps"] if (cap["scope"], cap["period"]) == ("tenant", "month")]
    assert spent == Decimal(tenant["postedUsd"]) > 0
    assert Decimal(tenant["heldUsd"]) == 0
    assert Decimal(tenant["remainingUsd"]) == Decimal(tenant["capUsd"]) - spent


def test_the_ledger_verifies(platform: Up, harbour: str) -> None:
    verified = platform.loam("ledger", "verify")
    assert verified.code == 0, verified.out + verified.err


def test_a_healthy_platform_has_nothing_for_the_doctor(platform: Up) -> None:
    seen = platform.loam("doctor")
    assert (seen.code, seen.err) == (0, "")
    assert "everything is well" in seen.out


def test_a_removed_document_no_longer_answers(platform: Up, tmp_path: Path) -> None:
    file = tmp_path / "lighthouse.md"
    file.write_text("The lighthouse keeper of Rhinns is called Torquil Fraser.")
    assert platform.loam("documents", "add", str(file)).code == 0
    question = ("ask", "Who is the lighthouse keeper of Rhinns?", "--json")
    assert "Torquil" in platform.loam(*question).json["content"]
    assert platform.loam("documents", "rm", "lighthouse.md").code == 0
    until(lambda: "lighthouse.md" not in platform.documents(), 15, "the document is gone")
    after = platform.loam(*question).json
    assert "Torquil" not in after["content"]
    assert not [citation for citation in after["citations"] if "lighthouse" in citation["source"]]


def test_a_file_that_cannot_be_read_is_said_and_the_others_go_on(platform: Up, tmp_path: Path) -> None:
    (tmp_path / "empty.pdf").write_bytes(b"")
    (tmp_path / "fine.txt").write_text("The ferry to Jura leaves at nine.")
    added = platform.loam("documents", "add", str(tmp_path))
    assert added.code == 1
    assert "empty.pdf: " in added.err
    assert "1 documents are searchable" in added.out
    assert "nine" in platform.loam("ask", "When does the ferry to Jura leave?", "--json").json["content"]
    until(lambda: "could not be indexed" in platform.loam("doctor").out, 10, "the doctor says so")
    assert platform.loam("documents", "rm", "empty.pdf", "fine.txt").code == 0
    until(lambda: "empty.pdf" not in platform.documents(), 15, "it is gone")


def test_a_source_config_map_that_changes_changes_the_answers(platform: Up, tmp_path: Path) -> None:
    (faq,) = [m for m in yaml.safe_load_all((SAMPLE / "40-pipeline.yaml").read_text()) if m["kind"] == "ConfigMap"]
    faq["data"]["ferries.md"] = "The night ferry is called Saint Columba."
    changed = tmp_path / "faq.yaml"
    changed.write_text(yaml.safe_dump(faq))
    assert "ConfigMap acme/faq configured" in platform.loam("apply", "-f", str(changed)).out
    question = ("ask", "What is the night ferry called?", "--json")
    # The worker starts anew with the new source; what it sees from then on shows within one sync.
    until(lambda: platform.loam("sync").code == 0 and "faq/ferries.md" in platform.documents(), 30, "seen")
    until(lambda: platform.documents()["faq/ferries.md"] == "Ready", 30, "the source is indexed")
    assert "Saint Columba" in platform.loam(*question).json["content"]


def test_everything_that_is_killed_at_once_comes_back_with_its_data(platform: Up, harbour: str) -> None:
    victims = until(lambda: _programs(platform), 20, "seven programs run")
    for victim in victims:
        victim.kill()
    until(lambda: not any(victim.is_running() for victim in victims), 5, "they are dead")
    until(lambda: platform.said.count("is back") >= 7, 60, "all are back")
    until(lambda: platform.loam("doctor").code == 0, 30, "everything is well again")
    answer = platform.loam("ask", "Who is the harbour master of Port Ellen?", "--json").json
    assert "Morag Campbell" in answer["content"]


def _programs(platform: Up) -> list[psutil.Process]:
    """The seven programs of the platform once all of them run; the guard is none of them."""
    found = []
    for child in psutil.Process(platform.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "guard.py" not in " ".join(child.cmdline()):
                found.append(child)
    return found if len(found) == 7 else []


def _descendants(platform: Up) -> list[psutil.Process]:
    return psutil.Process(platform.process.pid).children(recursive=True)


def _runs(process: psutil.Process, module: str) -> bool:
    # A child may end, or have ended and not been waited for, while we look.
    with contextlib.suppress(psutil.NoSuchProcess):
        return module in process.cmdline()
    return False


def _pod_of(platform: Up, module: str) -> psutil.Process:
    pods = until(lambda: [p for p in _descendants(platform) if _runs(p, module)], 20, f"{module} runs")
    assert len(pods) == 1
    return pods[0]


def test_a_bad_manifest_is_refused_whole_and_in_words(platform: Up, tmp_path: Path) -> None:
    tenant = yaml.safe_load((SAMPLE / "20-tenant.yaml").read_text())
    tenant["spec"]["displayName"] = "Acme Limited"
    pipeline, _ = yaml.safe_load_all((SAMPLE / "40-pipeline.yaml").read_text())
    pipeline["spec"]["retrieval"]["mode"] = "Psychic"
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump_all([tenant, pipeline]))
    refused = platform.loam("apply", "-f", str(bad))
    assert refused.code == 1
    assert (
        'RagPipeline.loam.dev "handbook" is invalid: spec.retrieval.mode: Unsupported value: "Psychic"' in refused.err
    )
    assert "Acme Limited" not in json.dumps(platform.objects())


def test_what_a_manifest_asks_for_in_vain_is_said_by_the_doctor(platform: Up, tmp_path: Path) -> None:
    pipeline, _ = yaml.safe_load_all((SAMPLE / "40-pipeline.yaml").read_text())
    pipeline["metadata"]["name"] = "astray"
    pipeline["spec"]["generation"]["model"] = "claude-unheard-of"
    pipeline["spec"]["sources"] = [{"uploads": {}}]
    orphan = json.loads(json.dumps(pipeline))
    orphan["metadata"] |= {"name": "orphan", "namespace": "nobody"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "nobody"}}
    free = {"provider": "Bedrock", "modelId": "amazon.nova-2-lite-v1:0", "regions": ["us-east-1"]}
    keyless = {"provider": "OpenAI", "modelId": "gpt", "baseUrl": "https://api.openai.example/v1"}
    keyless |= {"credentialsSecretRef": {"name": "openai", "key": "key"}}
    keyless |= {"price": {"inputPerMillion": "1", "outputPerMillion": "2"}}
    routes = [_route("free", free), _route("keyless", keyless)]
    manifests = tmp_path / "astray.yaml"
    manifests.write_text(yaml.safe_dump_all([pipeline, namespace, orphan, *routes]))
    applied = platform.loam("apply", "-f", str(manifests))
    assert applied.code == 0, applied.err
    names = ("acme/astray", "nobody/orphan", "ModelRoute free", "ModelRoute keyless")
    try:
        said = until(lambda: _doctor_says(platform, *names), 10, "all are named")
        lines = {name: next(line for line in said.splitlines() if name in line) for name in names}
        assert "claude-unheard-of" in lines["acme/astray"]
        assert "tenant" in lines["nobody/orphan"]
        assert "price" in lines["ModelRoute free"]
        assert 'Secret "openai"' in lines["ModelRoute keyless"]
    finally:
        assert platform.loam("delete", "-f", str(manifests)).code == 0
    until(lambda: platform.loam("doctor").code == 0, 10, "they are gone")


def _route(name: str, spec: dict[str, object]) -> dict[str, object]:
    spec = spec | {"capabilities": ["Chat"], "maxOutputTokens": 1000}
    return {"apiVersion": "loam.dev/v1alpha1", "kind": "ModelRoute", "metadata": {"name": name}, "spec": spec}


def _doctor_says(platform: Up, *names: str) -> str | None:
    said = platform.loam("doctor").out
    return said if all(name in said and "has not looked" not in said for name in names) else None


def test_a_deployment_of_a_foreign_image_says_that_it_needs_a_container_engine(platform: Up, tmp_path: Path) -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "foreign", "namespace": "acme"},
        "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:1"}]}}},
    }
    manifest = tmp_path / "foreign.yaml"
    manifest.write_text(yaml.safe_dump(deployment))
    assert platform.loam("apply", "-f", str(manifest)).code == 0
    try:
        until(lambda: "nginx:1 is no image of Loam's" in platform.loam("doctor").out, 10, "the doctor says so")
    finally:
        platform.loam("delete", "-f", str(manifest))


def test_a_tenant_alone_makes_its_place_and_takes_all_of_it_with_it(platform: Up, tmp_path: Path) -> None:
    tenant = yaml.safe_load((SAMPLE.parent / "minimal" / "tenant.yaml").read_text())
    tenant["spec"] |= {"models": ["claude-haiku", "titan-embed"], "storage": {"deletionPolicy": "Delete"}}
    name = tenant["metadata"]["name"]
    pipeline, _ = yaml.safe_load_all((SAMPLE / "40-pipeline.yaml").read_text())
    pipeline["metadata"] = {"name": "notes", "namespace": name}
    pipeline["spec"]["sources"] = [{"uploads": {}}]
    first, second = tmp_path / "tenant.yaml", tmp_path / "pipeline.yaml"
    first.write_text(yaml.safe_dump(tenant))
    second.write_text(yaml.safe_dump(pipeline))
    assert platform.loam("apply", "-f", str(first)).code == 0
    applied = until(lambda: (done := platform.loam("apply", "-f", str(second))).code == 0 and done, 10, "its place")
    assert f"RagPipeline {name}/notes created" in applied.out
    until(lambda: platform.loam("doctor").code == 0, 30, "the pipeline is ready")
    assert len(_pods_of(platform, name)) == 2
    assert platform.loam("delete", "-f", str(first)).code == 0
    until(lambda: name not in _names_and_namespaces(platform), 30, "all is gone")
    until(lambda: not _pods_of(platform, name), 10, "its processes have ended")


def _names_and_namespaces(platform: Up) -> set[str]:
    metadata = [held["metadata"] for held in platform.objects()]
    return {each["name"] for each in metadata} | {each.get("namespace", "") for each in metadata}


def _pods_of(platform: Up, tenant: str) -> list[psutil.Process]:
    return [p for p in _descendants(platform) if _environment(p).get("LOAM_TENANT") == tenant]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def test_nobody_without_the_token_of_the_data_folder_gets_at_the_objects(platform: Up) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(platform.known["control"] + "/objects")
    assert refused.value.code == 401
    refused.value.close()
    assert (platform.data / "running.json").stat().st_mode & 0o077 == 0


def test_all_that_the_platform_keeps_is_readable_by_its_owner_only(platform: Up) -> None:
    assert platform.data.stat().st_mode & 0o077 == 0
    for secret in (platform.data / "secrets").iterdir():
        assert secret.stat().st_mode & 0o077 == 0, secret
    for held in ("objects.sqlite", "ports.json"):
        assert (platform.data / held).stat().st_mode & 0o077 == 0


def test_pods_hold_no_database_login_and_no_administrator_key(platform: Up) -> None:
    administrator = (platform.data / "secrets" / "storage-key-id").read_text()
    for module in ("loam_retrieval", "loam_ingestion"):
        environment = _pod_of(platform, module).environ()
        assert not {"LOAM_DATABASE_URL", "LOAM_REDIS_URL", "LOAM_ADMIN_TOKEN_FILE"} & environment.keys()
        assert environment["AWS_ACCESS_KEY_ID"] != administrator


def test_nothing_is_written_while_nothing_changes(platform: Up) -> None:
    until(lambda: platform.loam("doctor").code == 0, 20, "everything is well")
    time.sleep(1.5)
    before = _versions(platform)
    time.sleep(2.5)
    assert _versions(platform) == before


def _versions(platform: Up) -> dict[str, str]:
    return {f"{o['kind']} {o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in platform.objects()}
