"""What can become of a file and of a series, in words."""

from __future__ import annotations

from enum import StrEnum

from clara_wf.model.errors import DicomError


class FileState(StrEnum):
    """What became of a file. Every file found has exactly one."""

    READ = "read"  # its pixels are in a volume
    PROJECTION = "projection"  # its rays are in a stack of projections
    REFUSED = "refused"  # an image that cannot be used, or one of a series that cannot
    LOCALIZER = "localizer"  # an overview image, no slice of the volume
    SECONDARY_CAPTURE = "secondary capture"  # a screen-shot or a scan of paper
    NOT_SELECTED = "not selected"  # of a series that was not asked for
    NOT_IMAGE = "not an image"  # a report, a segmentation, a plan ...
    DUPLICATE = "duplicate"  # the same instance stands in another file
    TRUNCATED = "truncated"  # the file ends too early
    NOT_DICOM = "not DICOM"
    DICOMDIR = "DICOMDIR"  # a list of files, no image
    EMPTY = "empty"  # no bytes, or zeros where the header should be
    UNREADABLE = "unreadable"  # the system refuses it, or a link leads nowhere
    NOT_FILE = "not a file"  # a pipe, a socket, a device


class SeriesState(StrEnum):
    """What became of a series."""

    READ = "read"  # every slice is in a volume
    PARTLY_READ = "partly read"  # some of its parts gave a volume, others were refused
    REFUSED = "refused"
    SKIPPED = "skipped"  # nothing in it is a slice of a volume, or it was not asked for


class FileFault(DicomError):
    """What is wrong with one file: its state and the reason in words, without its path."""

    def __init__(self, state: FileState, reason: str) -> None:
        super().__init__(reason)
        self.state = state

    def __reduce__(self) -> tuple[object, ...]:
        return (FileFault, (self.state, self.message))
