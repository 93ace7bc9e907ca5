"""Flow control of one connection: reading stops while bytes are held back, and answers must be taken in time."""

import asyncio
import time
from math import inf

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.flow_control import FlowControl as UvicornFlowControl


class FlowControl(UvicornFlowControl):
    """Uvicorn's flow control, which resumes reading for each request, and waits for ever for a client that does not read."""

    def __init__(self, transport: asyncio.Transport, write_timeout_s: float) -> None:
        super().__init__(transport)
        self._held = False
        self._write_timeout_s = write_timeout_s
        self.write_deadline = inf
        """The time by which the client must have taken what was sent to it."""

    def hold(self, held: bool, body_bytes: int) -> None:
        """Stop reading, or go on unless so many bytes of a body wait for their reader that it is paused for them."""
        if held == self._held:
            return
        self._held = held
        if held:
            self.pause_reading()
        elif body_bytes <= HIGH_WATER_LIMIT:
            self.resume_reading()

    def resume_reading(self) -> None:
        """Resume, unless bytes are held back."""
        if not self._held:
            super().resume_reading()

    def pause_writing(self) -> None:
        """Note since when the client does not take what is sent."""
        self.write_deadline = time.monotonic() + self._write_timeout_s
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client takes its answers again."""
        self.write_deadline = inf
        super().resume_writing()
