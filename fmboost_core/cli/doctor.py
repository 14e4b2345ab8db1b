"""The command `doctor`: what FMBoost finds on this machine, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from typing import Any

from .arguments import add_device
from .console import OK
from .examine.finding import PROBLEM, Finding, guarded

FOUND_PROBLEMS = 1  # the exit code


def add_command(commands: Any) -> None:
    parser = commands.add_parser("doctor", help="check the installation, the models and the device")
    parser.description = (
        "Check what FMBoost needs, by using it: packages, devices, number types, model files, and a small picture "
        "enlarged. Paste the output into a bug report. Nothing is downloaded. The exit code is 1 if there is a problem."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    add_device(parser)
    parser.set_defaults(run=run, stopped="Stopped.")


def run(args: argparse.Namespace) -> int:
    began, findings = time.perf_counter(), []
    for finding in examine(args.device):
        findings.append(finding)
        if not args.json:
            print(f"{finding.state:<9}{finding.name:<17}{finding.text}", flush=True)
    problems = sum(finding.state == PROBLEM for finding in findings)
    seconds = time.perf_counter() - began
    if args.json:
        report = {"ok": not problems, "seconds": seconds, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, indent=1))
    else:
        print(f"{_verdict(problems)} {seconds:.1f} s.")
    return FOUND_PROBLEMS if problems else OK


def _verdict(problems: int) -> str:
    if not problems:
        return "All that is needed works."
    return f"{problems} problem{'s' if problems > 1 else ''}: the lines that begin with it say what to do."


def examine(device: str) -> Iterator[Finding]:
    """All findings, in the table's order. device: as --device takes it."""
    installation, again = _part("installation"), "install FMBoost again, with its packages"
    yield from guarded("fmboost", installation.installation, again)
    try:
        import_module("torch")
    except Exception as error:  # a build for other drivers or another processor raises OSError and others
        advice = "install it for your device (https://pytorch.org/get-started/locally)"
        yield Finding("torch", f"cannot be imported ({type(error).__name__}: {error})", PROBLEM, advice)
        return
    yield from guarded("torch", lambda: _part("compute").compute(device), again)
    yield from guarded("weights", lambda: _part("weights").weights(), again)


def _part(name: str) -> Any:
    """A module of `examine`, imported when it is looked at: what it needs may be missing."""
    return import_module(f"{__package__}.examine.{name}")
