"""The quickstart of the README, run unchanged."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.installation import ROOT, free_port, until, up

_QUICKSTART = re.compile(r"^## Quickstart$(.*?)^## ", flags=re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(180)
def test_the_quickstart_works_as_printed(tmp_path: Path) -> None:
    """Every command of the quickstart runs as printed (except the ports), and its receiver verifies the three events.

    The receiver is the one of the README. It verifies with the `standardwebhooks` package.
    """
    with up(tmp_path / "data", (sys.executable, "-m", "spine.supervisor")) as running:
        hooks = free_port()
        found = _QUICKSTART.search((ROOT / "README.md").read_text())
        assert found is not None
        section = (
            found[1]
            .replace(":8080", f":{running.port}")
            .replace("127.0.0.1:9000", f"127.0.0.1:{hooks}")
            .replace(", 9000)", f", {hooks})")
        )
        blocks = [(match[1], match[2]) for match in _BLOCK.finditer(section)]
        directory = tmp_path / "quickstart"
        directory.mkdir()
        before = [code for kind, code in blocks[:2]]
        (directory / "receiver.py").write_text(next(code for kind, code in blocks if kind == "python"))
        after = [code for kind, code in blocks[3:] if kind == "sh"]
        _sh("".join(before), directory)
        printed = directory / "printed.txt"
        with printed.open("w") as output:
            receiver = subprocess.Popen([sys.executable, "receiver.py"], cwd=directory, stdout=output)
        try:
            _sh("".join([before[0].splitlines()[0] + "\n", before[0].splitlines()[-1] + "\n", *after]), directory)
            expected = {"message.created", "message.sent", "message.delivered"}
            until(lambda: expected <= {line.split()[0] for line in printed.read_text().splitlines()}, 20)
            assert {line.split()[1][:4] for line in printed.read_text().splitlines()} == {"msg_"}
        finally:
            receiver.terminate()
            receiver.wait(timeout=10)


def _sh(script: str, directory: Path) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
