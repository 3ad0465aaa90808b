"""Where the programs of the control plane come from: in order, checked, once, and with a reason when from nowhere."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from .. import conftest
from .binaries import NAMES, VERSION, BinariesMissingError, Origin, _machine, locate

_SYSTEM, _PROCESSOR = _machine()


class Releases:
    """A web server with releases of programs that are short texts; `requests` is what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        releases = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                releases.requests.append(self.path)
                body = releases.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.origin = Origin(index=f"{self.url}/index.yaml", releases=self.url)
        self._publish()

    def _publish(self) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for name in ("etcd", "kube-apiserver", "kubectl"):
                member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
                member.size = len(name)
                tar.addfile(member, io.BytesIO(name.encode()))
        minor = VERSION.rpartition(".")[0]
        name = f"envtest-{minor}.2-{_SYSTEM}-{_PROCESSOR}.tar.gz"
        digest = hashlib.sha512(archive.getvalue()).hexdigest()
        self.files[f"/{name}"] = archive.getvalue()
        entry = {name: {"hash": digest, "selfLink": f"{self.url}/{name}"}}
        index = {"releases": {f"{minor}.0": {}, f"{minor}.2": entry, "v1.99.0": {}}}
        self.files["/index.yaml"] = yaml.safe_dump(index).encode()
        manager = f"/{VERSION}/bin/{_SYSTEM}/{_PROCESSOR}/kube-controller-manager"
        self.files[manager] = b"kube-controller-manager"
        self.files[f"{manager}.sha256"] = hashlib.sha256(self.files[manager]).hexdigest().encode()


@pytest.fixture
def releases() -> Iterator[Releases]:
    releases = Releases()
    thread = threading.Thread(target=releases.server.serve_forever, args=[0.02])
    thread.start()
    yield releases
    releases.server.shutdown()
    releases.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No assets given, and no Go."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def _programs(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
        (folder / name).chmod(0o755)
    return folder


def test_the_given_assets_come_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, releases: Releases
) -> None:
    assets, cache = _programs(tmp_path / "assets", *NAMES), _programs(tmp_path / "cache", *NAMES)
    assert locate(print, cache, releases.origin)["etcd"] == cache / "etcd"
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert locate(print, cache, releases.origin)["etcd"] == assets / "etcd"
    assert releases.requests == []


def test_what_the_given_assets_lack_is_taken_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, releases: Releases
) -> None:
    assets = _programs(tmp_path / "assets", "etcd", "kube-apiserver")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    found = locate(print, tmp_path / "cache", releases.origin)
    assert found["etcd"] == assets / "etcd"
    assert found["kube-controller-manager"].read_text() == "kube-controller-manager"
    assert "/index.yaml" not in releases.requests


def test_published_programs_are_downloaded_once_even_when_two_look_at_once(tmp_path: Path, releases: Releases) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: locate(print, tmp_path / "cache", releases.origin), range(2))
    assert one == other
    assert {name: path.read_text() for name, path in one.items()} == {name: name for name in NAMES}
    assert sum(path.endswith(".tar.gz") for path in releases.requests) == 1


def test_a_download_whose_checksum_is_wrong_is_not_kept(tmp_path: Path, releases: Releases) -> None:
    archive = next(path for path in releases.files if path.endswith(".tar.gz"))
    releases.files[archive] += b"tampered"
    with pytest.raises(BinariesMissingError, match=r"the sha512 checksum of \S+ does not match"):
        locate(print, tmp_path / "cache", releases.origin)
    assert not (tmp_path / "cache" / "etcd").exists()


def test_with_nothing_to_be_had_the_reasons_are_told(tmp_path: Path) -> None:
    nowhere = Origin(index="http://127.0.0.1:9/index.yaml", releases="http://127.0.0.1:9")
    with pytest.raises(BinariesMissingError) as missing:
        locate(print, tmp_path / "cache", nowhere)
    assert "no etcd, kube-apiserver, kube-controller-manager" in str(missing.value)
    assert "the download failed" in str(missing.value)
    assert "there is no Go to build them with" in str(missing.value)
    assert "KUBEBUILDER_ASSETS" in str(missing.value)


def test_without_an_api_server_tests_are_skipped_but_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no API server"):
        conftest._do_without("no API server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no API server"):
        conftest._do_without("no API server")
