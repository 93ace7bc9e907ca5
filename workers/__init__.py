"""Third floor: claims work, calls out, records what came of it."""
