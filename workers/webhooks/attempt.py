"""One attempt: the signed HTTP request of a delivery, the verdict on its response, and its lateness."""

import time
from datetime import datetime
from typing import Final

from policies.verdict import judge
from spine.kernel.http_client import HttpClient
from spine.kernel.metrics import first_byte, lateness_seconds
from workers.webhooks.endpoint_cache import Endpoint
from workers.webhooks.jobs import AttemptResult, DeliveryJob

_first_late: Final = lateness_seconds("first")


async def attempt(http_client: HttpClient, endpoint: Endpoint, job: DeliveryJob) -> AttemptResult:
    """Sign and post the job's body. Raises OSError if this machine has no socket for the call.

    Raises NotSentError if the lease has ended when the connection stands: nothing was written then.
    """
    signer = endpoint.signer
    assert signer is not None
    timestamp_s = int(time.time())
    headers = {
        **endpoint.headers,
        "webhook-id": job.event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signer.sign(job.event_id, timestamp_s, job.body),
    }
    response = await http_client.call(
        endpoint.url,
        headers,
        job.body,
        https_required=endpoint.live,
        workspace_id=job.workspace_id,
        may_send=job.is_leased,
    )
    _observe_lateness(job, response.started_at)
    now = response.started_at if response.retry_after is None else response.ended_at
    return AttemptResult(job, response, judge(response.status, response.error, response.retry_after, now))


def _observe_lateness(job: DeliveryJob, started_at: datetime) -> None:
    if job.failures:
        if job.due_at is not None:
            lateness_seconds("retry").observe((started_at - job.due_at).total_seconds())
    elif job.series == 1:
        late_s = (started_at - job.accepted_at).total_seconds()
        first_byte(late_s)
        _first_late.observe(late_s)
