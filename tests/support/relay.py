"""A way to the API server that can be cut: to whoever goes this way, the server is away."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from triton_server import free_port


class Relay:
    """Hands bytes on between a port of this machine and the API server of KUBECONFIG."""

    def __init__(self, folder: Path) -> None:
        config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        cluster = config["clusters"][0]["cluster"]
        there = urlsplit(cluster["server"])
        self._there = (there.hostname or "", there.port or 443)
        self._open: list[socket.socket] = []
        self._mutex = threading.Lock()  # whoever was let in just before a cut is cut off too
        self.port = free_port()  # while the way is cut, the system gives it to nobody else
        self.mend()
        # The certificate is the server's own: it names the loopback address.
        cluster["server"] = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def mend(self) -> None:
        """Open the way."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Close the way, and what goes over it."""
        with self._mutex:
            # Wakes the thread that waits in accept, which a mere close does not.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(self._there)
            with self._mutex:
                if listener.fileno() < 0:  # cut meanwhile, and perhaps mended: that has another
                    here.close()
                    there.close()
                    return
                self._open += [here, there]
            threading.Thread(target=self._hand_on, args=(here, there), daemon=True).start()

    @staticmethod
    def _hand_on(here: socket.socket, there: socket.socket) -> None:
        with here, there, contextlib.suppress(OSError):
            while True:
                for end in select.select([here, there], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    (there if end is here else here).sendall(data)
