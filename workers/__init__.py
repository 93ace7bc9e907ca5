"""The worker process: pipelines that claim work, make calls and record their results."""
