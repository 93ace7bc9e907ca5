"""`make up` as a person meets it: the real API and workers, and the command that it prints."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.installation import up


def test_the_printed_curl_works_as_it_stands(tmp_path: Path) -> None:
    """Copied from the terminal into a shell, the command that `make up` prints is answered with the event."""
    with up(tmp_path / "data", (sys.executable, "-m", "spine.supervisor")) as running:
        curl = re.search(r"^  (curl .*\}')$", running.log.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert curl is not None
        answer = subprocess.run(["sh", "-c", curl[1]], capture_output=True, text=True, timeout=30, check=True)
        event = json.loads(answer.stdout)
        assert event["type"] == "order.paid"
        assert event["id"].startswith("evt_")
