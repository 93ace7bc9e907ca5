"""The gate against breaking changes: compares the documents with the released ones. A tool of development, not served."""
