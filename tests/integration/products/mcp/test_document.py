"""The commands and the program of docs/mcp.md, run as printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.api import Api, Organisation
from tests.servers import ROOT

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def test_the_document_works_as_printed(api: Api, org: Organisation, tmp_path: Path) -> None:
    """The commands make a narrow key and list its tools, and the program prints what the document says."""
    blocks = {match[1]: match[2] for match in _BLOCK.finditer((ROOT / "docs/mcp.md").read_text())}
    (tmp_path / "agent.py").write_text(blocks["python"])
    environment = os.environ | {"SPINE": api.url, "KEY": org.test.key, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    script = f"{blocks['sh']}\n{sys.executable} agent.py"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names, id, refused = done.stdout.splitlines()
    listed = json.loads((tmp_path / "tools.json").read_text())["result"]["tools"]
    assert names == str([tool["name"] for tool in listed])
    assert "crm_create_contact" in names
    assert "notifications_send" not in names
    assert refused == f"True contact_exists {id}"
