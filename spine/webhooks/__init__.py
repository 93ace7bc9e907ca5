"""Webhooks: endpoints, deliveries, replays, and the signatures that receivers check."""
