"""How soon a gateway serves: from the start of its process to the first 200 of ``/v1/health``, the database being up.

Run it from the repository's root as ``python -m tests.bench.start``. It prints a table and writes
build/bench/start.json. What loading the code takes is measured apart, since it is most of it.
"""

import statistics
import subprocess
import sys
import time

import httpx2 as httpx

from loam_gateway.migrations import upgrade

from ..services._servers import embedded
from ..services.gateway._platform import GatewayProcess, LocalBedrock, Servers
from .figures import write

TIMES = 9


def main() -> None:
    with (
        embedded.scratch_folder() as folder,
        embedded.postgres() as postgres,
        embedded.valkey() as redis_url,
        embedded.seaweedfs("admin", "adminsecret") as s3_endpoint,
    ):
        upgrade(postgres.url("postgres"))
        bedrock = LocalBedrock(folder)
        servers = Servers(postgres.url("postgres"), redis_url, s3_endpoint, bedrock.url)
        starts = sorted(start(GatewayProcess(folder, servers)) for _ in range(TIMES))
        bedrock.stop()
    imports = sorted(loading() for _ in range(TIMES))
    figures = {
        "seconds_p50": statistics.median(starts),
        "seconds_worst": starts[-1],
        "loading_seconds_p50": statistics.median(imports),
    }
    write("start", figures)
    for name, value in figures.items():
        print(f"{name:22} {value:6.2f}")


def start(gateway: GatewayProcess) -> float:
    """Seconds until it serves."""
    began = time.monotonic()
    with gateway.popen() as process, httpx.Client() as client:
        while not healthy(client, f"{gateway.public}/v1/health"):
            time.sleep(0.005)
        took = time.monotonic() - began
        process.terminate()
        process.communicate(timeout=20)
    return took


def healthy(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def loading() -> float:
    """Seconds to load all that serving needs."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import loam_gateway.server"], check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
