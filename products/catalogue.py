"""The catalogue: everything that the API serves and emits.

A new resource costs two lines here: the import of its module and its router in ROUTERS.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from fastapi import APIRouter
from pydantic import RootModel

from products.billing import invoices
from products.calendar import (
    appointment_changes,
    appointments,
    booking_pages,
    reminders,
    resources,
    services,
    slot_models,
    slots,
    waitlist,
    waitlist_offers,
)
from products.crm import (
    call_context,
    call_finalization,
    call_sessions,
    calls,
    catalog_items,
    deal_routes,
    enrollments,
    interests,
    lead_moves,
    leads,
    sequence_steps,
    sequences,
)
from products.notifications import account_tests, inbound
from products.tickets import (
    assignment,
    evidence,
    forms,
    queue,
    routing_rules,
    sla_cycles,
    sla_policies,
    threads,
    tickets,
    transitions,
    triage,
)
from products.works import (
    milestone_actions,
    milestone_board,
    milestones,
    overdue,
    project_creation,
    project_lifecycle,
    projects,
    queues,
    task_actions,
    task_routes,
)
from products.works import templates as project_templates
from spine.directory import api_keys, contacts, signup, users
from spine.kernel import test_clock
from spine.kernel.events import Catalogue, EventType
from spine.kernel.jobs import JobHandler
from spine.kernel.platform import WorkspaceSeed
from spine.kernel.resource import Resource
from spine.kernel.routes import ResourceRouter
from spine.notifications import (
    breaker_orders,
    channel_policies,
    message_models,
    messages,
    preferences,
    provider_accounts,
    quotas,
    simulation,
    templates,
)
from spine.webhooks import (
    dead_letters,
    deliveries,
    endpoint_lifecycle,
    endpoint_secrets,
    endpoints,
    event_catalogue,
    event_erasure,
    event_feed,
    event_types,
    events,
    missing_deliveries,
    public_keys,
    replays,
    test_events,
)

ROUTERS: tuple[APIRouter, ...] = (
    signup.router,
    api_keys.router,
    users.router,
    endpoints.router,
    endpoint_lifecycle.router,
    endpoint_secrets.router,
    missing_deliveries.router,
    test_events.router,
    public_keys.router,
    event_types.router,
    events.router,
    event_catalogue.router,
    event_feed.router,
    event_erasure.router,
    deliveries.router,
    dead_letters.router,
    replays.router,
    test_clock.router,
    contacts.router,
    templates.router,
    channel_policies.router,
    simulation.router,
    provider_accounts.router,
    breaker_orders.router,
    account_tests.router,
    preferences.router,
    quotas.router,
    messages.router,
    inbound.router,
    queue.router,
    tickets.router,
    assignment.router,
    transitions.router,
    triage.router,
    threads.router,
    evidence.router,
    routing_rules.router,
    sla_policies.router,
    forms.router,
    resources.router,
    services.router,
    slots.router,
    appointments.router,
    appointment_changes.router,
    waitlist.router,
    booking_pages.router,
    catalog_items.router,
    leads.router,
    lead_moves.router,
    interests.router,
    deal_routes.router,
    call_sessions.router,
    call_context.router,
    call_finalization.router,
    calls.router,
    sequences.router,
    enrollments.router,
    project_templates.router,
    projects.router,
    project_creation.router,
    project_lifecycle.router,
    milestone_board.router,
    milestones.router,
    milestone_actions.router,
    task_routes.router,
    task_actions.router,
    queues.router,
    invoices.router,
)

RESOURCES: tuple[Resource, ...] = tuple(
    router.resource for router in ROUTERS if isinstance(router, ResourceRouter) and router.resource is not None
)
"""The resources of these routers."""

OTHER_EVENTS = (
    account_tests.TESTED,
    event_erasure.ERASED,
    dead_letters.DEAD_LETTERED,
    deliveries.REPLAYED,
    test_events.TESTED,
    test_clock.ADVANCED,
    simulation.SIMULATED,
)
"""Event types that no resource above declares."""

WORKSPACE_SEEDS: tuple[WorkspaceSeed, ...] = (provider_accounts.sandbox_accounts,)
"""Functions that yield the first rows of a new workspace."""

JOBS: Mapping[str, JobHandler] = {
    sla_cycles.BREACH: sla_cycles.breach,
    reminders.REMIND: reminders.remind,
    reminders.WATCH: reminders.watch,
    waitlist_offers.FOLLOW: waitlist_offers.follow_release,
    waitlist_offers.OFFER: waitlist_offers.offer,
    waitlist_offers.EXPIRE: waitlist_offers.expire,
    call_sessions.ABANDON: call_sessions.abandon,
    sequence_steps.RUN_STEP: sequence_steps.run_step,
    sequence_steps.AWAIT_OUTCOME: sequence_steps.await_outcome,
    sequences.RELEASE_HELD: sequences.release_held,
    overdue.KIND: overdue.note_overdue,
    invoices.KIND: invoices.draft_invoice,
    quotas.TELL: quotas.tell,
    enrollments.STOP_ENROLLMENTS: enrollments.stop_enrollments,
}
"""The handlers of jobs, by kind: `<product>.<what it does>`."""

CONSUMERS: Mapping[str, Sequence[str]] = {
    slot_models.RELEASED.name: (waitlist_offers.FOLLOW,),
    milestones.REACHED.name: (invoices.KIND,),
}
"""The kinds of the jobs that follow an event, by its type."""


class TemplateCreated(RootModel[templates.TemplateOut | project_templates.ProjectTemplateOut]):
    """A template, of messages (`ntp_`) or of projects (`tpl_`)."""


SHARED_EVENTS = (
    EventType(templates.CREATED.name, TemplateCreated, "A version of a template was made, of messages or of projects."),
)
"""Event types that several products emit, each with data of its own."""

CATALOGUE = Catalogue(
    chain(chain.from_iterable(resource.events for resource in RESOURCES), OTHER_EVENTS), CONSUMERS, SHARED_EVENTS
)

SCHEMA_NAMES: dict[type[Any], str] = {
    message_models.AttemptOut: "MessageAttemptOut",
    deliveries.AttemptOut: "DeliveryAttemptOut",
    message_models.Status: "MessageStatus",
    templates.TemplateCreate: "TemplateCreate",
    templates.TemplateOut: "TemplateOut",
}
"""Public schema names of models that share a class name. Generated clients use these names, so they never change.

Others of one class name get the product's name before it (`WorksTemplateOut`).
"""

PRODUCTS: dict[str, tuple[str, ...]] = {"platform": ("/v1/", "/.well-known/")} | {
    name: (f"/{name}/v1/",)
    for name in sorted({router.prefix.split("/")[1] for router in ROUTERS if "/v1" in router.prefix} - {"v1"})
}
"""The path prefixes of each product. A product has an OpenAPI document of its own."""
