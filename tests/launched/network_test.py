#!/usr/bin/env python3
"""Runs over two hosts of two ranks each, whose network is whole, cut, lossy or slow.

    network_test.py OPTP CASE
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train_runs import SMALL, metrics, run, token_file
from two_hosts import INTERFACE, Host, NotPermitted, become_root, two_hosts

TP_4 = ("--tp", 4)                  # every group is spread over both hosts
TP_2_DP_2 = ("--tp", 2, "--dp", 2)  # tensor-parallel ranks share a host, and memory
TIMEOUT = 10
PORT = 29500  # each pair of hosts has ports of its own


def training(folder: Path, mesh: tuple, steps: int, timeout: int = 60) -> list:
    if not (folder / "ids.npy").exists():
        token_file(folder / "ids.npy", 99, 100)
    return ["train", *SMALL, *mesh, "--train-data", folder / "ids.npy", "--max-steps", steps, "--timeout", timeout]


def launchers(hosts: list[Host], optp: Path, command: list) -> list[subprocess.Popen]:
    """The command's ranks, two on each host."""
    return [host.start(optp, "launch", "--nnodes", 2, "--nproc-per-node", 2, "--node-rank", node, "--master-addr",
                       hosts[0].address, "--master-port", PORT, "--", optp, *command, "--interface", INTERFACE)
            for node, host in enumerate(hosts)]


def lone_ranks(hosts: list[Host], optp: Path, command: list) -> list[subprocess.Popen]:
    """The same ranks, as another launcher would start them."""
    world = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": hosts[0].address, "MASTER_PORT": str(PORT)}
    return [hosts[rank // 2].start(optp, *command, "--interface", INTERFACE,
                                   env=world | {"RANK": str(rank), "LOCAL_RANK": str(rank % 2)}) for rank in range(4)]


def ends(processes: list[subprocess.Popen], status: int, seconds: float = 100) -> list[str]:
    """What each says on standard error, once all have ended within that time, with that status."""
    deadline = time.monotonic() + seconds
    errors = [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1] for process in processes]
    for process, error in zip(processes, errors):
        assert process.returncode == status, f"exit {process.returncode}, not {status}: {error}"
    return errors


def wait_for_step(output: Path, step: int, process: subprocess.Popen) -> None:
    while not (output / "metrics.jsonl").exists() or len(metrics(output)) < step:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def same_training(output: Path, expected: Path) -> None:
    for value in ("loss", "grad_norm"):
        assert [line[value] for line in metrics(output)] == [line[value] for line in metrics(expected)], value
    model = Path("final/model.safetensors")
    assert (output / model).read_bytes() == (expected / model).read_bytes()


def train_on_two_hosts(hosts: list[Host], optp: Path, folder: Path, mesh: tuple, comm: str, steps: int = 20) -> Path:
    """Trains on one host, where ranks talk in that way, and on two: the same numbers, bit for bit."""
    command = training(folder, mesh, steps)
    here, there = (folder / f"{where}-{len(mesh)}" for where in ("one-host", "two-hosts"))
    run(optp, *command, "--comm", comm, "--output", here)
    first, _ = ends(launchers(hosts, optp, [*command, "--output", there]), 0)
    assert re.search(r"collectives over Gloo: rank \d runs on another host than rank 0", first), first
    same_training(there, here)
    assert not any(host.left_over() for host in hosts)
    return there


def train(optp: Path, folder: Path) -> None:
    with two_hosts() as hosts:
        train_on_two_hosts(hosts, optp, folder, TP_4, "gloo")
        # Over the cable two ranks add: the order in which shared memory and Gloo add makes no difference.
        train_on_two_hosts(hosts, optp, folder, TP_2_DP_2, "auto")


def verify(optp: Path, folder: Path) -> None:
    command = ["verify", *SMALL[:SMALL.index("--batch-size")], "--threads", 1, *TP_4, "--timeout", 60, "--json",
               folder / "result.json", "--report", folder / "report.txt"]
    with two_hosts() as hosts:
        ends(launchers(hosts, optp, command), 0)
        assert not any(host.left_over() for host in hosts)
    result = json.loads((folder / "result.json").read_text())
    assert result["verdict"] == "pass" and (result["tp"], result["dp"]) == (4, 1), result
    assert len(result["checks"]) >= 7 and all(check["verdict"] == "pass" for check in result["checks"]), result
    report = (folder / "report.txt").read_text()
    assert "tp 4 x dp 1, a process a rank, over Gloo" in report and report.rstrip().endswith("Verdict: PASS"), report


LOST_RANKS = r"failed on rank \d of \d of the \w+ group: " + "; ".join(
    rf"rank {rank} \(process \d+ on host1\) has stopped or cannot be reached, last seen at [^;]+" for rank in (2, 3))
NODE_1_IS_LOST = "optp: node 1 (host host1) has been silent for 10 s: its launcher has died or the network between " \
                 "the hosts is cut"
NODE_0_IS_LOST = r"optp: (node 0's launcher has not answered for 10 s: it hangs, or|the launcher of node 0 at " \
                 r"10\.77\.0\.1 port 29500 has gone: it has died or) the network between the hosts is cut"


def cut_cable(optp: Path, folder: Path) -> None:
    """Both hosts notice, say so and end: where a plug is pulled, and where packets vanish on the way."""
    with contextlib.ExitStack() as at_end:
        runs = []
        for start, mesh in ((launchers, TP_4), (launchers, TP_2_DP_2), (lone_ranks, TP_4)):
            hosts, output = at_end.enter_context(two_hosts()), folder / f"run{len(runs)}"
            runs.append((hosts, start(hosts, optp, [*training(folder, mesh, 100000, TIMEOUT), "--output", output])))
            wait_for_step(output, 20, runs[-1][1][0])
        (unplugged, *_), (silent, *_), (alone, *_) = runs
        unplugged[0].unplug()
        for host in silent:
            host.lose(1)
        alone[1].unplug()
        cut = time.monotonic()
        for hosts, processes in runs:
            errors = ends(processes, 3, cut + TIMEOUT + 10 - time.monotonic())
            assert not any(host.left_over() for host in hosts), [host.left_over() for host in hosts]
            assert re.search(LOST_RANKS, errors[0]), errors[0]
            if hosts is alone:
                assert re.search(LOST_RANKS, errors[1]), errors[1]
                for rank in (2, 3):  # for whom all others are gone
                    assert re.fullmatch(rf"optp: \w+ at .+ failed on rank {rank} of 4 of the tensor group: .+\n",
                                        errors[rank]), errors[rank]
            else:
                assert errors[0].splitlines()[-1] == NODE_1_IS_LOST, errors[0]
                assert re.fullmatch(NODE_0_IS_LOST, errors[1].splitlines()[-1]), errors[1]


def mended_cable(optp: Path, folder: Path) -> None:
    """A cable that was out for less than the time limit only costs time."""
    command = training(folder, TP_4, 60)
    run(optp, *command, "--comm", "gloo", "--output", folder / "one-host")
    output = folder / "two-hosts"
    with two_hosts() as hosts:
        processes = launchers(hosts, optp, [*command, "--output", output])
        wait_for_step(output, 20, processes[0])
        hosts[0].unplug()
        time.sleep(1)
        reached = len(metrics(output))
        time.sleep(2)
        assert len(metrics(output)) == reached < 60
        hosts[0].plug()
        ends(processes, 0)
    same_training(output, folder / "one-host")


def lossy_link(optp: Path, folder: Path) -> None:
    with two_hosts() as hosts:
        for host in hosts:
            host.lose(0.02)
        train_on_two_hosts(hosts, optp, folder, TP_4, "gloo")
        again = sum(host.sent_again() for host in hosts)
        assert again > 150, again  # some 50 where nothing is lost, 500 here


def slow_link(optp: Path, folder: Path) -> None:
    with two_hosts() as hosts:
        for host in hosts:
            host.slow_down()
        output = train_on_two_hosts(hosts, optp, folder, TP_4, "gloo", steps=10)
        # 0.25 MB a step each way.
        assert sum(line["step_seconds"] for line in metrics(output)) > 10 * 0.15


if __name__ == "__main__":
    become_root()
    cases = {case.__name__: case for case in (train, verify, cut_cable, mended_cable, lossy_link, slow_link)}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")  # nothing stays in the user's
        try:
            cases[sys.argv[2]](Path(sys.argv[1]).resolve(), Path(temporary))
        except NotPermitted as why:
            print(f"skipped: no two hosts could be made here: {why}")
            sys.exit(77)  # SKIP_RETURN_CODE
    print("ok")
