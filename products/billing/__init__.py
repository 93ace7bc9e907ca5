"""Billing: drafts of invoices, which follow the events of other products."""
