"""A signal that comes at a chosen moment of a training."""

from maskmatch.common.signals import StopSignal


class StopAfter(StopSignal):
    """Has received a signal once it was asked `count` times: before every step, and twice in a validation."""

    def __init__(self, count):
        self.count = count
        super().__init__()

    @property
    def received(self):
        self.count -= 1
        return "SIGTERM" if self.count < 0 else None

    @received.setter
    def received(self, name):
        pass
