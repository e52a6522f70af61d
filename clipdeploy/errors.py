"""The errors a user of clipdeploy can meet.

    ClipdeployError                 everything below; catch this to catch all
    ├── InputError                  an argument is wrong (also a ValueError)
    │   ├── ImageError              a picture cannot be read or has an impossible shape or type
    │   └── TextError               a text or label is empty, too long or of the wrong type
    ├── MissingExtraError           a library of an optional extra is not installed (also an ImportError)
    ├── CheckpointError             a checkpoint cannot be found, read, or trusted to mean what it says
    ├── ExportError                 a tower cannot be traced, simplified or written
    ├── CalibrationError            calibration data is missing or unfit, or a precision cannot hold its budget
    ├── BundleError                 a bundle cannot be opened
    │   ├── BundleNotFoundError     there is no bundle at that path
    │   ├── BundleCorruptError      a file of the bundle is missing, truncated, altered or out of bounds
    │   └── BundleVersionError      the bundle was written by a newer schema
    ├── EngineError                 a TensorRT engine cannot be built, or is not for this machine
    ├── BackendError                an inference engine cannot be used, or failed
    ├── SourceError                 a camera, video or stream cannot be opened, or has broken off
    ├── ParityError                 outputs drift from the reference beyond a gate
    └── OutputError                 a result cannot be written

Each carries what is wrong (what was given, what was expected) and, in `fix`, how to put it right.
"""

from __future__ import annotations


class ClipdeployError(Exception):
    """Base of all errors of this package.

    Args:
        message: what is wrong, what was given, what was expected.
        fix: what the user can do about it: a flag, a command, a file to supply.
    """

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class InputError(ClipdeployError, ValueError):
    """An argument is wrong."""


class ImageError(InputError):
    """A picture cannot be read, or has an impossible shape or type."""


class TextError(InputError):
    """A text or label is empty, too long, or of the wrong type."""


class MissingExtraError(ClipdeployError, ImportError):
    """A library of an optional extra is not installed."""

    def __init__(self, library: str, *, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs {library}, which is not installed",
            fix=f"pip install 'clipdeploy[{extra}]'",
        )
        self.library = library
        self.extra = extra


class CheckpointError(ClipdeployError):
    """A checkpoint cannot be found, read, or trusted to mean what it says."""


class ExportError(ClipdeployError):
    """A tower cannot be traced, simplified or written."""


class CalibrationError(ClipdeployError):
    """Calibration data is missing or unfit, or a precision cannot hold its accuracy budget."""


class BundleError(ClipdeployError):
    """A bundle cannot be opened."""


class BundleNotFoundError(BundleError):
    """There is no bundle at that path."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, truncated, altered, or lies outside the folder."""


class BundleVersionError(BundleError):
    """The bundle was written by a newer schema than this version reads."""


class EngineError(ClipdeployError):
    """A TensorRT engine cannot be built, or is not for this machine."""


class BackendError(ClipdeployError):
    """An inference engine cannot be used, or failed."""


class SourceError(ClipdeployError):
    """A camera, video or stream cannot be opened, or has broken off."""


class ParityError(ClipdeployError):
    """Outputs drift from the reference beyond a gate."""


class OutputError(ClipdeployError):
    """A result cannot be written."""
