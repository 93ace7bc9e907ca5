"""What the OpenAPI documents say and the code does not: titles, tags and the bodies that the guides print."""

from typing import Any, Final

from spine.kernel.openapi.documents import SUITE

TITLES: Final = {
    SUITE: ("Spine", "Every product of the suite and the platform below them."),
    "platform": ("Spine platform", "Workspaces, keys, events and webhooks: what every product stands on."),
    "crm": ("Spine CRM", "Contacts, leads, deals, calls and sequences."),
    "works": ("Spine Works", "Projects, milestones, tasks and the queues of people."),
    "billing": ("Spine Billing", "Invoices that milestones draft."),
    "tickets": ("Spine Tickets", "Tickets with threads, routing, service levels and hosted forms."),
    "notifications": ("Spine Notifications", "Messages to people over several channels, with fallback and receipts."),
    "calendar": ("Spine Calendar", "Availability, bookings without collisions, waitlists and booking pages."),
}
"""Title and summary of each product's document."""

TAGS: Final = {
    "signup": "An organisation, its test and its live workspace, and a key to each.",
    "api_keys": "API keys, their scopes, how they are rolled and revoked.",
    "users": "The people of a workspace, who own and are assigned things.",
    "webhook_endpoints": "Where events are delivered to.",
    "events": "What happened, in order: the feed, the catalogue, and events of your own.",
    "event_types": "Types of your own events, with their schemas.",
    "deliveries": "Deliveries with their attempts, and dead letters.",
    "replays": "Replays of many deliveries at a rate that you choose.",
    "test_helpers": "The clock of a test workspace.",
    "contacts": "The address book that all products share.",
    "leads": "Leads and their stages.",
    "interests": "What a lead is interested in.",
    "catalog_items": "What can be sold.",
    "deals": "Deals, won and lost.",
    "call_sessions": "Calls in progress: context, collected fields, one atomic finalize.",
    "calls": "Calls that were finalized.",
    "sequences": "Sequences of messages over days.",
    "enrollments": "Contacts on their way through a sequence.",
    "projects": "Projects, opened from a won deal or directly.",
    "milestones": "Milestones, which may draft an invoice when they are reached.",
    "tasks": "Tasks and whose they are.",
    "queues": "The open tasks of a person.",
    "messages": "Messages: sent once, over the first channel that works.",
    "templates": "Versioned templates of messages.",
    "project_templates": "Versioned templates of projects: milestones and tasks.",
    "invoices": "Invoices.",
    "tickets": "Tickets and their guarded states.",
    "thread_entries": "The append-only thread of a ticket.",
    "evidence": "Recordings, transcripts and files, by reference.",
    "routing_rules": "Who gets a ticket of a topic.",
    "sla_policies": "How long a ticket may wait.",
    "forms": "Hosted support forms.",
    "channel_policies": "The order of channels, as data, and what it would do.",
    "provider_accounts": "Accounts with providers, and their circuit breakers.",
    "quotas": "How much may be sent in a period.",
    "preferences": "Who does not want what.",
    "inbound": "Callbacks of providers: receipts and replies.",
    "resources": "People and things that can be booked.",
    "services": "What can be booked.",
    "slots": "Availability.",
    "appointments": "Bookings, of which exactly one wins a slot.",
    "waitlist_entries": "Who waits for a slot.",
    "booking_pages": "Hosted booking pages.",
    "webhooks": "Events that your endpoints receive.",
}
"""The description of each tag, in the order of the documents."""

_CONTACT: Final = "ctc_01J9XQ4T0V8Y3K6M2N5P7R9S1A"
_ADDRESS: Final = "https://example.com/hooks"
_SEND: Final[dict[str, Any]] = {
    "contact_id": _CONTACT,
    "template": "appt_reminder",
    "channels": ["whatsapp", "sms"],
    "vars": {"time": "5:00 PM"},
}
EXAMPLES: Final[dict[str, Any]] = {
    "POST /v1/signup": {"name": "Acme", "email": "dev@acme.example"},
    "POST /v1/api_keys": {"name": "Reads the feed", "scopes": ["events:read"]},
    "POST /v1/users": {"name": "Asha Rao", "email": "asha@acme.example"},
    "POST /v1/webhook_endpoints": {"url": _ADDRESS, "events": ["message.*", "contact.updated"]},
    "POST /v1/event_types": {
        "name": "parcel.handed_over",
        "description": "A parcel was handed over.",
        "schema": {"type": "object", "required": ["parcel"], "properties": {"parcel": {"type": "string"}}},
    },
    "POST /v1/events": {"type": "order.paid", "data": {"order_id": "1001"}},
    "POST /v1/events/batch": {"events": [{"type": "order.paid", "data": {"order_id": "1001"}}]},
    "POST /v1/replays": {"filter": {"types": ["order.paid"], "since": "2026-11-01T00:00:00Z"}, "dry_run": True},
    "POST /v1/test_helpers/clock": {"advance_s": 3600},
    "POST /crm/v1/contacts": {"name": "Priya Raghavan", "phone": "+910000000000"},
    "POST /crm/v1/leads": {
        "contact": {"name": "Priya Raghavan", "phone": "+910000000000"},
        "source": "website",
        "interests": [{"catalog_item_id": "itm_01J9XQ4T0V8Y3K6M2N5P7R9S1A", "note": "1.5T split AC"}],
    },
    "POST /works/v1/projects": {
        "deal_id": "dl_01J9XQ4T0V8Y3K6M2N5P7R9S1A",
        "name": "Site fit-out",
        "owner_id": "usr_01J9XQ4T0V8Y3K6M2N5P7R9S1A",
        "template": "fitout_v2",
    },
    "POST /tickets/v1/tickets": {
        "contact_id": _CONTACT,
        "subject": "Part delayed",
        "source": "voice",
        "call_id": "cal_01J9XQ4T0V8Y3K6M2N5P7R9S1A",
    },
    "POST /calendar/v1/appointments": {
        "slot_id": "slt_01J9XQ4T0V8Y3K6M2N5P7R9S1A",
        "contact_id": _CONTACT,
        "service": "ac_service",
    },
    "POST /notifications/v1/messages": _SEND,
    "POST /notifications/v1/messages/batch": {"messages": [_SEND]},
    "POST /notifications/v1/templates": {
        "slug": "appt_reminder",
        "locale": "en",
        "required_vars": ["time"],
        "bodies": {"whatsapp": "See you at {{ time }}.", "sms": "See you at {{ time }}."},
    },
    "POST /notifications/v1/templates/{id}/preview": {"channel": "sms", "vars": {"time": "5:00 PM"}},
    "PUT /notifications/v1/channel_policies/{slug}": {
        "steps": [
            {"channel": "whatsapp", "success": "delivered", "wait_s": 300},
            {"channel": "sms", "success": "sent", "wait_s": 60},
        ],
        "deadline_s": 3600,
    },
    "POST /notifications/v1/provider_accounts": {"channel": "sms", "kind": "sandbox", "priority": 1},
    "PUT /notifications/v1/preferences": {
        "contact_id": _CONTACT,
        "channel": "sms",
        "category": "marketing",
        "opted_out": True,
    },
}
"""A request body for operations that are called first, by method and path: the curls of the guides, word for word."""
