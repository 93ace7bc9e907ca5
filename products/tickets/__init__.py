"""Tickets: from any door to an owner and a resolution, with routing, SLA and public forms."""
