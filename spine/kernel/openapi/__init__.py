"""OpenAPI 3.1 documents, read off the routes, their models and the catalogue of events (P-22 to P-24)."""
