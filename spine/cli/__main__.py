"""`python -m spine.cli`, which `.venv/bin/spine` runs: reads the settings' files, then does what it is told."""

import os
import sys

from dotenv import load_dotenv

from spine.cli.app import app
from spine.cli.locations import settings_files


def main() -> None:
    """The command `spine`."""
    for file in settings_files(os.environ, sys.argv[1:]):
        load_dotenv(file, override=False)
    app(prog_name="spine")


if __name__ == "__main__":
    main()
