"""Runs one server process that never outlives the program which asked for it.

Started by `tenantry.dev.process` as a script (`python -I -S guard.py SPEC`), so it uses the standard library alone.
The program holds the other end of our standard input: a byte on it is the number of a signal to pass to the server,
and its end means that the server has to go: the program closed it, saying so by a zero byte, or is gone, however it
went. (Its pid does not tell: the kernel closes a dying process's files before it gives its children a new parent.)

Why not PR_SET_PDEATHSIG on the server itself: the kernel sends that signal when the *thread* that forked ends, so a
server started from a thread pool would die with the thread; and macOS has no such thing. It is used here all the same,
one step down, against the death of this single-threaded guard.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
# A fast shutdown of PostgreSQL ends with a checkpoint; on a slow disk that takes a while.
GRACE = 30.0


def main() -> int:
    spec: dict[str, Any] = json.loads(sys.argv[1])
    if os.getppid() != spec["parent"]:
        return 1
    os.umask(0o077)
    woken, waker = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    asked_to_stop = False

    def on_stop_signal(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGCHLD, lambda *_: None)
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, on_stop_signal)

    stop_signal = int(spec["stop_signal"])
    me = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def die_with_guard() -> None:
        # Runs after the change of user, which would clear it.
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, stop_signal)
            if os.getppid() != me:
                os._exit(1)

    server = subprocess.Popen(  # noqa: S603
        spec["command"],
        stdin=subprocess.DEVNULL,
        stdout=sys.__stderr__,
        cwd=spec["cwd"],
        user=spec["user"],
        group=spec["group"],
        extra_groups=None if spec["user"] is None else [],
        pass_fds=spec["pass_fds"],
        preexec_fn=die_with_guard,  # noqa: PLW1509  (this process has one thread)
    )
    print(server.pid, flush=True)  # noqa: T201

    selector = selectors.DefaultSelector()
    selector.register(woken, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    orphaned = closed = False
    deadline: float | None = None
    while server.poll() is None:
        # The time-out is for a parent that died while a fork of it still holds our standard input open.
        for key, _ in selector.select(timeout=0.5):
            data = os.read(key.fd, 512)
            if key.fd == woken:
                continue
            if data:
                for number in data:
                    if number == 0:
                        closed = True
                    else:
                        server.send_signal(number)
            else:
                selector.unregister(0)
                orphaned = True
        orphaned = orphaned or os.getppid() != spec["parent"]
        if (orphaned or asked_to_stop) and deadline is None:
            deadline = time.monotonic() + GRACE
            server.send_signal(stop_signal)
        if deadline is not None and time.monotonic() > deadline:
            server.kill()
    if orphaned and not closed:
        delete(spec["delete_with_parent"])
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def delete(paths: list[str]) -> None:
    """Delete files and directories, and the directory that the first was in if that was all."""
    for path in paths:
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    if paths:
        # Not empty while another server's files are in it; the last one removes it.
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(paths[0]))


if __name__ == "__main__":
    sys.exit(main())
