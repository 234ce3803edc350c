"""Regions of shared memory that a server knows: one for what it is given, one for what it answers.

Whether server and stage share memory is found out by trying. Where they do not (another machine, another user, no
memory left), tensors are sent, and the log says why.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Literal

from clara_wf.kserve.shared_memory import Region, SharedMemoryLacking, is_orphan, sweep
from clara_wf.kserve.wire import ForeignServer, ServerFault, ServerGone, ServerSilent, Wire

Role = Literal["input", "output"]


class ServedMemory:
    """The regions of one network.

    Parameters
    ----------
    wire : Wire
        To the server.
    log : logging.Logger
        Told why there is no shared memory.
    refused : bool
        Whether tensors are sent, without trying.
    """

    def __init__(self, wire: Wire, log: logging.Logger, *, refused: bool = False) -> None:
        self._wire = wire
        self._log = log
        self._regions: dict[Role, Region] = {}
        self._tried = False
        self.refused = refused  # tensors are sent

    def region(self, role: Role, size: int) -> Region | None:
        """Return a region of at least a size, registered at the server; None if there is none to be had."""
        if self.refused:
            return None
        found = self._regions.get(role)
        if found is not None and found.size >= size:
            return found
        if found is not None:
            self._drop(role)
        if not self._tried:
            sweep()
        try:
            made = self._regions[role] = Region(size)
            self._wire.register(made)
        except (SharedMemoryLacking, ServerFault) as fault:
            self._log.info("no shared memory with the inference server: %s. Images are sent instead", fault.message)
            self.refused = True
            self.close()
            return None
        if not self._tried:
            # What was registered here shows that the server's folder is this one: so are its other regions' files.
            self._tried = True
            self._forget_orphans()
        return made

    def close(self) -> None:
        """Have the server forget all regions, and remove them."""
        for role in list(self._regions):
            self._drop(role)

    def _drop(self, role: Role) -> None:
        region = self._regions.pop(role)
        try:
            self._unregister(region.name)
        finally:
            region.close()

    def _forget_orphans(self) -> None:
        """Have the server forget the regions of stages that were killed: it holds their memory until then."""
        for name, key in self._wire.regions().items():
            if is_orphan(key):
                self._unregister(name)

    def _unregister(self, name: str) -> None:
        # A server that is gone has forgotten it. One that still works for a stage that was canceled refuses: then the
        # next stage to come finds the region an orphan.
        with contextlib.suppress(ServerGone, ServerSilent, ServerFault, ForeignServer):
            self._wire.unregister(name)
