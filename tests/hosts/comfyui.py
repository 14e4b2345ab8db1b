"""A real ComfyUI as a child process: started on a free port, spoken to as its page does."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

from .server import PACK, Server, free_port

RUN_SECONDS = 300

Graph = dict[str, dict[str, Any]]


@dataclass
class Run:
    """What came of a graph: files by node, the dialog's text if it failed, and the host's messages on the way."""

    outputs: dict[str, Any]
    error: str | None
    messages: list[dict[str, Any]] = field(default_factory=list)
    previews: int = 0
    seconds: float = 0.0

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [m["data"] for m in self.messages if m["type"] == kind]


class ComfyUI(Server):
    """A host with a base directory of its own, in which only this pack is installed."""

    def __init__(self, host: Path, python: str, base: Path, *options: str) -> None:
        self.base, port = base, free_port()
        for name in ("custom_nodes", "models/vae_approx", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (base / "custom_nodes" / "FMBoost").symlink_to(PACK)
        command = [python, "main.py", "--cpu", "--port", port, "--base-directory", base, *options]
        super().__init__(command, host, base / "log.txt", port, "/system_stats")

    def run(self, graph: Graph, interrupt_after: int = 0) -> Run:
        """Queue a graph and follow it to its end; interrupt it after so many progress messages."""
        client = f"test-{time.monotonic_ns()}"
        page = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", timeout=RUN_SECONDS)
        with contextlib.closing(page):
            started = time.monotonic()
            prompt = self.post("/prompt", {"prompt": graph, "client_id": client})["prompt_id"]
            run, seen = Run({}, None), 0
            while True:
                raw = page.recv()
                if isinstance(raw, bytes):
                    run.previews += raw[:4] in (b"\0\0\0\1", b"\0\0\0\4")
                    continue
                message = json.loads(raw)
                if message.get("data", {}).get("prompt_id", prompt) != prompt:
                    continue
                run.messages.append(message)
                seen += message["type"] == "progress"
                if interrupt_after and seen == interrupt_after:
                    self.post("/interrupt")
                    interrupt_after = 0
                if message["type"] == "execution_error":
                    run.error = message["data"]["exception_message"].strip()
                if message["type"] in ("execution_error", "execution_interrupted", "execution_success"):
                    break
        run.seconds = time.monotonic() - started
        for _ in range(50):
            history = self.get(f"/history/{prompt}")
            if prompt in history:
                run.outputs = history[prompt]["outputs"]
                break
            time.sleep(0.1)
        return run

    def file(self, run: Run, node: str, kind: str) -> Path:
        """The first file that a Save node wrote."""
        entry = run.outputs[node][kind][0]
        return self.base / entry["type"] / entry["subfolder"] / entry["filename"]
