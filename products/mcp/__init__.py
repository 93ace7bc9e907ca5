"""MCP: the operations of the API as tools of the Model Context Protocol, at /mcp (P-25)."""
