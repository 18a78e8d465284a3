"""Exceptions of PyTorch's compiler, by its names. `UserError` is raised by `torch.export`; the others are here for
programs that catch them: what goes wrong in a capture raises `graphtorch.frontend.errors.CaptureError`."""

from __future__ import annotations

from graphtorch.frontend.errors import CaptureError

__all__ = ["BackendCompilerFailed", "InternalTorchDynamoError", "TorchDynamoException", "Unsupported", "UserError"]


class TorchDynamoException(RuntimeError):
    """What all of them are."""


class InternalTorchDynamoError(TorchDynamoException):
    """Never raised here."""


class BackendCompilerFailed(TorchDynamoException):
    """Never raised here."""


class UserError(TorchDynamoException):
    """A call of `torch.export` that asks for what its function does not do."""


Unsupported = CaptureError
