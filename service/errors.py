"""Every error that foldserve raises on purpose.

    FoldserveError
    ├── InvalidInput                  the caller sent something that cannot be used
    │   ├── InvalidQuery
    │   ├── InvalidImage
    │   ├── InvalidTensor
    │   ├── InputTooLarge
    │   ├── UnsupportedMediaType
    │   ├── RequestTimeout
    │   ├── HeadersTooLarge
    │   ├── InvalidHttp
    │   └── LoadRefused
    ├── Denied                        the caller may not have this
    │   ├── Unauthorized
    │   └── Forbidden
    ├── NotFound                      the caller named something that is not there
    │   ├── UnknownModel
    │   ├── UnknownVersion
    │   └── UnknownLayer
    ├── NotWatched                    nothing looks at the rows of what was named
    ├── NotAccepted                   live rows cannot become a baseline
    │   ├── TooFewRows
    │   └── NotStored
    ├── Unavailable                   the service cannot take or finish the work now
    │   ├── NotReady
    │   ├── Draining
    │   ├── QueueFull
    │   ├── TooManyConnections
    │   ├── DeadlinePassed
    │   ├── LoadStalled
    │   ├── JobCancelled
    │   └── EngineFailed
    ├── StoreError                    the model store does not hold what it says
    │   ├── InvalidManifest
    │   ├── InvalidWeights
    │   └── InvalidProgram
    ├── ModelRefused                  the model is intact but must not be served
    │   └── DoesNotFit
    └── InvalidConfiguration          a setting or the machine does not allow what was asked

The message of an error is written for the person who caused it; it never holds a path of the
server or a traceback (store errors, which only operators see, name files relative to the store).
Which HTTP status an error becomes is decided in `service.web.problems`, in one table.
"""

from __future__ import annotations


class FoldserveError(Exception):
    """The root of the tree; never raised itself."""


class InvalidInput(FoldserveError):
    """The body of a request is malformed."""


class InvalidQuery(InvalidInput):
    """A query parameter is unknown, repeated or out of its range."""


class InvalidImage(InvalidInput):
    """An encoded image is corrupt, truncated or of a kind that the model does not take."""


class InvalidTensor(InvalidInput):
    """Numbers were sent with a wrong shape, dtype, length or value."""


class InputTooLarge(InvalidInput):
    """A body, an image or a number of rows is over its limit."""


class UnsupportedMediaType(InvalidInput):
    """The content type is none that foldserve reads."""


class RequestTimeout(InvalidInput):
    """The headers or the body of a request came too slowly, or stopped."""


class HeadersTooLarge(InvalidInput):
    """The headers of a request, its trailers or the framing of its body are over their limit."""


class InvalidHttp(InvalidInput):
    """What came over the connection is not HTTP/1.1."""


class LoadRefused(InvalidInput):
    """A model that was to be loaded must not be served as it is in the store; what was served still is."""


class Denied(FoldserveError):
    """The caller may not have what was asked for."""


class Unauthorized(Denied):
    """The request bears no key, or one that nobody has."""


class Forbidden(Denied):
    """What was asked for needs another key, or is switched off."""


class NotFound(FoldserveError):
    """What was named does not exist."""


class UnknownModel(NotFound):
    """No model of this name is served."""


class UnknownVersion(NotFound):
    """The model is served, but not in this version."""


class UnknownLayer(NotFound):
    """The model has no norm of this name."""


class NotWatched(FoldserveError):
    """What was asked needs norms whose inputs are looked at, and this version has none, or it failed."""


class NotAccepted(FoldserveError):
    """Live rows cannot become the baseline of a version; the one before is used as ever."""


class TooFewRows(NotAccepted):
    """Fewer rows were looked at, since the last change of state, than a baseline takes."""


class NotStored(NotAccepted):
    """The baseline cannot be kept: its folder cannot be written to, or holds another version by now."""


class Unavailable(FoldserveError):
    """The work cannot be taken or finished now; trying again later may succeed."""

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(Unavailable):
    """The model is still being loaded, folded, proven or warmed up."""


class Draining(Unavailable):
    """The service is shutting down and takes no new work."""


class QueueFull(Unavailable):
    """As many rows wait as the queue may hold, or more than can be computed within the time given."""


class TooManyConnections(Unavailable):
    """As many connections are open as may be."""


class DeadlinePassed(Unavailable):
    """The deadline of a job passed before its rows were computed."""


class LoadStalled(Unavailable):
    """A model takes too long to load, or earlier loads that did have not ended; what was served still is."""


class JobCancelled(Unavailable):
    """The caller went away before its rows were computed; nobody reads this answer."""


class EngineFailed(Unavailable):
    """The engine could not compute a batch; the cause is in the log."""


class StoreError(FoldserveError):
    """The model store, or a model in it, is not laid out as documented."""


class InvalidManifest(StoreError):
    """A model.toml is missing, is not TOML, or says something that is not allowed."""


class InvalidWeights(StoreError):
    """A weights file is missing, damaged, or does not fit the architecture."""


class InvalidProgram(StoreError):
    """An exported program is damaged, or holds something that foldserve does not load."""


class ModelRefused(FoldserveError):
    """A model that does not fit into memory, or whose answers could not be trusted.

    These are batch statistics at inference, and parity that does not hold.
    """


class DoesNotFit(ModelRefused):
    """Less memory is free than loading a model takes; it may fit later."""


class InvalidConfiguration(FoldserveError):
    """A setting is unknown or wrong, or asks for a device or package that is not there."""
