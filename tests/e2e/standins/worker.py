"""Stands in for a worker: waits to be told to stop, and says when it was."""

import os
import signal
import sys

if __name__ == "__main__":
    deaf = "STANDIN_IS_DEAF" in os.environ
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: sys.exit(0))
    print("worker", os.environ["SPINE_WORKER_INDEX"], "on", os.environ["SPINE_METRICS_PORT"], flush=True)
    while True:
        signal.pause()
