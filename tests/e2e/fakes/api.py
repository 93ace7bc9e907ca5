"""Stands in for the API: answers /readyz and signs up. Its command line says products.app, as the real one's does."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Ready at once; its answers name its process."""

    def do_GET(self) -> None:
        """/readyz."""
        self._answer(200, {"process": os.getpid(), "database": os.environ["DATABASE_URL"]})

    def do_POST(self) -> None:
        """/v1/signup."""
        keys = {env: {"api_key": f"sk_{env}_{os.getpid()}", "workspace_id": "wsp_1"} for env in ("test", "live")}
        self._answer(201, keys)

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    if "STANDIN_FAILS" in os.environ:
        sys.exit("this API cannot start")
    print("standing in for", sys.argv[1:], flush=True)
    ThreadingHTTPServer((os.environ["SPINE_HTTP_HOST"], int(os.environ["SPINE_HTTP_PORT"])), Handler).serve_forever()
