"""`spine demo` on a running installation: the suite's own story, from the call to the verified webhooks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spine.cli.demo.command import EXPECTED
from tests.e2e.installation import ROOT, environment, up


@pytest.mark.timeout(240)
def test_the_story_runs_twice_in_one_workspace(tmp_path: Path) -> None:
    """Every act ends as it must, over REST, hosted pages and MCP; each of its events arrives, verified; so does a second run."""
    with up(tmp_path / "data", (sys.executable, "-m", "spine.supervisor")) as running:
        for _ in range(2):
            done = subprocess.run(
                (sys.executable, "-m", "spine.cli", "demo", "--json"),
                env=os.environ | environment(running.directory, running.port),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
            assert {step["door"] for step in told["steps"]} == {"REST", "MCP", "page", "clock"}
            assert set(EXPECTED) <= set(told["webhooks"])
            assert told["refused"] == 0
