"""Every error that Lemni raises on purpose, in one small tree.

    LemniError
    ├── InvalidRequest          400  what the caller sent is wrong
    │   ├── InputTooLong        400  an item has more tokens than the model takes, and truncation is off
    │   ├── TooManyItems        400  more items in one request than the limit
    │   ├── InvalidTokenIds     400  token ids that the served vocabulary does not have
    │   └── TaskNotSupported    400  the model cannot do what is asked, such as reranking with a classifier
    ├── Unauthorized            401  API key missing or wrong
    ├── UnknownModel            404  the model is not served here
    ├── PayloadTooLarge         413  the body is over the limit
    ├── UnsupportedMediaType    415  the body is not JSON
    ├── Overloaded              429  the queue is full; retry after `retry_after_s`
    ├── RequestCancelled        499  the caller went away
    ├── InternalError           500  our fault; the text stays in the log, the caller gets an id
    │   └── InvalidOutput       500  the model computed NaN or infinity for an item
    ├── Unavailable             503  draining, starting, or no live replica
    ├── DeadlineExceeded        504  not finished in time
    ├── StoreError              502  a vector store failed or refused; in its own words
    │   └── CannotSwitch        502  it has no way to give a collection's name to another one
    └── SetupError               -   before anything is served; the command line prints it and exits with 2
        ├── ConfigError         -    an unknown key or a bad value in flags, environment or files
        ├── ModelNotFound       -    no place that was tried has the model
        ├── ModelLoadError      -    the files are there but cannot be used
        └── MissingExtra        -    an optional package is needed; names the pip command

The engine raises these and knows no HTTP; `status` is what a dialect turns into its own answer.
"""

from __future__ import annotations


class LemniError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        status: HTTP status that fits the kind.
        code: stable snake_case word for programs.
        retryable: whether the same request may succeed later.
        item: index of the guilty item in the request, if one is.
        param: name of the guilty request field, if one is.
        retry_after_s: seconds to wait before a retry, if known.
    """

    status = 500
    code = "internal_error"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        item: int | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.item = item
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(LemniError):
    status = 400
    code = "invalid_request"


class InputTooLong(InvalidRequest):
    code = "context_length_exceeded"


class TooManyItems(InvalidRequest):
    code = "too_many_items"


class InvalidTokenIds(InvalidRequest):
    code = "invalid_token_ids"


class TaskNotSupported(InvalidRequest):
    code = "task_not_supported"


class Unauthorized(LemniError):
    status = 401
    code = "invalid_api_key"


class UnknownModel(LemniError):
    status = 404
    code = "model_not_found"


class PayloadTooLarge(LemniError):
    status = 413
    code = "payload_too_large"


class UnsupportedMediaType(LemniError):
    status = 415
    code = "unsupported_media_type"


class Overloaded(LemniError):
    status = 429
    code = "overloaded"
    retryable = True


class RequestCancelled(LemniError):
    status = 499
    code = "request_cancelled"


class InternalError(LemniError):
    pass


class InvalidOutput(InternalError):
    code = "invalid_output"


class Unavailable(LemniError):
    status = 503
    code = "unavailable"
    retryable = True


class DeadlineExceeded(LemniError):
    status = 504
    code = "deadline_exceeded"
    retryable = True


class StoreError(LemniError):
    status = 502
    code = "store_error"


class CannotSwitch(StoreError):
    code = "cannot_switch"


class SetupError(LemniError):
    code = "setup_error"


class ConfigError(SetupError):
    code = "config_error"


class ModelNotFound(SetupError):
    code = "model_files_not_found"


class ModelLoadError(SetupError):
    code = "model_load_error"


class MissingExtra(SetupError):
    """An optional package is missing; build it with `missing_extra`."""

    code = "missing_extra"


def missing_extra(package: str, extra: str, needed_for: str) -> MissingExtra:
    """The one message for every optional package: what, what for, and the command that fixes it."""
    return MissingExtra(
        f"{needed_for} needs the package {package!r}, which is not installed. "
        f"Install it with: pip install 'lemni[{extra}]'"
    )
