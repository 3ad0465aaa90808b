"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager. No node, so no pods."""

import json
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from .pki import Authority, Identity, private_pem

_LEASH = Path(__file__).with_name("leash.py")
_TRIES = 3
_READY_SECONDS = 90


class StartError(Exception):
    """A part of the control plane did not come up; the message ends with its log."""


class _EndedError(StartError):
    """One of the programs ended before all were ready."""


@dataclass
class ControlPlane:
    """A running control plane. Everything that it writes lies below `folder`."""

    folder: Path
    binaries: Mapping[str, Path]
    url: str = ""
    _authority: Authority = field(default_factory=Authority)
    _processes: list["_Process"] = field(default_factory=list)

    @property
    def ca_file(self) -> Path:
        """The certificate authority of the API server."""
        return self.folder / "ca.crt"

    @property
    def admin(self) -> Path:
        """A kubeconfig of a cluster administrator."""
        return self.kubeconfig("admin", ["system:masters"])

    def kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a client certificate of this user in these groups."""
        path = self.folder / f"{'+'.join([user, *groups]).replace('/', '_').replace(':', '_')}.kubeconfig"
        if not path.exists():
            path.write_text(yaml.safe_dump(self._kubeconfig(user, self._authority.client(user, groups))))
            path.chmod(0o600)
        return path

    def tls(self, user: str = "admin", groups: Sequence[str] = ("system:masters",)) -> ssl.SSLContext:
        """A context for any HTTP client that is to speak as this user in these groups."""
        config = yaml.safe_load(self.kubeconfig(user, groups).read_text())["users"][0]["user"]
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(config["client-certificate"], config["client-key"])
        return context

    def start(self, crds: Sequence[Mapping[str, Any]] = ()) -> None:
        """Start all three, with these CRDs, and wait until they are ready. Raises StartError."""
        for _ in range(_TRIES - 1):
            try:
                return self._start(crds)
            except _EndedError:
                # Somebody else may have taken a port between our choosing it and the program's listening on it.
                self.stop()
        return self._start(crds)

    def _start(self, crds: Sequence[Mapping[str, Any]]) -> None:
        etcd, apiserver, manager, metrics = _free_ports(4)
        self.url = f"https://127.0.0.1:{apiserver}"
        self._write_identities()
        self._run("etcd", _etcd(self.folder / "etcd", etcd, metrics))
        self._run("kube-apiserver", _apiserver(self.folder, etcd, apiserver))
        context = self.tls()
        self._await("kube-apiserver", lambda: _answers(f"{self.url}/readyz", context))
        # Before the controller-manager: its garbage collector looks for new kinds only twice a minute.
        for crd in crds:
            _install(f"{self.url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd, context)
        for crd in crds:
            self._await("kube-apiserver", lambda kind=crd: _answers(_list_url(self.url, kind), context))
        self._run("kube-controller-manager", self._controller_manager(manager))
        self._await("kube-controller-manager", lambda: _answers(f"https://127.0.0.1:{manager}/healthz", context))

    def stop(self) -> None:
        """Stop what was started, the last one first."""
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()

    def _kubeconfig(self, user: str, identity: Identity) -> dict[str, object]:
        stem = self.folder / f"{len(list(self.folder.glob('client-*.crt')))}"
        certificate, key = (stem.with_name(f"client-{stem.name}{suffix}") for suffix in (".crt", ".key"))
        _write(certificate, identity.certificate)
        _write(key, identity.key)
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [
                {"name": "tests", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}
            ],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
            "users": [{"name": user, "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
        }

    def _write_identities(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        server = self._authority.server(["localhost", "kubernetes.default.svc", "kubernetes.default", "kubernetes"])
        _write(self.ca_file, self._authority.certificate)
        _write(self.folder / "server.crt", server.certificate)
        _write(self.folder / "server.key", server.key)
        _write(self.folder / "serviceaccounts.key", private_pem(ec.generate_private_key(ec.SECP256R1())))

    def _controller_manager(self, port: int) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig('system:kube-controller-manager')}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={self.folder / 'server.crt'}",
            f"--tls-private-key-file={self.folder / 'server.key'}",
            f"--root-ca-file={self.ca_file}",
            f"--service-account-private-key-file={self.folder / 'serviceaccounts.key'}",
            "--use-service-account-credentials",
            "--leader-elect=false",
        ]

    def _run(self, name: str, arguments: list[str]) -> None:
        process = _Process(name, [str(self.binaries[name]), *arguments], self.folder / f"{name}.log")
        self._processes.append(process)

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            if ended := next((process for process in self._processes if not process.is_alive), None):
                raise _EndedError(f"{ended.name} ended:\n{ended.last_words()}")
            if time.monotonic() > deadline:
                waiting = next(process for process in self._processes if process.name == name)
                raise StartError(f"{name} did not become ready:\n{waiting.last_words()}")
            time.sleep(0.05)


class _Process:
    """A program on a leash: it ends with us, even when we are killed."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-S", str(_LEASH), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=10)


def _etcd(data: Path, port: int, metrics: int) -> list[str]:
    peer = "http://127.0.0.1:0"
    return [
        f"--data-dir={data}",
        f"--listen-client-urls=http://127.0.0.1:{port}",
        f"--advertise-client-urls=http://127.0.0.1:{port}",
        f"--listen-peer-urls={peer}",
        f"--listen-metrics-urls=http://127.0.0.1:{metrics}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver(folder: Path, etcd: int, port: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'apiserver'}",
        f"--tls-cert-file={folder / 'server.crt'}",
        f"--tls-private-key-file={folder / 'server.key'}",
        f"--client-ca-file={folder / 'ca.crt'}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'serviceaccounts.key'}",
        f"--service-account-signing-key-file={folder / 'serviceaccounts.key'}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # The address of the one API server is loopback, which must not become the endpoint of a Service.
        "--endpoint-reconciler-type=none",
        "--allow-privileged",
        "--profiling=false",
    ]


def _answers(url: str, context: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _install(url: str, manifest: Mapping[str, Any], context: ssl.SSLContext) -> None:
    body = json.dumps(manifest).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        urllib.request.urlopen(request, timeout=30, context=context).close()
    except urllib.error.HTTPError as error:
        with error:
            raise StartError(f"{manifest['metadata']['name']} was refused: {json.load(error)['message']}") from error


def _list_url(url: str, crd: Mapping[str, Any]) -> str:
    spec = crd["spec"]
    return f"{url}/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until the last is chosen, so that they differ."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
