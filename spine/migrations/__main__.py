"""`python -m spine.migrations`: bring the database at DATABASE_URL up to date."""

import asyncio
import sys

from spine.database import migrate
from spine.settings import DatabaseSettings

if __name__ == "__main__":
    asyncio.run(migrate(DatabaseSettings().database_url))
    sys.stdout.write("database is up to date\n")
