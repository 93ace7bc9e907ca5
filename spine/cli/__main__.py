"""`python -m spine.cli`, which `.venv/bin/spine` runs: reads the settings' files, then does what it is told."""

import os

from dotenv import load_dotenv

from spine.cli.front import app
from spine.cli.where import ROOT, data_directory

if __name__ == "__main__":
    # As `make up` does; then what `make up` wrote of itself, so that a second terminal finds the installation.
    load_dotenv(ROOT / ".env", override=False)
    directory = data_directory(os.environ)
    if os.access(directory / "environment", os.R_OK):
        load_dotenv(directory / "environment", override=False)
    app(prog_name="spine")
