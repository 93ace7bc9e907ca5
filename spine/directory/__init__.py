"""Directory: workspaces, users, API keys, signup and contacts, the nouns that every product refers to."""
