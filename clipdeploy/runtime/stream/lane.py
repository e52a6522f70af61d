"""What the answering thread keeps of one camera."""

from __future__ import annotations

from clipdeploy.runtime.stream.camera import Camera
from clipdeploy.runtime.stream.decide import Decider
from clipdeploy.runtime.stream.gate import Gate
from clipdeploy.runtime.stream.outlet import Outlet
from clipdeploy.runtime.stream.records import Frame, Scores

LOST_S = 5.0
"""So long a camera may be away before what it had in view counts as gone."""


class Lane:
    """A camera's gate, its decider, and where its frames and results are. Only the answering thread has it.

    Attributes:
        scores: of the last answered frame, (1, K); None before there is one.
        frame: the last one that a result was made of.
        closed: whether the camera is over, and all was said of it.
    """

    def __init__(self, camera: Camera, gate: Gate | None, decider: Decider, outlet: Outlet) -> None:
        self.camera = camera
        self.name = camera.name
        self.gate = gate
        self.decider = decider
        self.scores: Scores | None = None
        self.frame: Frame | None = None
        self.closed = False
        self._outlet = outlet
        self._told_at: float | None = None  # the `lost_at` of which leave was taken

    @property
    def takeable(self) -> bool:
        """Whether a frame waits, and its result will have a place; needs the desk's lock, as those below."""
        inbox = self.camera.inbox
        return len(inbox) > 0 and (not inbox.lossless or self._outlet.room(self.name) > inbox.in_hand)

    def is_due(self, now: float, until: float) -> bool:
        """Whether the camera is about to give a frame."""
        return self.camera.state == "running" and self.camera.inbox.pace.is_due(now, until)

    @property
    def gone_at(self) -> float | None:
        """When a camera that broke off counts as gone; None while it runs, and once leave was taken."""
        lost_at = self.camera.lost_at
        return None if lost_at is None or self.closed or lost_at == self._told_at else lost_at + LOST_S

    def is_gone(self, now: float) -> bool:
        """Whether leave is to be taken: the camera is over and all its frames are answered, or it is away too long."""
        inbox = self.camera.inbox
        if self.closed or len(inbox) or inbox.in_hand:
            return False
        return self.camera.over or (self.gone_at is not None and self.gone_at <= now)

    def leave(self) -> None:
        """Leave is taken."""
        self._told_at = self.camera.lost_at
        self.closed = self.camera.over

    def forget(self) -> None:
        """Have the next frame asked about."""
        if self.gate is not None:
            self.gate.reset()
