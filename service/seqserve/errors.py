"""What can go wrong, and what the caller is told.

SeqserveError
 +-- InvalidRequestError     the request is wrong; names the field
 +-- UnauthenticatedError    the caller sent no token that is known here
 +-- PermissionDeniedError   the caller's token does not allow what was asked
 +-- ModelNotFoundError      no such model or version
 +-- ModelLoadedError        the version is being served already
 +-- ModelRefusedError       the version cannot be loaded, or must not be unloaded
 +-- ModelControlError       models may not be loaded or unloaded by calls
 +-- UnsupportedTaskError    the model cannot do what was asked
 +-- OverloadedError         too much work is waiting; says when to come back
 +-- UnavailableError        starting, draining, or the engine is lost
 +-- DeadlineError           the deadline passed before the work was done
 +-- NoTokenLeftError        options bar every token; a servicer says whose (never on the wire)
 +-- EngineError             the computation failed; details go to the log only
 |    +-- NonFiniteError     it came to NaN or infinity
 +-- PassInterruptedError    a computation ended that nobody waits for (never on the wire)
 +-- ModelFolderError        a model folder cannot be served (start-up, never on the wire)
 +-- ConfigurationError      flags, environment or file are wrong (start-up, never on the wire)
"""

import grpc


class SeqserveError(Exception):
    """Base of all errors that are raised on purpose."""


class InvalidRequestError(SeqserveError):
    """The request is wrong; the caller must change it.

    The message has the form "name, rule, value": "`num_beams` must be at least 1, but is 0".
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """Path of the field in the request message, as in ``inputs[2].options.num_beams``."""


class UnauthenticatedError(SeqserveError):
    """The caller sent no token that is known here; the message says how to send one."""


class PermissionDeniedError(SeqserveError):
    """The caller's token does not allow what was asked."""


class ModelNotFoundError(SeqserveError):
    """No such model or version; the message lists what there is."""


class ModelLoadedError(SeqserveError):
    """The version that was to be loaded is being served already."""


class ModelRefusedError(SeqserveError):
    """A version cannot be loaded, or must not be unloaded; the message says why."""


class ModelControlError(SeqserveError):
    """The server does not let calls load or unload models."""


class UnsupportedTaskError(SeqserveError):
    """The model exists but cannot do what was asked."""


class OverloadedError(SeqserveError):
    """Too much work is waiting."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """When to try again, in seconds."""


class UnavailableError(SeqserveError):
    """The server or the model is starting, draining or lost."""


class DeadlineError(SeqserveError):
    """The deadline passed before the work was done."""


class NoTokenLeftError(SeqserveError):
    """The options of a sequence bar every token; the message says which options may.

    The search knows no fields: a servicer makes it an InvalidRequestError that names the input.
    """


class EngineError(SeqserveError):
    """The computation failed. The text never reaches the caller."""


class NonFiniteError(EngineError):
    """The computation came to NaN or infinity; metrics count it by itself."""


class PassInterruptedError(SeqserveError):
    """A computation was ended, since all who had waited for it have gone."""


class ModelFolderError(SeqserveError):
    """A model folder cannot be served; the message says which file and why."""


class ConfigurationError(SeqserveError):
    """Flags, environment or configuration file are wrong."""


STATUS_CODES: dict[type[SeqserveError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    ModelLoadedError: grpc.StatusCode.ALREADY_EXISTS,
    ModelRefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    ModelControlError: grpc.StatusCode.PERMISSION_DENIED,
    UnsupportedTaskError: grpc.StatusCode.UNIMPLEMENTED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    EngineError: grpc.StatusCode.INTERNAL,
    NonFiniteError: grpc.StatusCode.INTERNAL,
}
"""The one table from our errors to gRPC codes. Whatever is not in it is INTERNAL, never UNKNOWN."""
