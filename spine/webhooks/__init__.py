"""Webhooks: events, endpoints, deliveries, dead letters, replays, and the signatures that receivers verify."""
