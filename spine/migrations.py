"""Command `python -m spine.migrations`: migrates the database at DATABASE_URL to the newest revision."""

import asyncio
import sys

from spine.kernel.database import migrate
from spine.kernel.settings import DatabaseSettings

if __name__ == "__main__":
    asyncio.run(migrate(DatabaseSettings().database_url))
    sys.stdout.write("database is up to date\n")
