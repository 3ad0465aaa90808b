"""Writes the CRDs: ``python -m loam_operator.api.generate [--check] [folder]``.

With ``--check`` nothing is written; the exit code says whether the folder holds exactly what would be.
"""

import argparse
import sys
from pathlib import Path

import yaml

from loam_operator.api.base import Resource
from loam_operator.api.crd import crd
from loam_operator.api.v1alpha1 import KINDS

_HEADER = "# Generated from operator/loam_operator/api by `python -m loam_operator.api.generate`; edits are lost.\n"


class _Dumper(yaml.SafeDumper):
    """Writes repeated parts out in full: a CRD is read by people and by tools that know no anchors."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def files() -> dict[str, str]:
    """The generated files, by name."""
    return {f"{kind.definition.name}.yaml": _HEADER + _yaml(kind) for kind in KINDS.values()}


def _yaml(kind: type[Resource]) -> str:
    return yaml.dump(crd(kind), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def differing(folder: Path) -> list[str]:
    """Names of files that are missing, stale, or left over from a kind that is gone."""
    wanted = files()
    present = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def write(folder: Path) -> None:
    """Make the folder hold exactly the generated files."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for name in differing(folder):
        if name in wanted:
            (folder / name).write_text(wanted[name])
        else:
            (folder / name).unlink()


def main(arguments: list[str]) -> int:
    """Write or check the folder; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loam_operator.api.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("crds"))
    chosen = parser.parse_args(arguments)
    if not chosen.check:
        write(chosen.folder)
        return 0
    stale = differing(chosen.folder)
    for name in stale:
        sys.stderr.write(f"{chosen.folder / name} differs from the API's models; run `{parser.prog}`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
