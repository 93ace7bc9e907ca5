"""Stands in for a worker: waits to be told to stop, and says when it was."""

import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("worker", os.environ["SPINE_WORKER_INDEX"], "on", os.environ["SPINE_METRICS_PORT"], flush=True)
    while True:
        signal.pause()
