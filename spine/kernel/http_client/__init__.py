"""The only HTTP client: every call to a receiver, a provider or a tool goes through `HttpClient`.

Modules in the order in which they act on a call:

1. `policies.url_targets` judges the form of the URL.
2. `resolver` finds the addresses of the host name, in its cache or by `name_servers`, which asks without a thread.
3. `ssrf_guard` keeps the permitted addresses, and judges the address again when it opens a socket.
4. `client` sends the request and reads the response.
5. `response_limits` ends a call whose response has too much around its body.
6. `errors` maps an exception to an error code.
7. `httpx_transport` offers the same guarded connections with httpx's API.

Promises: no connection to an unchecked address; no second resolution between check and connect; no redirects, cookies,
proxies or decompression; no unlimited read of a body or of what is around it; no exception for anything that a receiver
does; no call that waits for another workspace's name servers.
"""

from spine.kernel.http_client.client import HttpClient, NotSentError
from spine.kernel.http_client.response import HttpResponse

__all__ = ["HttpClient", "HttpResponse", "NotSentError"]
