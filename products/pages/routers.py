"""The routers of the pages, for the API. They are not in the catalogue, because no specification shows them (P-26)."""

from fastapi import APIRouter

from products.pages import appointment_move, appointment_page, assets, booking_page, support_form, ticket_page

PAGE_ROUTERS: tuple[APIRouter, ...] = (
    booking_page.router,
    appointment_page.router,
    appointment_move.router,
    support_form.router,
    ticket_page.router,
    assets.router,
)
