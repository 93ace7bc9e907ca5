"""E-mail over SMTP: the adapter, and the writing of a mail."""

from providers.smtp.adapter import SmtpProvider

__all__ = ["SmtpProvider"]
