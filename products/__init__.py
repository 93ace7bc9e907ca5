"""The API process: it serves the resources of the engine over HTTP."""
