"""Delivers webhooks: one pipeline per worker process.

The modules, in the order in which an event meets them:

- `relay`, `relay_turns`, `relay_plan`: read accepted events from the outbox, in turn by workspace while many wait, and write
  one delivery for each matching endpoint, those of wide events in parts.
- `claim`, `due_turns`, `claim_plan`, `refill`: look at deliveries that are due or parked, decide, and lease them.
- `endpoint_queues`, `endpoint_queue`: hold the leased jobs, one queue per endpoint, within the capacity of the process.
- `workspace_use`, `held_bodies`: count what each workspace holds, and the bytes of the bodies.
- `send`, `start_order`, `queue_turns`, `call_slots`, `attempt`: start the calls, in fair order, and make each signed HTTP request.
- `record`, `result_batch`, `write_results`: decide what each result means and commit results in groups.
- `system_events`: write the events that workers emit, such as `delivery.dead_lettered`.

Beside them:

- `dispatch`: the pipeline that connects these modules.
- `jobs`: the data that they pass on.
- `endpoint_cache`: the URL, headers and secrets of endpoints.
- `leases`: renews and releases leases.
- `replay`: the pipeline that reopens closed deliveries and delivers missing events.
"""
