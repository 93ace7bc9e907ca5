"""SQL for results that Postgres refused to store."""

from typing import Final

SET_APART: Final = """
    WITH put AS (
        INSERT INTO spine.results_set_apart (workspace_id, delivery_id, series, number, verdict, attempt, error)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
    )
    SELECT 1 + count(*)::integer FROM spine.results_set_apart WHERE workspace_id = $1 AND delivery_id = $2 AND NOT recorded
"""
"""Keeps a result. Returns how often one of this delivery was kept that could not be recorded, this one included."""

SET_APART_RECORDED: Final = """
    UPDATE spine.results_set_apart SET recorded = true WHERE workspace_id = $1 AND delivery_id = $2 AND NOT recorded
"""

DELIVERY_PUT_OFF: Final = """
    UPDATE spine.deliveries_open
       SET due_at = now() + least(interval '1 min' * power(2, least($4::integer - 1, 7)), interval '2 h'), leased_by = NULL
     WHERE workspace_id = $1 AND id = $2 AND series = $3 AND state <> 'held'
"""
"""Makes the delivery due again 1 minute after the first refusal of its results, 2 minutes after the second, at most 2 hours."""

SET_APART_DROP: Final = """
    DELETE FROM spine.results_set_apart
     WHERE ctid = ANY (ARRAY(SELECT ctid FROM spine.results_set_apart WHERE created_at < now() - $1::interval ORDER BY created_at LIMIT $2))
"""
