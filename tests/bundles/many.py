"""Four hosts share a datalist, and a worker of one is killed: `make test-many`, as it takes minutes.

The hosts are namespaces of this machine's network, each with a name and an address of its own; they share its files, as
machines share a folder. What two processes of one host do, test_distributed_inference.py shows in the suite.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from .conftest import SMFUSION
from .test_distributed_inference import HERE, STOPS, content

HOSTS = range(4)
VICTIM = 2
PAIRS = 8
"""Two for each host."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(HOSTS)), "--nproc_per_node", "1"]


def ip(words, check=True):
    return subprocess.run(["ip", *words.split()], check=check, capture_output=True, text=True)


@pytest.fixture
def network():
    """Namespaces on a bridge; how they are called."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("network namespaces are made on Linux, by root, with `ip` of iproute2 and `unshare` of util-linux")
    tag = f"fn{os.getpid() % 100000}"
    made = ip(f"link add {tag} type bridge", check=False)
    if made.returncode:
        pytest.skip(f"this machine makes no bridge: {made.stderr.strip()}")
    names = [f"{tag}h{host}" for host in HOSTS]
    try:
        ip(f"link set {tag} up")
        for host, name in zip(HOSTS, names, strict=True):
            ip(f"netns add {name}")
            ip(f"link add {name} type veth peer name eth0 netns {name}")
            ip(f"link set {name} master {tag} up")
            ip(f"-n {name} addr add {address(host)}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} link set lo up")
        yield names
    finally:
        for name in names:
            ip(f"netns del {name}", check=False)
        ip(f"link del {tag}", check=False)


def address(host):
    return f"10.77.0.{host + 1}"


def start(network, words, log):
    """The same command on every host, as of a user who gives it there."""
    processes = []
    for host, name in zip(HOSTS, network, strict=True):
        torchrun = [*TORCHRUN, "--node_rank", str(host), "--master_addr", address(0), "--master_port", "29518"]
        inside = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh", *torchrun, *words]
        processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *inside],
                env={**HERE, "GLOO_SOCKET_IFNAME": "eth0"},
                stdout=log,
                stderr=log,
            )
        )
    return processes


def written(folder):
    """When, and as which file of the disk."""
    found = {path.relative_to(folder): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path): (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()}


def test_four_hosts_of_which_a_worker_is_killed(network, dataset_dir, tiny_weights, text_encoder, tmp_path):
    pairs = [
        {
            **{key: str(dataset_dir / "PET-MRI" / kind / "0.png") for key, kind in
               (("anatomy", "MRI"), ("overlay", "PET"))},
            "name": f"case{number}",
            "anatomy_text": f"a head, the {number}th",
            "overlay_text": "uptake",
        }
        for number in range(PAIRS)
    ]  # fmt: skip
    datalist, stops = tmp_path / "pairs.json", tmp_path / "stops.json"
    datalist.write_text(json.dumps(pairs))
    stops.write_text(json.dumps({**STOPS, "is_first": f"$os.environ['RANK'] == '{VICTIM}'"}))
    alone, together = tmp_path / "alone", tmp_path / "together"
    configs = ["inference.json", "evaluate.json"]
    options = {"datalist": str(datalist), "text_encoder_model": text_encoder}
    SMFUSION.fuse(tiny_weights, alone, configs, **options)

    def command(*more):
        names = (*configs, "multi_gpu_inference.json")
        files = [*(str(SMFUSION.configs / name) for name in names), *map(str, more)]
        given = {
            "bundle_root": SMFUSION.root,
            "network_def": SMFUSION.network_def,
            "weights": tiny_weights["smfusion"],
            "output_dir": together,
            **options,
        }
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return ["-m", "monai.bundle", "run", "--config_file", str(files), *words]

    def said():
        return (tmp_path / "log").read_text()[-6000:]

    victims = f"case{VICTIM + len(HOSTS)}"
    others = {f"case{number}.json" for number in range(PAIRS)} - {f"{victims}.json"}
    with (tmp_path / "log").open("w") as log:
        processes = start(network, command(stops), log)
        try:
            while not ((together / "stopped").is_file() and others == {p.name for p in cases(together)}):
                assert all(process.poll() is None for process in processes), said()
                time.sleep(0.05)
            os.kill(int((together / "stopped").read_text()), signal.SIGKILL)
            assert all(process.wait(120) != 0 for process in processes), said()
        finally:
            for process in processes:
                process.kill()
                process.wait()
    (together / "stopped").unlink()
    assert not (together / "metrics.csv").exists()
    done = {path: stat for path, stat in written(together).items() if victims not in path}
    assert len(done) >= 2 * len(others)

    with (tmp_path / "log").open("w") as log:
        processes = start(network, command(), log)
        assert [process.wait(300) for process in processes] == [0] * len(HOSTS), said()
    assert done.items() < written(together).items()  # nothing twice
    assert content(together) == content(alone)  # nothing lost, and the tables of one process


def cases(folder):
    return [path for path in folder.glob(".cases/*.json") if "partial" not in path.name]
