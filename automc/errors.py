"""Every error automc raises on purpose, and the exit code the command line gives it.

    AutomcError
    ├ ConfigError                 your file: path, key, what is allowed                   exit 2
    ├ InfeasibleCandidate         cannot exist here, with the reason; recorded, not a failure
    ├ CandidateError              this candidate broke; the search goes on
    │   CompressionError · TrainingDiverged · ExportError · ParityError · OutOfBudget
    ├ PredictorError              UnseenOperatorError (operator, shape) · StaleCalibrationError
    ├ MeasurementError            device noisy or unreachable (retried)
    ├ InfeasibleSearchError       nothing meets the constraints                           exit 3
    └ RunError · BundleError      verification or parity failed: exit 4;  interrupted, resumable: exit 5
        RunRefused                what was asked cannot be done with this run, which is sound: exit 2

Every message says what happened and why; `next_step` is the command or edit that gets the user further.
"""

from __future__ import annotations

import errno
from typing import ClassVar

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""What the file system answers where a person, not a programmer, has to act."""


class AutomcError(Exception):
    """Base of everything raised on purpose; anything else that escapes is a bug and stops the run loudly."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return self.message if self.next_step is None else f"{self.message}\n  next: {self.next_step}"

    def __reduce__(self) -> tuple[object, ...]:  # Ray carries errors between processes
        return (_rebuild, (type(self), self.message, self.next_step))


def _rebuild(kind: type[AutomcError], message: str, next_step: str | None) -> AutomcError:
    error = kind.__new__(kind)
    AutomcError.__init__(error, message, next_step=next_step)
    return error


class ConfigError(AutomcError):
    """The user's file or argument is wrong: names the file, the key and what is allowed."""

    exit_code = 2


class InfeasibleCandidate(AutomcError):
    """The candidate cannot exist on this model or profile; recorded with its reason, not a failure."""


class CandidateError(AutomcError):
    """This candidate broke; the search records it and goes on."""


class CompressionError(CandidateError):
    """A technique could not be applied to the candidate's model."""


class TrainingDiverged(CandidateError):
    """Recovery produced a NaN, an infinity or an exploding loss."""


class ExportError(CandidateError):
    """The candidate's model could not be exported to ONNX."""


class ParityError(CandidateError):
    """The exported graph does not compute what the torch model computes."""

    exit_code = 4


class OutOfBudget(CandidateError):
    """The candidate used more time or memory than it was given."""


class PredictorError(AutomcError):
    """A cost could not be predicted; it is unknown, never zero."""

    exit_code = 2


class UnseenOperatorError(PredictorError):
    """The graph holds an operator the profile was never calibrated for; names operator and shape."""


class StaleCalibrationError(PredictorError):
    """The profile was calibrated on another device, runtime or version than the one at hand."""


class MeasurementError(AutomcError):
    """The device is noisy or unreachable; retried, never cached."""


class InfeasibleSearchError(AutomcError):
    """Nothing meets the constraints: names the binding one, by how much, and the closest candidate."""

    exit_code = 3


class RunError(AutomcError):
    """The run directory is damaged, in use, or does not fit what was asked."""

    exit_code = 4


class RunRefused(RunError):
    """The run is sound, but what was asked cannot be done with it: it exists, is in use, has not ended."""

    exit_code = 2


class RunInterrupted(RunError):
    """Stopped before the end; nothing is lost and `automc resume RUN` goes on."""

    exit_code = 5


class BundleError(AutomcError):
    """The bundle is damaged or does not deliver what it states."""

    exit_code = 4
