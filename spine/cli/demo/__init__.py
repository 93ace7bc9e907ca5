"""`spine demo`: one story through all products of a running installation, over REST, hosted pages and MCP."""
