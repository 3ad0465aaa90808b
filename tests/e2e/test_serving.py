"""Who serves a pipeline: its own pods or the platform's pool, and an ingestion worker that rests between documents."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from .conftest import SAMPLE, Up, processes_of, until

pytestmark = pytest.mark.platform


class Asking:
    """Asks a pipeline again and again, in a thread of its own, and keeps every status but 200."""

    def __init__(self, up: Up) -> None:
        self._up, self._stop, self.phase = up, threading.Event(), ""
        self.answered, self.refused = 0, list[str]()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.05):
            try:
                assert search(self._up)
                self.answered += 1
            except urllib.error.HTTPError as error:
                self.refused.append(f"{self.phase}: {error.read().decode()}")
            except (OSError, AssertionError) as error:
                self.refused.append(f"{self.phase}: {error}")


def search(up: Up) -> list[Any]:
    headers = {"authorization": f"Bearer {up.key}", "content-type": "application/json"}
    url = f"{up.known['url']}/v1/pipelines/handbook/query"
    request = urllib.request.Request(url, json.dumps({"query": "budgets"}).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return list(json.load(response)["matches"])


def running(up: Up, module: str) -> list[psutil.Process]:
    return [process for process in processes_of(up.data) if module in process.cmdline()]


def pipeline(up: Up) -> dict[str, Any]:
    return next(held for held in up.objects() if held["kind"] == "RagPipeline")


def is_quiet(up: Up) -> bool:
    before = up.objects()
    time.sleep(1.5)
    return up.objects() == before


def says(up: Up, kind: str) -> tuple[str, str]:
    held = pipeline(up)
    conditions = held["status"]["conditions"]
    return next((one["status"], one["reason"]) for one in conditions if one["type"] == kind)


def serve(up: Up, folder: Path, mode: str) -> None:
    """Apply the sample's pipeline with this mode."""
    sample = next(iter(yaml.safe_load_all((SAMPLE / "40-pipeline.yaml").read_text())))
    sample["spec"]["serving"]["mode"] = mode
    changed = folder / f"{mode}.yaml"
    changed.write_text(yaml.safe_dump(sample))
    assert up.loam("apply", "-f", str(changed)).code == 0


def test_a_pipeline_changes_who_serves_it_and_its_worker_rests_without_anybody_noticing(
    new_up: Callable[..., Up], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOAM_INGESTION_IDLE_SECONDS", "1")
    up = new_up().ready()
    until(lambda: set(up.documents().values()) == {"Ready"}, 30, "the sample's documents are searchable")
    until(lambda: not running(up, "loam_ingestion"), 10, "the worker rests")
    assert says(up, "Ready") == ("True", "Ready")
    until(lambda: is_quiet(up), 10, "nothing is written any more")
    [own] = running(up, "loam_retrieval")
    with Asking(up) as asking:
        asking.phase = "to Shared"
        serve(up, tmp_path, "Shared")
        until(lambda: says(up, "Serving") == ("True", "PoolServes"), 20, "the pool serves")
        until(lambda: not own.is_running(), 10, "the pipeline's own pod is gone")
        [pool] = running(up, "loam_retrieval")
        assert "LOAM_TENANT" not in pool.environ()
        assert not [name for name in pool.environ() if name.startswith("AWS_")]
        made = {f"{held['kind']}/{held['metadata']['name']}" for held in up.objects()}
        assert not [name for name in made if name.endswith("/handbook-retrieval")]
        asking.phase = "Shared"
        (tmp_path / "new.md").write_text("The wombat is the animal of the month.")
        assert up.loam("documents", "add", str(tmp_path / "new.md")).code == 0
        until(lambda: up.documents()["new.md"] == "Ready", 20, "the worker was woken, and read it")
        asking.phase = "to Dedicated"
        serve(up, tmp_path, "Dedicated")
        until(lambda: says(up, "Serving") == ("True", "PodsReady"), 20, "its own pods serve again")
        until(lambda: not pool.is_running(), 10, "nobody needs the pool")
    assert asking.refused == []
    assert asking.answered > 20
