"""Sends messages and applies the sandbox's receipts. A message meets the modules in this order:

`claim` leases due rows of `spine.sends_open`; `decide` records results, decides what each message does next and
prepares its calls, in one transaction; `send` makes these calls after the commit; `record` gives their results to
`decide` again. `calls` defines a call and its result, `limits` bounds the calls in flight, and `turns` claims fairly
while messages queue up. `dispatch` wires these modules into one pipeline.

`receipts` is a pipeline of its own: it signs and applies receipts of sandbox accounts, and applies parked receipts.
"""
