"""Every error that the product raises on purpose.

::

    ClaraError                    exit code
    ├── UsageError                2   the command or its arguments are wrong
    ├── LackError                 3   this machine lacks something
    │   ├── ModelMissing              a network is not installed
    │   └── HelmMissing               neither the Helm SDK nor the program is there
    ├── InputError                1   the data cannot be processed as they are
    │   ├── DicomError                a DICOM object is missing, broken or incomplete
    │   ├── GeometryError             slices that make no regular volume
    │   └── VolumeError               a MetaImage or its record is broken
    ├── ChartError                1   the chart cannot be rendered or read
    └── JobError                  1   a job ended without its result
        ├── StageFailed               a stage said so, or ended without saying anything
        ├── UpstreamFailed            a stage before this one failed
        ├── StageTimeout              a stage waited or worked for too long
        └── JobCanceled               somebody stopped it

An error says what happened, with which file or value, and what to do about it. Errors of other libraries are translated
where they cross into ours, with ``raise ... from exc``. No message holds a patient's name, id, birth date or accession
number.
"""

from __future__ import annotations

from typing import ClassVar


class ClaraError(Exception):
    """The base of all errors of clara-wf.

    Parameters
    ----------
    message : str
        What happened, in one line, with the file or the value.
    remedy : str, optional
        What the reader can do about it.
    """

    #: What the command line exits with.
    exit_code: ClassVar[int] = 1
    #: Whether trying again, unchanged, can help.
    retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        text = self.message if self.remedy is None else f"{self.message}. {self.remedy}"
        return " ".join(text.split())

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.remedy))


def _rebuild(kind: type[ClaraError], message: str, remedy: str | None) -> ClaraError:
    """Unpickle an error: keyword-only arguments are beyond the default protocol."""
    return kind(message, remedy=remedy)


class UsageError(ClaraError):
    """The command or one of its arguments is wrong; nothing was done."""

    exit_code = 2


class LackError(ClaraError):
    """What the command needs is not on this machine."""

    exit_code = 3


class ModelMissing(LackError):
    """A network is not installed."""


class HelmMissing(LackError):
    """Neither Helm's SDK nor the program `helm` is there."""


class InputError(ClaraError):
    """The data cannot be processed as they are."""


class DicomError(InputError):
    """A DICOM object is missing, broken or incomplete."""


class GeometryError(InputError):
    """Slices or frames that make no regular volume."""


class VolumeError(InputError):
    """A MetaImage file or the record beside it is broken."""


class ChartError(ClaraError):
    """The chart cannot be rendered, read or edited."""


class JobError(ClaraError):
    """A job ended without its result."""


class StageFailed(JobError):
    """A stage failed, or ended without saying anything."""


class UpstreamFailed(JobError):
    """A stage before this one failed."""


class StageTimeout(JobError):
    """A stage waited or worked for too long."""

    retriable = True


class JobCanceled(JobError):
    """Somebody stopped the job."""

    exit_code = 130
