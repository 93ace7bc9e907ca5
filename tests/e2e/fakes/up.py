"""`make up` with fakes for the API and the workers: real servers, real migrations, real supervision."""

import sys
from pathlib import Path

from spine.supervisor.main import up
from spine.supervisor.plan import Programs

FAKES = Path(__file__).parent

if __name__ == "__main__":
    programs = Programs(
        api=(sys.executable, str(FAKES / "api.py"), "products.app"),
        worker=(sys.executable, str(FAKES / "worker.py"), "workers.main"),
    )
    sys.exit(up(programs))
