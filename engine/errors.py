"""Errors of the engine. Each says what was expected, what came, and what to do.

`code` is stable and machine-readable: the service stores it with a failed job.
"""


class EngineError(Exception):
    """A run cannot go on. Unless its class says otherwise, the same input would fail again in the same way."""

    code = "engine_error"


class DataError(EngineError):
    """A row, image or graph of the data set cannot be used; the message names file, line and reason."""

    code = "data_error"

    def __init__(self, reason: str, *, file: str = "", line: int | None = None) -> None:
        where = file + (f", line {line}" if line is not None else "")
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        self.file = file
        self.line = line


class NotApplicable(EngineError):
    """The method cannot be used with this family, task, update or scope (the paper's N/A cells)."""

    code = "not_applicable"


class InvalidSpec(EngineError):
    """The run specification contradicts itself or the data."""

    code = "invalid_spec"


class DeviceUnavailable(EngineError):
    """The device of the run cannot be used here; another try may find it, elsewhere or later."""

    code = "device_unavailable"


class NonFiniteLoss(EngineError):
    """A loss became NaN or infinite: nothing is saved."""

    code = "non_finite_loss"


class CheckpointError(EngineError):
    """A checkpoint is damaged, of another family, or does not fit the model."""

    code = "checkpoint_error"


class StorageFull(CheckpointError):
    """The disk has no room left: what was written for this run is removed again."""

    code = "storage_full"


class ProcessLost(EngineError):
    """Another process of the run ended before this one: nothing is saved."""

    code = "process_lost"


class Cancelled(EngineError):
    """The caller asked the run to stop."""

    code = "cancelled"
