"""What can go wrong on the way from a checkpoint to a served model.

ExportError
 +-- CheckpointError      the source cannot be read, or is malformed
 +-- UnsupportedError     the source is readable, but is nothing we can serve
 +-- VerificationError    torch and ONNX disagree; nothing was written
"""


class ExportError(Exception):
    """Base of everything the command reports as one line instead of a traceback."""


class CheckpointError(ExportError):
    """The source cannot be read, or is malformed."""


class UnsupportedError(ExportError):
    """The source is readable, but is nothing we can serve."""


class VerificationError(ExportError):
    """Two forms of the model disagree, torch and ONNX, say; nothing was written."""
