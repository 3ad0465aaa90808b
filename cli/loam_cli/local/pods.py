"""What a Deployment's pod becomes on this machine: one process, its variables, its volumes as folders. Pure reading.

A container sees its own file system; a process sees ours. So each volume becomes a folder of its own, and wherever a
variable or an argument names a mount path, it is made to name that folder instead.
"""

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loam_operator.cluster import Manifest, Ref

LOCAL_HOST = "127.0.0.1"
Read = Callable[[Ref], Manifest | None]


class NotRunnableLocallyError(Exception):
    """The pod needs what only a container engine or a cluster has."""


class WaitingError(Exception):
    """Something that the pod needs is not there yet, such as a Secret."""


@dataclass(frozen=True)
class Volume:
    """A folder with exactly these files, by path below it; None for one that the pod itself writes to (emptyDir)."""

    folder: Path
    files: Mapping[str, bytes] | None

    def write(self) -> None:
        """Make the folder so; each file changes as a whole."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.files is None:
            return
        for present in [path for path in self.folder.rglob("*") if path.is_file()]:
            if str(present.relative_to(self.folder)) not in self.files:
                present.unlink()
        for name, content in self.files.items():
            path = self.folder / name
            if not path.exists() or path.read_bytes() != content:
                _replace(path, content)


@dataclass(frozen=True)
class PodPlan:
    """A process to run. `port` is where it listens here; `probe_path` is what it answers with 200 once it is ready."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    volumes: tuple[Volume, ...]
    port: int | None
    probe_path: str | None
    template: str
    """The pod template as JSON: when it changes, the pod is replaced, as in a cluster."""

    def same_process(self, other: "PodPlan") -> bool:
        """Whether a running process of the other plan would be one of this plan; files may differ."""
        return (self.command, self.env, self.template) == (other.command, other.env, other.template)


@dataclass(frozen=True)
class Planner:
    """Plans pods. `modules` says which Python module an image of Loam's runs; `port_of` gives ports of this machine."""

    read: Read
    modules: Mapping[str, str]
    pods: Path
    port_of: Callable[[Ref], int]
    base_env: Mapping[str, str]

    def plan(self, deployment: Manifest) -> PodPlan:
        """The process of a Deployment's pod. Raises NotRunnableLocallyError and WaitingError."""
        ref = Ref.of(deployment)
        template = deployment["spec"]["template"]
        containers = template["spec"]["containers"]
        if len(containers) != 1:
            raise NotRunnableLocallyError("its pods have several containers, which need a container engine")
        container = containers[0]
        mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", ())}
        folder = self.pods / str(ref.namespace) / ref.name
        volumes = {v["name"]: self._volume(v, ref, folder / v["name"]) for v in template["spec"].get("volumes", ())}
        rewrite = _Rewrite({mounts[name]: volume.folder for name, volume in volumes.items() if name in mounts})
        port = self._port(ref, container)
        return PodPlan(
            command=self._command(container, rewrite),
            env=self._environment(ref, container, rewrite) | self._local_address(port),
            volumes=tuple(volumes.values()),
            port=port,
            probe_path=container.get("readinessProbe", {}).get("httpGet", {}).get("path"),
            template=json.dumps(template, sort_keys=True),
        )

    def _command(self, container: Manifest, rewrite: "_Rewrite") -> tuple[str, ...]:
        module = self.modules.get(container["image"])
        if module is None:
            raise NotRunnableLocallyError(f"{container['image']} is no image of Loam's, and needs a container engine")
        command = container.get("command") or ["python", "-m", module]
        program, *arguments = [rewrite(part) for part in (*command, *container.get("args", ()))]
        # Our own Python is a path of this machine already, and is never rewritten: it may lie below /tmp.
        return (sys.executable if re.fullmatch(r"python[0-9.]*", program) else program, *arguments)

    def _environment(self, ref: Ref, container: Manifest, rewrite: "_Rewrite") -> dict[str, str]:
        env = dict(self.base_env)
        for source in container.get("envFrom", ()):
            env |= {source.get("prefix", "") + name: text for name, text in self._all_of(ref, source)}
        for variable in container.get("env", ()):
            if (value := self._value(ref, variable)) is not None:
                env[variable["name"]] = rewrite(value)
        return env

    def _all_of(self, ref: Ref, source: Manifest) -> Iterator[tuple[str, str]]:
        for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if field in source:
                for name, content in self._data(ref, kind, source[field]).items():
                    yield name, content.decode()

    def _value(self, ref: Ref, variable: Manifest) -> str | None:
        if "valueFrom" not in variable:
            return str(variable.get("value", ""))
        source = variable["valueFrom"]
        if "fieldRef" in source:
            return _downward(ref, source["fieldRef"]["fieldPath"])
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if field in source:
                content = self._data(ref, kind, source[field]).get(source[field]["key"])
                return content.decode() if content is not None else None
        raise NotRunnableLocallyError(f"its variable {variable['name']} comes from something that only a cluster has")

    def _volume(self, volume: Manifest, ref: Ref, folder: Path) -> Volume:
        if "emptyDir" in volume:
            return Volume(folder, None)
        sources = volume.get("projected", {}).get("sources", [volume])
        files: dict[str, bytes] = {}
        for source in sources:
            files |= self._files(source, ref, volume["name"])
        return Volume(folder, files)

    def _files(self, source: Manifest, ref: Ref, name: str) -> dict[str, bytes]:
        for field, kind, names in (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name")):
            if field in source:
                content = source[field]
                data = self._data(ref, kind, {"name": content.get(names) or content["name"], **content})
                items = content.get("items") or [{"key": key, "path": key} for key in data]
                return {item["path"]: data[item["key"]] for item in items if item["key"] in data}
        raise NotRunnableLocallyError(f"its volume {name} is of a type that only a cluster has")

    def _data(self, ref: Ref, kind: str, source: Manifest) -> dict[str, bytes]:
        held = self.read(Ref("v1", kind, source["name"], ref.namespace))
        if held is None:
            if source.get("optional"):
                return {}
            raise WaitingError(f"{kind} {source['name']} is missing")
        binary = held.get("data" if kind == "Secret" else "binaryData") or {}
        plain = {} if kind == "Secret" else held.get("data") or {}
        return {name: base64.b64decode(text) for name, text in binary.items()} | {
            name: text.encode() for name, text in plain.items()
        }

    def _port(self, ref: Ref, container: Manifest) -> int | None:
        return self.port_of(ref) if container.get("ports") else None

    def _local_address(self, port: int | None) -> dict[str, str]:
        return {"LOAM_HOST": LOCAL_HOST} | ({"LOAM_PORT": str(port)} if port is not None else {})


class _Rewrite:
    """Turns paths as a container sees them into paths of this machine."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._folders = {mount.rstrip("/"): str(folder) for mount, folder in mounts.items()}
        longest_first = sorted(map(re.escape, self._folders), key=len, reverse=True)
        self._pattern = re.compile(rf"({'|'.join(longest_first)})(?=/|$)") if longest_first else None

    def __call__(self, text: str) -> str:
        match = self._pattern.match(text) if self._pattern else None
        return self._folders[match[1]] + text[match.end() :] if match else text


def _downward(ref: Ref, path: str) -> str:
    known: dict[str, Any] = {"metadata.name": ref.name, "metadata.namespace": ref.namespace, "status.podIP": LOCAL_HOST}
    if path not in known:
        raise NotRunnableLocallyError(f"{path} of a pod is known in a cluster only")
    return str(known[path])


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    partial.replace(path)
