"""The hosted pages: the booking page and the support form, which write through the same functions as the API (P-26)."""
