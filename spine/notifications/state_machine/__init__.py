"""The state machine of a message: decisions, results, receipts and replies change a locked message.

Every function takes a MessageChanges and records in it what changes: rows, timeline entries, events and queue rows.
"""
