"""A fake worker: serves /metrics until SIGTERM."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serves no metrics."""

    def do_GET(self) -> None:
        """/metrics."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    ignores_sigterm = "FAKE_IGNORES_SIGTERM" in os.environ
    signal.signal(signal.SIGTERM, signal.SIG_IGN if ignores_sigterm else lambda *_: sys.exit(0))
    port = int(os.environ["SPINE_METRICS_PORT"]) + int(os.environ["SPINE_WORKER_INDEX"])
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()
