"""Machines for a drill: each with a network in which it reaches one hub and nobody else, and with a disk of its own.

They are network namespaces of this machine (Linux manual: network_namespaces(7)), so that it takes root, and iproute2.
What is started on a worker has a file system of its own mounted at ``disk``: the path is the same on every machine, and
each sees its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import socketserver
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: The address by which every machine reaches the hub. Nothing of it leaves the namespaces.
HUB = "10.77.0.1"
_ON_ITS_DISK = """
mount -t tmpfs -o mode=755 none "$0"
cp -r "$1" "$0/project"
mkdir -m 1777 "$0/tmp"
cd "$0/project"
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One network namespace."""

    namespace: str
    disk: Path

    def start(self, command: Sequence[str], *, image: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a command on an empty disk that holds a copy of ``image`` as its folder ``project``, and work there."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, "sh", "-ec", _ON_ITS_DISK, str(self.disk), str(image), *command],
            env={**environment, "TMPDIR": str(self.disk / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def lose(self) -> None:
        """Kill every process of this machine, at once and for good; its disk goes with the last one."""
        while pids := _run("ip", "netns", "pids", self.namespace).split():
            assert str(os.getpid()) not in pids
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            for pid in pids:
                with suppress(ChildProcessError):
                    os.waitpid(int(pid), 0)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and what it starts meanwhile, is in the network of the machine."""
        with (
            Path("/proc/thread-self/ns/net").open() as here,
            Path(f"/run/netns/{self.namespace}").open() as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())


@contextmanager
def machines(disk: Path, *, workers: int) -> Iterator[tuple[Machine, list[Machine]]]:
    """A hub, which works on this machine's disk, and workers, which have their own; all is removed at the end."""
    token = uuid.uuid4().hex[:6]
    disk.mkdir()
    with ExitStack() as made:
        hub = _machine(f"hub-{token}", disk, made)
        _run("ip", "-n", hub.namespace, "address", "add", f"{HUB}/32", "dev", "lo")
        found = []
        for number in range(1, workers + 1):
            worker = _machine(f"w{number}-{token}", disk, made)
            ends = f"hub{number}", "eth0"
            _run(
                *("ip", "-n", hub.namespace, "link", "add", ends[0], "type", "veth"),
                *("peer", "name", ends[1], "netns", worker.namespace),
            )
            for machine, end, host in ((hub, ends[0], 1), (worker, ends[1], 2)):
                _run("ip", "-n", machine.namespace, "address", "add", f"10.77.{number}.{host}/30", "dev", end)
                _run("ip", "-n", machine.namespace, "link", "set", end, "up")
            _run("ip", "-n", worker.namespace, "route", "add", f"{HUB}/32", "via", f"10.77.{number}.1")
            found.append(worker)
        yield hub, found


@contextmanager
def reached(port: int) -> Iterator[None]:
    """What listens on 127.0.0.1 alone is reached by the same port of the hub's address; called inside the hub."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as there:
                other = threading.Thread(target=_pump, args=(there, self.request), daemon=True)
                other.start()
                _pump(self.request, there)
                other.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = allow_reuse_address = True

    with Server((HUB, port), Relay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def _pump(source: socket.socket, to: socket.socket) -> None:
    """Until one of them ends; the other one is told."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            to.sendall(data)
    for one in (source, to):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _machine(namespace: str, disk: Path, made: ExitStack) -> Machine:
    machine = Machine(namespace=namespace, disk=disk)
    _run("ip", "netns", "add", namespace)
    made.callback(_run, "ip", "netns", "delete", namespace)
    made.callback(machine.lose)
    _run("ip", "-n", namespace, "link", "set", "lo", "up")
    return machine


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
