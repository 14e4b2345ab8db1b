"""A host's server as a child process: started on a free port of this machine, spoken to in JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PACK = Path(__file__).parents[2]
START_SECONDS = 600
HIDDEN = ("PYTHONPATH", "http_proxy", "HTTP_PROXY")  # of our own environment: the host must not see them


class Refused(Exception):
    """The host answered with an error; the message is its answer."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """Running from `__init__` to `stop`; what it prints is in `log`."""

    said_at_the_end = ""  # of the start, by a host that answers before it is ready

    def __init__(self, command: Sequence[Any], checkout: Path, log: Path, port: int, ready: str, **env: str) -> None:
        """ready: a path of the server's that answers once it has started."""
        self.port, self.log = port, log
        kept = {k: v for k, v in os.environ.items() if k not in HIDDEN}
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [str(part) for part in command], cwd=checkout, stdout=file, stderr=subprocess.STDOUT, env=kept | env
            )
        try:
            self._wait(ready)
        except BaseException:
            self.stop()
            raise

    def _wait(self, ready: str) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"The host ended at once:\n{self.log.read_text()[-2000:]}")
            # AUTOMATIC1111 ends where a request comes before its start has ended.
            if self.said_at_the_end in self.log.read_text():
                with contextlib.suppress(OSError, Refused):
                    self.get(ready)
                    return
            time.sleep(1)
        raise TimeoutError(self.log.read_text()[-2000:])

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def get(self, path: str) -> Any:
        return self._ask(urllib.request.Request(self.url(path)), 60)

    def post(self, path: str, data: Any = None, timeout: float = 60) -> Any:
        body = json.dumps(data or {}).encode()
        return self._ask(urllib.request.Request(self.url(path), body, {"Content-Type": "application/json"}), timeout)

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def _ask(self, request: urllib.request.Request, timeout: float) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from None
        return json.loads(text) if text else None


@dataclass
class Memory:
    """How far a process's resident memory rose, and what of it was still there at the end, in MB."""

    rise: int = 0
    kept: int = 0


@contextlib.contextmanager
def peak_memory(pid: int) -> Iterator[Memory]:
    """Watch another process's memory, by what Linux counts of it."""
    process = Path(f"/proc/{pid}")
    if not process.exists():
        pytest.skip("needs /proc, which counts a process's memory")

    def megabytes(name: str) -> int:
        return int(re.findall(rf"{name}:\s+(\d+) kB", (process / "status").read_text())[0]) // 1024

    (process / "clear_refs").write_text("5")  # the peak begins anew
    before, memory = megabytes("VmRSS"), Memory()
    yield memory
    memory.rise, memory.kept = megabytes("VmHWM") - before, megabytes("VmRSS") - before
