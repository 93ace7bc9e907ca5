"""Notifications: send a template to a contact over channels in order, through providers, with receipts and replies."""
