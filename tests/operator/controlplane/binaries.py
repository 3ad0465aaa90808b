"""Finds the programs of a Kubernetes control plane, or gets them; ``python binaries.py`` does so ahead of the tests.

In this order: the folder that KUBEBUILDER_ASSETS names, our cache, a download of prebuilt programs, a build from Go
modules (go.mod beside this file). What is got lands in the cache. Two processes may look at once.
"""

import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

VERSION = "v1.36.3"
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager")
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """Where prebuilt programs lie: an index of archives (etcd and API server), and Kubernetes' own releases."""

    index: str = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"
    releases: str = "https://dl.k8s.io"


class BinariesMissingError(Exception):
    """The programs are neither here nor to be had; the message says what was tried."""


class _NotObtainedError(Exception):
    """One way to get them did not work."""


def cache_folder() -> Path:
    """Where programs that were downloaded or built are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "loam" / "controlplane" / VERSION


def locate(say: Say, folder: Path | None = None, origin: Origin | None = None) -> dict[str, Path]:
    """The path of each program. May download or build, and tells `say` so. Raises BinariesMissingError."""
    folder = folder or cache_folder()
    found = _present(folder) | _assets()
    if len(found) == len(NAMES):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    reasons = []
    with _lock(folder):
        for obtain in (
            lambda names: _download(names, folder, origin or Origin(), say),
            lambda n: _build(n, folder, say),
        ):
            missing = [name for name in NAMES if name not in _present(folder) | found]
            try:
                obtain(missing)
            except _NotObtainedError as error:
                reasons.append(str(error))
    found = _present(folder) | found
    if missing := [name for name in NAMES if name not in found]:
        raise BinariesMissingError(
            f"no {', '.join(missing)}: {'; '.join(reasons)}; or name a folder in KUBEBUILDER_ASSETS"
        )
    return found


def _assets() -> dict[str, Path]:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    return _present(Path(folder)) if folder else {}


def _present(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in NAMES if os.access(folder / name, os.X_OK)}


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _machine() -> tuple[str, str]:
    """Operating system and processor as Go names them."""
    processor = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return platform.system().lower(), processor


def _download(names: list[str], folder: Path, origin: Origin, say: Say) -> None:
    """Each missing program that is published for this machine. Raises _NotObtainedError."""
    system, processor = _machine()
    try:
        if {"etcd", "kube-apiserver"} & set(names):
            _download_archive(names, folder, origin, f"{system}-{processor}", say)
        if "kube-controller-manager" in names:
            _download_controller_manager(folder, origin, f"{system}/{processor}", say)
    except OSError as error:
        raise _NotObtainedError(f"the download failed ({error})") from error


def _download_archive(names: list[str], folder: Path, origin: Origin, machine: str, say: Say) -> None:
    releases = yaml.safe_load(_fetch(origin.index))["releases"]
    version = _newest_patch(list(releases))
    archive = releases[version].get(f"envtest-{version}-{machine}.tar.gz")
    if archive is None:
        raise _NotObtainedError(f"no archive of {version} is published for {machine}")
    say(f"downloading etcd and kube-apiserver {version}")
    data = _fetch(archive["selfLink"])
    _verify(data, "sha512", archive["hash"], archive["selfLink"])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar.getmembers():
            name = Path(member.name).name
            content = tar.extractfile(member) if name in names else None
            if content is not None:
                _keep(content.read(), folder / name)


def _download_controller_manager(folder: Path, origin: Origin, machine: str, say: Say) -> None:
    url = f"{origin.releases}/{VERSION}/bin/{machine}/kube-controller-manager"
    wanted = _fetch(f"{url}.sha256").decode().split()[0]
    say(f"downloading kube-controller-manager {VERSION}")
    data = _fetch(url)
    _verify(data, "sha256", wanted, url)
    _keep(data, folder / "kube-controller-manager")


def _newest_patch(versions: list[str]) -> str:
    """The newest published release of our minor version."""
    minor = VERSION.rpartition(".")[0] + "."
    patches = [int(version.removeprefix(minor)) for version in versions if version.removeprefix(minor).isdigit()]
    if not patches:
        raise _NotObtainedError(f"no archive of {minor}x is published")
    return f"{minor}{max(patches)}"


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def _verify(data: bytes, algorithm: str, wanted: str, url: str) -> None:
    if hashlib.new(algorithm, data).hexdigest() != wanted:
        raise _NotObtainedError(f"the {algorithm} checksum of {url} does not match")


def _keep(data: bytes, path: Path) -> None:
    """Write a program at once or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).chmod(0o755)
    Path(file.name).replace(path)


def _build(names: list[str], folder: Path, say: Say) -> None:
    """Each missing program, from source. Raises _NotObtainedError."""
    if not names:
        return
    if shutil.which("go") is None:
        raise _NotObtainedError("there is no Go to build them with")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for name in names:
            _compile(name, Path(scratch) / name, say)
            (Path(scratch) / name).replace(folder / name)


def _compile(name: str, target: Path, say: Say) -> None:
    major, minor, _ = VERSION.removeprefix("v").split(".")
    stamp = "k8s.io/component-base/version"
    flags = f"-s -w -X {stamp}.gitVersion={VERSION} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    command = ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(target), PACKAGES[name]]
    log = target.with_suffix(".log")
    started = time.monotonic()
    with log.open("wb") as output:
        environment = os.environ | {"CGO_ENABLED": "0"}
        process = subprocess.Popen(command, cwd=Path(__file__).parent, env=environment, stdout=output, stderr=output)
        while True:
            say(f"building {name} {VERSION} from Go modules, once ({time.monotonic() - started:.0f} s so far)")
            try:
                code = process.wait(timeout=15)
                break
            except subprocess.TimeoutExpired:
                continue
    if code != 0:
        raise _NotObtainedError(f"the build of {name} failed: {log.read_text(errors='replace')[-600:].strip()}")


def to_stderr(text: str) -> None:
    """A progress line."""
    sys.stderr.write(f"control plane: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    for path in locate(to_stderr).values():
        sys.stdout.write(f"{path}\n")
