"""Entry point of `spine` and `python -m spine.cli`: read the settings files, then run the command."""

import os
import sys

from dotenv import load_dotenv

from spine.cli.app import app
from spine.cli.locations import settings_files


def main() -> None:
    """Run the command `spine`."""
    for file in settings_files(os.environ, sys.argv[1:]):
        load_dotenv(file, override=False)
    app(prog_name="spine")


if __name__ == "__main__":
    main()
