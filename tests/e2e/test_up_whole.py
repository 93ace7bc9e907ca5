"""`make up` with the real API and workers, and the command that it prints."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.installation import up


def test_the_printed_curl_works_unchanged(tmp_path: Path) -> None:
    """The command that `make up` prints, copied into a shell, returns the event."""
    with up(tmp_path / "data", (sys.executable, "-m", "spine.supervisor")) as running:
        curl = re.search(r"^  (curl .*\}')$", running.log.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert curl is not None
        answer = subprocess.run(["sh", "-c", curl[1]], capture_output=True, text=True, timeout=30, check=True)
        event = json.loads(answer.stdout)
        assert event["type"] == "order.paid"
        assert event["id"].startswith("evt_")
