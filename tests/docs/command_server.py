"""`tenantry`, a process for each command, without the two seconds that importing it takes each time.

`python -m tests.docs.command_server SOCKET LOGS [MIGRATIONS]` imports the command line once and forks for each command:
the child has the caller's stdin, stdout, stderr, folder and environment, and is otherwise what `python -m tenantry.cli`
would be. Processes that go on (`serve`, `provisioner`, `worker`) log into LOGS, are not waited for, and end with this
one. With MIGRATIONS it is the release that has this folder of migrations. `shim` writes the program
that stands in the PATH as `tenantry`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from tenantry.dev.process import wait_until

__all__ = ("SERVICES", "shim")

SERVICES = frozenset({"serve", "provisioner", "worker"})

# As long as the API gives to requests under way.
_GRACE = 20.0

_SHIM = """\
#!{python} -IS
import json, os, socket, sys
call = socket.socket(socket.AF_UNIX)
call.connect({address!r})
text = json.dumps({{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
socket.send_fds(call, [len(text).to_bytes(4, "big")], [0, 1, 2])
call.sendall(text)
code = call.recv(1)
sys.exit(code[0] if code else 137)
"""


def shim(path: Path, address: Path) -> None:
    """Write the program that has its command done by the server at `address`."""
    path.write_text(_SHIM.format(python=sys.executable, address=str(address)))
    path.chmod(0o755)


class _Server:
    def __init__(self, address: str, logs: Path) -> None:
        self.logs = logs
        self.services: list[int] = []
        self.children: set[int] = set()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(address)
        self.socket.listen(16)

    def run(self) -> None:
        """Until SIGTERM."""
        try:
            while True:
                call, _ = self.socket.accept()
                with call:
                    self._answer(call)
                self.children = {child for child in self.children if not _ended(child)}
        finally:
            for service in self.services:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(service, signal.SIGTERM)
            for service in self.services:
                if not wait_until(lambda pid=service: _ended(pid), _GRACE):  # type: ignore[misc]
                    os.kill(service, signal.SIGKILL)

    def _answer(self, call: socket.socket) -> None:
        length, descriptors, _, _ = socket.recv_fds(call, 4, 3)
        text = b""
        while len(text) < int.from_bytes(length, "big"):
            text += call.recv(65536)
        request: dict[str, Any] = json.loads(text)
        command = request["arguments"][:1]
        goes_on = bool(SERVICES.intersection(command)) and "--help" not in request["arguments"]
        if goes_on:
            # Who called does not wait for it, nor for the end of its output.
            with (self.logs / f"{command[0]}.log").open("ab") as log:
                descriptors = [*descriptors[:1], os.dup(log.fileno()), os.dup(log.fileno()), *descriptors[1:]]
        if child := os.fork():
            if goes_on:
                self.services.append(child)
                call.sendall(b"\0")
            else:
                self.children.add(child)
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            self.socket.close()
            _command(call, descriptors, request, in_background=goes_on)


def _ended(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG) != (0, 0)


def _command(call: socket.socket, descriptors: list[int], request: dict[str, Any], *, in_background: bool) -> None:
    """In the child: do it, tell the caller the exit code, and end without what the parent would do at its end."""
    from tenantry.cli import tenantry

    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
        for descriptor in descriptors:
            os.close(descriptor)
        if in_background:
            call.close()
        os.chdir(request["folder"])
        # What a service executes in its place is of this tree as well.
        path = os.environ["PYTHONPATH"]
        os.environ.clear()
        os.environ.update(request["environment"], PYTHONPATH=path)
        sys.argv = ["tenantry", *request["arguments"]]
        tenantry.main(args=request["arguments"], prog_name="tenantry")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        if not in_background:
            call.sendall(bytes([code & 255]))
        os._exit(code)


def main(address: str, logs: str, migrations: str | None = None) -> None:
    from tenantry.cli import _COMMANDS

    for module, _ in _COMMANDS.values():
        importlib.import_module(module)
    # What commands import when they are called.
    for module in ("tenantry.features", "tenantry.cli.control", "tenantry.cli.transfer", "tenantry.cli.doctor_report"):
        importlib.import_module(module)
    if migrations is not None:
        from tests.tree import come_into_force

        come_into_force(Path(migrations))
    gc.freeze()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _Server(address, Path(logs)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
