"""The only door to the outside: every call to a receiver, a provider or a tool leaves through `HttpClient`.

Who acts, in order: `policies.url_targets` judges the URL's form; `guard` resolves the name, keeps the permitted addresses
and looks once more at the very address that a socket is opened to; `door` sends and reads; `faults` gives what went
wrong a code; `transport` offers the same guarded way under httpx's API.

Promised: no connection to an address that was not checked, no second resolution between check and connect, no
redirect, cookie, proxy or decompression, no body read without a limit, and no exception for what a receiver does.
"""

from spine.kernel.http_client.client import HttpClient
from spine.kernel.http_client.response import HttpResponse

__all__ = ["HttpClient", "HttpResponse"]
