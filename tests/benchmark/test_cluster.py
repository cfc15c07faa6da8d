"""Sweeps on a real Ray cluster of two nodes on this machine, one of which is killed in the middle of a run."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gopro import benchmark
from gopro.errors import InputError
from gopro.runs.config import TransferConfig
from tests.support.fake_sweep import own_images

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="Ray is an extra: pip install '.[ray]'")

# Start a cluster of a head that does no work and two nodes of one CPU each, and print its address. Each number read
# from standard input is a node to kill with all its processes.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

store = {"object_store_memory": 100_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**store, "num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, **store) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes[int(line)], allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
"""


def figures(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    stable = [
        {key: value for key, value in row.items() if "seconds" not in key and "memory" not in key} for row in rows
    ]
    return sorted(stable, key=str)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TransferConfig:
    """Two runs of some seconds each, so that they can be killed in the middle; tests choose the output folder."""
    folder = tmp_path_factory.mktemp("data")
    return TransferConfig(
        output=Path(),
        source=own_images(folder / "pets"),
        targets=(own_images(folder / "cars"),),
        backbones=("emoji",),
        methods=("coop",),
        seeds=(1, 2),
        shots=(2,),
        epochs=30,
        batch=4,
        device="cpu",
        workers=0,
    )


@pytest.fixture(scope="module")
def whole(config: TransferConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the same sweep in one process and return its results."""
    folder = tmp_path_factory.mktemp("whole")
    assert not benchmark("cross-dataset", replace(config, output=folder)).failures
    return folder


@pytest.fixture
def cluster():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DISABLE_IMPORT_WARNING": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        address = process.stdout.readline().strip()
        assert address, "the cluster did not start"

        def kill(node: int) -> None:
            assert process.stdout is not None and process.stdin is not None
            process.stdin.write(f"{node}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "killed\n"

        yield address, kill, process.pid
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def ray_workers(cluster: int) -> set[int]:
    """Return the ids of the cluster's processes that are doing a run."""
    pids = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            session = int(stat.read_text().rpartition(")")[2].split()[3])
            if session == cluster and b"ray::_work" in stat.with_name("cmdline").read_bytes():
                pids.add(int(stat.parent.name))
    return pids


@pytest.mark.parametrize("lost", ["a machine", "a process"])
def test_a_cluster_that_loses_a_worker_gives_the_results_of_one_process(
    lost: str, cluster, config: TransferConfig, tmp_path: Path, whole: Path
) -> None:
    address, kill, session = cluster
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from gopro import TransferConfig, benchmark
        config = {replace(config, output=tmp_path / "ray", ray=address)!r}
        print(len(benchmark("cross-dataset", config).failures))
        """
    ).replace("PosixPath", "Path")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as sweep:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("ray/runs/*/resume.safetensors"))) < 2:  # both workers are at a run
            assert time.monotonic() < deadline and sweep.poll() is None, "the runs did not start"
            time.sleep(0.05)
        if lost == "a machine":
            kill(0)
        else:
            os.kill(ray_workers(session).pop(), signal.SIGKILL)
        assert not (tmp_path / "ray" / "results.jsonl").exists()
        printed, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0 and "0" in printed.splitlines()  # among lines that Ray may print
    assert figures(tmp_path / "ray" / "results.jsonl") == figures(whole / "results.jsonl")


def test_runs_fail_when_the_cluster_has_lost_all_machines(cluster, config: TransferConfig, tmp_path: Path) -> None:
    address, kill, _ = cluster
    config = replace(config, output=tmp_path / "ray", ray=address)
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from gopro import TransferConfig, benchmark
        from gopro.benchmark import cluster
        cluster.POLL_SECONDS, cluster.GIVE_UP_SECONDS = 0.5, 3.0
        result = benchmark("cross-dataset", {config!r})
        print(sorted({{failure["error"] for failure in result.failures}}), len(result.failures))
        """
    ).replace("PosixPath", "Path")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as sweep:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("ray/runs/*/config.json"))) < 2:
            assert time.monotonic() < deadline and sweep.poll() is None, "the runs did not start"
            time.sleep(0.05)
        kill(0)
        kill(1)
        printed, _ = sweep.communicate(timeout=120)
    assert printed.strip().endswith("['the cluster has lost all machines that could do it'] 2")


def test_a_run_too_large_for_any_machine_is_refused(cluster, config: TransferConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs 4 CPUs and 0 GPUs on one machine, and no machine has them"):
        benchmark("cross-dataset", replace(config, output=tmp_path, ray=cluster[0], workers=3))


def test_an_address_without_a_cluster_is_refused(config: TransferConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--ray 127\.0\.0\.1:1: no cluster answers there"):
        benchmark("cross-dataset", replace(config, output=tmp_path, ray="127.0.0.1:1"))
