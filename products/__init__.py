"""Second floor: thin resources over the engine, and the API that serves them."""
