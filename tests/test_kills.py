"""Real processes, killed at random moments; tests/campaign/kills.py does it many times."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parent / "campaign" / "kills.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_commands_go_on_and_leave_nothing_half_written() -> None:
    command = [sys.executable, str(CAMPAIGN), "--count", "4"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0 and "4 kills, no fault" in run.stdout, run.stdout + run.stderr
