"""Sends messages and applies the sandbox's receipts. A message meets the modules in this order:

`claim` leases due rows of `spine.sends_open`; `decide` records results, decides what each message does next and prepares
its calls, in one transaction; `send` makes the provider calls of `calls` after the commit; `record` gives their results
to `decide` again. `dispatch` wires these modules into one pipeline. `receipts` is a pipeline of its own: it signs and
applies receipts of sandbox accounts, and applies parked receipts.
"""
