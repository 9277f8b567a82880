"""Two hosts on this machine, and a cable between them.

A host is a set of namespaces: a network, a name, process numbers and a /dev/shm of its own. Nothing but its processes
keeps them, and those end with this process, however that ends: there is nothing to remove, and tests run in parallel.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

INTERFACE = "veth0"
os.environ["PATH"] += ":/usr/sbin:/sbin"  # where ip and tc lie; not every user looks there


class NotPermitted(Exception):
    """There can be no such hosts here, and why."""


def become_root() -> None:
    """Starts this program again with root's rights over namespaces of its own, where a user without them may."""
    outer = ["unshare", "--user", "--map-root-user"]
    if os.geteuid() != 0 and subprocess.run([*outer, "true"], stderr=subprocess.DEVNULL).returncode == 0:
        os.execvp(outer[0], [*outer, sys.executable, "-B", *sys.argv])


class Host:
    def __init__(self, name: str, address: str) -> None:
        self.address = address
        # The first process of the host ends when its standard input does, and takes all others with it.
        set_up = (f"hostname {name} && mount -t tmpfs none /dev/shm && ip link set lo up && "
                  "echo ready && exec cat")
        self.unshare = subprocess.Popen(
            ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh",
             "-c", set_up], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.unshare.stdout.readline() != "ready\n":
            raise NotPermitted(self.unshare.communicate()[1].strip())
        parent = self.unshare.pid
        self.first = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
        self.proc = Path("/proc", str(self.first))

    def end(self) -> None:
        self.unshare.stdin.close()
        self.unshare.wait()

    def start(self, *command, env: dict[str, str] | None = None) -> subprocess.Popen:
        enter = ["nsenter", "--target", self.first, "--net", "--uts", "--ipc", "--mount", "--pid", "--"]
        return subprocess.Popen([str(part) for part in (*enter, *command)], env=os.environ | (env or {}), text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def network(self, command: str, *last: str) -> None:
        """Runs ip or tc, to which the numbers of processes are what they are outside."""
        result = subprocess.run(["nsenter", "--target", str(self.first), "--net", *command.split(), *last],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if result.returncode != 0:
            raise NotPermitted(f"{command}: {result.stderr.strip()}")

    def plug(self) -> None:
        self.network(f"ip link set {INTERFACE} up")

    def unplug(self) -> None:
        self.network(f"ip link set {INTERFACE} down")

    def lose(self, share: float) -> None:
        """Loses that share of the packets that this host sends or, where the kernel has no netem, receives."""
        try:
            self.network(f"tc qdisc add dev {INTERFACE} root netem loss {100 * share}%")
        except NotPermitted:
            # On arrival, since a sender would see what is dropped before it has left. The program: load a random
            # number; below the limit drop (2), else pass (0).
            limit = min(int(share * 2**32), 2**32 - 1)
            self.network(f"tc qdisc add dev {INTERFACE} clsact")
            self.network(f"tc filter add dev {INTERFACE} ingress bpf direct-action bytecode",
                         f"4,32 0 0 4294963256,53 1 0 {limit},6 0 0 2,6 0 0 0")

    def slow_down(self) -> None:
        """10 Mbit/s, and where the kernel has netem packets take 10 ms."""
        try:
            self.network(f"tc qdisc add dev {INTERFACE} root netem rate 10mbit delay 10ms")
        except NotPermitted:
            self.network(f"tc qdisc add dev {INTERFACE} root tbf rate 10mbit burst 32kbit latency 400ms")

    def sent_again(self) -> int:
        """TCP segments that this host has sent more than once."""
        names, values = (line.split() for line in (self.proc / "net/snmp").read_text().splitlines()
                         if line.startswith("Tcp:"))
        return int(values[names.index("RetransSegs")])

    def left_over(self) -> list[str]:
        """Processes beside the first, and shared memory."""
        found = os.listdir(self.proc / "root" / "dev" / "shm")
        here = os.readlink(self.proc / "ns/pid")
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if int(process.name) != self.first and os.readlink(process / "ns/pid") == here:
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found


@contextlib.contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """host0 and host1, each with one end of a cable."""
    for program, package in (("ip", "iproute2"), ("tc", "iproute2"), ("hostname", "hostname")):
        if shutil.which(program) is None:
            raise NotPermitted(f"there is no '{program}' (package {package})")
    with contextlib.ExitStack() as at_end:
        hosts = []
        for number in range(2):
            hosts.append(Host(f"host{number}", f"10.77.0.{number + 1}"))
            at_end.callback(hosts[-1].end)
        hosts[0].network(f"ip link add {INTERFACE} type veth peer name {INTERFACE} netns {hosts[1].first}")
        for host in hosts:
            host.network(f"ip address add {host.address}/24 dev {INTERFACE}")
            host.plug()
        yield hosts
