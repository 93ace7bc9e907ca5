"""The only HTTP client: every call to a receiver, a provider or a tool goes through `HttpClient`.

Modules in the order in which they act on a call:

1. `policies.url_targets` judges the form of the URL.
2. `ssrf_guard` resolves the host name, keeps the permitted addresses, and judges the address again when it opens a socket.
3. `client` sends the request and reads the response.
4. `errors` maps an exception to an error code.
5. `httpx_transport` offers the same guarded connections with httpx's API.

Promises: no connection to an unchecked address; no second resolution between check and connect; no redirects, cookies,
proxies or decompression; no unlimited read of a body; no exception for anything that a receiver does.
"""

from spine.kernel.http_client.client import HttpClient, NotSentError
from spine.kernel.http_client.response import HttpResponse

__all__ = ["HttpClient", "HttpResponse", "NotSentError"]
