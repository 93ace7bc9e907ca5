"""A fake API: serves /readyz and the signup. Its command line has products.app, as the real one has."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Ready at once. Its responses have its process id and the URL of its database."""

    def do_GET(self) -> None:
        """/readyz."""
        self._respond(200, {"process": os.getpid(), "database": os.environ["DATABASE_URL"]})

    def do_POST(self) -> None:
        """/v1/signup."""
        keys = {env: {"api_key": f"sk_{env}_{os.getpid()}", "workspace_id": "wsp_1"} for env in ("test", "live")}
        self._respond(201, keys)

    def _respond(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    if "FAKE_FAILS" in os.environ:
        sys.exit("this API cannot start")
    print("fake of", sys.argv[1:], flush=True)
    ThreadingHTTPServer((os.environ["SPINE_HTTP_HOST"], int(os.environ["SPINE_HTTP_PORT"])), Handler).serve_forever()
