"""The calendar product: resources, services, slots, appointments, the waitlist and booking pages."""
