"""What a node tells of itself: counters as Prometheus reads them, and a line that says whether it is well."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Counters", "telling"]

PREFIX = "fusion_nets_receive_"

MEANINGS = {
    "objects_total": "Objects that were sent to this node, by what became of them",
    "objects_held_total": "Objects that waited because their sender sends faster than it may",
    "associations_refused_total": "Associations that were refused, by reason",
    "fusions_total": "Fusions, by how they ended",
    "sent_total": "Objects that an archive has confirmed",
    "send_errors_total": "Times that sending did not end well",
    "poll_errors_total": "Times that the polled archive did not answer",
    "associations": "Connections at present",
    "pairs": "Pairs in each state",
    "spool_bytes": "Bytes in the spool",
    "spool_most_bytes": "Bytes that may be in the spool",
    "studies_waiting": "Studies that are not quiet yet",
}


class Counters:
    """Numbers by name and label; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, label: str = "", count: int = 1) -> None:
        """Count something.

        Args:
            name: one of :data:`MEANINGS` that ends in "_total".
            label: such as ``result="stored"``.
            count: how many.
        """
        with self._lock:
            self._counted[name, label] += count

    def get(self, name: str, label: str = "") -> int:
        """How many were counted."""
        with self._lock:
            return self._counted[name, label]

    def text(self, gauges: dict[tuple[str, str], float]) -> str:
        """All of them in Prometheus' text format 0.0.4.

        Args:
            gauges: what is not counted but is so now, by name and label.
        """
        with self._lock:
            told = {**self._counted, **gauges}
        lines = []
        for name, meaning in MEANINGS.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {PREFIX}{name} {meaning}.", f"# TYPE {PREFIX}{name} {kind}"]
            there = sorted((label, value) for (other, label), value in told.items() if other == name)
            for label, value in there or [("", 0)]:
                lines.append(f"{PREFIX}{name}{f'{{{label}}}' if label else ''} {value}")
        return "\n".join(lines) + "\n"


@contextmanager
def telling(host: str, port: int, metrics: Callable[[], str], health: Callable[[], tuple[bool, str]]) -> Iterator[int]:
    """Answer ``GET /metrics`` and ``GET /health`` (200, or 503 where it is not well) in a thread of its own.

    Args:
        host: to listen at.
        port: likewise; 0 for a free one.
        metrics: gives the text of the first.
        health: whether it is well, and the line that says so.

    Returns:
        The port.
    """

    class Answer(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:  # its name in the standard library
            pages: dict[str, Callable[[], tuple[bool, str]]] = {
                "/metrics": lambda: (True, metrics()),
                "/health": health,
            }
            page = pages.get(self.path)
            is_well, text = page() if page else (False, "no such page; /metrics and /health are\n")
            body = text.encode()
            self.send_response((200 if is_well else 503) if page else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((host, port), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="fusion-nets-health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
