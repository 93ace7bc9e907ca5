"""Messages: from a template, a contact and a strategy to attempts at providers, receipts and replies."""
