"""Makes `.venv` from requirements.lock with nothing but a Python: ``install``, and ``lock`` to pin anew.

Plain standard library, and nothing newer than Python 3.7, so that an older Python can say what is missing.
pip fetches one package, the pinned uv, by its hash; uv fetches the rest, from where pip is configured to look.
"""

import ast
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / ".installed"
OLDEST = (3, 11)
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"

# What pip's configuration calls a thing, and the variable through which uv takes it.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
}


def main(arguments):
    """Do what the one argument says."""
    use_new_enough_python()
    if arguments == ["install"]:
        install()
    elif arguments == ["lock"]:
        install()
        lock()
    else:
        sys.exit("usage: python3 scripts/venv.py install|lock")


def use_new_enough_python():
    """Go on in a newer Python when this one is too old, or say so; the same for the parts that Debian leaves out."""
    if sys.version_info < OLDEST:
        names = [f"python3.{minor}" for minor in range(14, OLDEST[1] - 1, -1)]
        newer = next(filter(runs, filter(None, map(shutil.which, names))), None)
        if newer is None:
            sys.exit(f"Loam needs Python 3.11 or newer; this is {VERSION} ({sys.executable})")
        os.execv(newer, [newer, *sys.argv])
    if any(importlib.util.find_spec(module) is None for module in ("venv", "ensurepip")):
        sys.exit(f"{sys.executable} lacks venv or ensurepip; on Debian and Ubuntu: apt install python3-venv")


def runs(python):
    """Whether a Python that was found does run; the shims of version managers may not."""
    return subprocess.run([python, "-c", "pass"], stderr=subprocess.DEVNULL, check=False).returncode == 0


def install():
    """Make `.venv` match the lock; nothing is done when it does already."""
    state = wanted_state()
    if STAMP.exists() and STAMP.read_text() == state and (VENV / "bin" / "loam").exists():
        return
    if not usable():
        print(f"making .venv with Python {VERSION}", flush=True)
        shutil.rmtree(str(VENV), ignore_errors=True)
        run(sys.executable, "-m", "venv", str(VENV))
    environment = uv_environment()
    bootstrap_uv()
    uv = str(VENV / "bin" / "uv")
    target = ["--python", str(PYTHON), "--quiet"]
    print("installing what requirements.lock names", flush=True)
    run(uv, "pip", "install", *target, "--require-hashes", "-r", str(LOCK), env=environment)
    run(uv, "pip", "install", *target, "--no-deps", "--no-build-isolation", "-e", str(ROOT), env=environment)
    STAMP.write_text(state)


def lock():
    """Pin the newest versions that fit pyproject.toml, for every system, without saying where they come from."""
    oldest = f"{OLDEST[0]}.{OLDEST[1]}"
    options = ["--universal", "--python-version", oldest, "--extra", "dev", "--generate-hashes", "--upgrade"]
    quiet = ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "requirements.lock"
        arguments = ["pip", "compile", "pyproject.toml", *options, *quiet, "-o", str(fresh)]
        run(str(VENV / "bin" / "uv"), *arguments, cwd=str(ROOT), env=uv_environment())
        text = fresh.read_text()
    if "://" in text:
        sys.exit("the new lock would name an address; nothing was changed")
    LOCK.write_text(text)


def wanted_state():
    """What a finished installation is recognised by."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def usable():
    """Whether `.venv` has a Python that runs, of our version, with pip."""
    if not PYTHON.exists():
        return False
    check = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return subprocess.run([str(PYTHON), "-c", check], stderr=subprocess.DEVNULL, check=False).returncode == 0


def bootstrap_uv():
    """Install the uv that the lock names, by its hashes."""
    found = re.search(r"^uv==(\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", LOCK.read_text(), re.MULTILINE)
    if found is None:
        sys.exit("requirements.lock names no uv")
    version = [str(PYTHON), "-c", "import importlib.metadata as m; print(m.version('uv'))"]
    present = subprocess.run(version, capture_output=True, text=True, check=False)
    if present.stdout.strip() == found.group(1):
        return
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder) / "uv.txt"
        requirement.write_text(found.group(0))
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        run(str(PYTHON), "-m", "pip", "install", *options, "-r", str(requirement))


def uv_environment():
    """Our environment, plus pip's configuration in uv's words where uv has not been told otherwise."""
    listing = [str(PYTHON), "-m", "pip", "config", "list"]
    text = subprocess.run(listing, stdout=subprocess.PIPE, text=True, check=True).stdout
    configured = {}
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.(\S+?)=(.*)$", text, re.MULTILINE):
            configured[name] = " ".join(ast.literal_eval(value).split())
    environment = dict(os.environ)
    for name, variable in PIP_TO_UV.items():
        if name in configured:
            environment.setdefault(variable, configured[name])
    if configured.get("no-index", "").lower() in ("1", "true", "yes"):
        environment.setdefault("UV_NO_INDEX", "1")
    return environment


def run(*command, **options):
    """Run a command; end with its exit code when it fails, as it has said why."""
    code = subprocess.run(command, check=False, **options).returncode
    if code != 0:
        sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
