"""A TCP proxy on this machine whose connections can be cut."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread


class Proxy:
    """Passes on what comes, both ways, to `port`; see `running`."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lock = Lock()
        self.port: int = self._listening.getsockname()[1]
        self.passed = 0

    def cut(self) -> int:
        """End all connections that are open, as a network that breaks; how many."""
        with self._lock:
            cut, self._open = self._open, []
        for one in cut:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        return len(cut) // 2

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        accepting = Thread(target=self._accept, daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            self._listening.close()
            self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed at the end
            while True:
                theirs, _ = self._listening.accept()
                try:
                    ours = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    theirs.close()
                    continue
                with self._lock:
                    self._open += [theirs, ours]
                for source, sink in ((theirs, ours), (ours, theirs)):
                    Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(1 << 16):
                self.passed += len(received)
                sink.sendall(received)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
