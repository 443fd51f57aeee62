"""The DICOM node: takes C-ECHO, and C-STORE of images from those that are named."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusion_nets.files import WriteError
from fusion_nets.quiet import Shared

from .counters import Counters
from .spool import Refusal, Refused, Spool

if TYPE_CHECKING:
    from pynetdicom.events import Event

__all__ = ["SOURCES", "SYNTAXES", "Tls", "check_title", "listening", "needs_pacs"]

logger = logging.getLogger(__name__)

SOURCES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR",
    "1.2.840.10008.5.1.4.1.1.4.3": "Enhanced MR Color",
    "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
    "1.2.840.10008.5.1.4.1.1.128": "PET",
    "1.2.840.10008.5.1.4.1.1.128.1": "Legacy Converted Enhanced PET",
    "1.2.840.10008.5.1.4.1.1.130": "Enhanced PET",
}
"""Storage SOP classes that are taken, and what they are."""

SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
)
"""Transfer syntaxes that are taken: uncompressed, JPEG, JPEG-LS, JPEG 2000, RLE; not deflated."""

VERIFICATION = "1.2.840.10008.1.1"
PDU = 2**16
"""Bytes of a PDU that senders are asked to keep to."""
MOST_PDU = 2**20
"""Bytes of a PDU beyond which the connection is closed before they are read."""
SILENT = 60.0
"""Seconds after which a connection that says nothing is closed."""
GREETING = 30.0
"""Seconds within which it must ask for an association."""


def needs_pacs(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """What to raise where pynetdicom or dicomweb-client is missing."""
    return ModuleNotFoundError(
        f'{error.name} is not installed, which receiving and sending need: pip install "fusion-nets[pacs]"'
    )


def check_title(title: str, where: str) -> str:
    """An AE title (PS3.5 section 6.2), if it is one.

    Raises:
        ValueError: for another.
    """
    if not (title.strip() and len(title) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
        raise ValueError(f"{where} is {title[:40]!r}; an AE title of up to 16 printable ASCII characters is accepted")
    return title.strip()


@dataclass(frozen=True)
class Tls:
    """Files of a node's certificate (PEM).

    Attributes:
        certificate: of this node, with what it was signed by.
        key: of it.
        authority: whose certificates the other side must have; None to ask for none, as a server, and to take those
            that the system knows, as a client.
    """

    certificate: str
    key: str
    authority: str | None = None

    def server(self) -> ssl.SSLContext:
        """For those that connect to this node.

        Raises:
            ValueError: for a file that cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return self._loaded(context)

    def client(self) -> ssl.SSLContext:
        """For those that this node connects to; their host name must be that of the certificate.

        Raises:
            ValueError: for a file that cannot be used.
        """
        return self._loaded(ssl.create_default_context())

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.authority is not None:
                context.load_verify_locations(self.authority)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(
                f"--tls_cert {self.certificate}, --tls_key {self.key}, --tls_ca {self.authority}: cannot be used "
                f"({error.strerror or error}); PEM files, the key without a password, are accepted"
            ) from error
        return context


@contextmanager
def listening(
    spool: Spool,
    title: str,
    address: tuple[str, int],
    allowed: Sequence[str],
    counters: Counters,
    tls: Tls | None = None,
    most_associations: int = 8,
    most_a_second: float | None = None,
) -> Iterator[tuple[int, Callable[[], int]]]:
    """Take objects into a spool, in threads of their own, while the block runs.

    Args:
        spool: that is open.
        title: AE title of this node, which senders must call.
        address: host and port to listen at; port 0 for a free one.
        allowed: AE titles of those that may send.
        counters: of what is taken and refused.
        tls: certificate; None for connections in the clear.
        most_associations: at a time.
        most_a_second: objects that are taken of one address; None for as many as come.

    Returns:
        The port, and what tells how many connections there are at present.

    Raises:
        ModuleNotFoundError: if pynetdicom is not installed.
        OSError: if the port cannot be had.
    """
    try:
        from pynetdicom import AE, evt
    except ModuleNotFoundError as error:
        raise needs_pacs(error) from error

    ae = AE(title)
    ae.require_called_aet = True
    ae.require_calling_aet = list(allowed)
    ae.maximum_associations = most_associations
    ae.maximum_pdu_size = PDU
    ae.acse_timeout, ae.network_timeout, ae.dimse_timeout = GREETING, SILENT, SILENT
    ae.add_supported_context(VERIFICATION)
    for sop_class in SOURCES:
        ae.add_supported_context(sop_class, list(SYNTAXES))

    def refused(event: Event) -> None:
        called, calling = event.assoc.acceptor.ae_title, event.assoc.requestor.ae_title
        primitive = event.assoc.requestor.primitive
        named = calling in allowed and getattr(primitive, "called_ae_title", called) == called
        counters.add("associations_refused_total", f'reason="{"limit" if named else "title"}"')
        reason = "too many at a time" if named else "an AE title is not allowed"
        logger.warning("an association from %s is refused: %s", event.assoc.requestor.address, reason)

    turns = _Turns(most_a_second, counters)

    def taken(event: Event) -> Any:
        turns.wait(event.assoc.requestor.address)
        return _answer(event, spool, counters)

    handlers: list[Any] = [
        (evt.EVT_C_STORE, taken),
        (evt.EVT_REJECTED, refused),
        (evt.EVT_PDU_RECV, _Limit(spool.most_object, counters)),
    ]
    with _SILENCED:
        server = ae.make_server(
            address,
            evt_handlers=handlers,
            server_class=_server_class(2 * most_associations + 8),
            request_handler=_handler_class(tls.server() if tls else None, counters),
        )
        ae._servers.append(server)  # so that `shutdown` ends its associations; `start_server` has no class of its own
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="fusion-nets-node", daemon=True)
        thread.start()
        try:
            yield server.server_address[1], lambda: len(server.active_associations)
        finally:
            ae.shutdown()
            thread.join(10)


def _answer(event: Event, spool: Spool, counters: Counters) -> Any:
    """The status of a C-STORE: success for what is on the disk, and nothing else."""
    from pydicom import Dataset

    status = Dataset()
    try:
        request: Any = event.request
        result = spool.store(
            event.encoded_dataset(), str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID)
        )
        status.Status = 0
    except Refused as error:
        result, status.Status, status.ErrorComment = error.refusal.name.lower(), error.refusal.value, str(error)[:64]
        logger.warning("an object is refused: %s", error)
    except Exception as error:
        is_room = isinstance(error, (WriteError, MemoryError))
        refusal = Refusal.FULL if is_room else Refusal.DAMAGED
        result, status.Status = refusal.name.lower(), refusal.value
        logger.warning("an object is refused: %s", error if isinstance(error, WriteError) else type(error).__name__)
    counters.add("objects_total", f'result="{result}"')
    return status


class _Turns:
    """Has a sender wait that sends faster than it may: the next object comes when this one is answered.

    No status says "more slowly", and one that refuses ends many a sender's job.
    """

    def __init__(self, most: float | None, counters: Counters) -> None:
        self.most = most
        self.counters = counters
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}

    def wait(self, address: str) -> None:
        """Until it is the turn of an object from there."""
        if self.most is None:
            return
        with self._lock:
            now = time.monotonic()
            self._next = {other: turn for other, turn in self._next.items() if turn > now}
            turn = self._next.get(address, now)
            self._next[address] = turn + 1 / self.most
        if turn > now:
            self.counters.add("objects_held_total")
            time.sleep(turn - now)


class _Limit:
    """Closes a connection whose object is larger than is accepted, before it fills the memory."""

    def __init__(self, most: int, counters: Counters) -> None:
        self.most = most
        self.counters = counters

    def __call__(self, event: Event) -> None:
        items = getattr(event.pdu, "presentation_data_value_items", ())
        association: Any = event.assoc
        seen = getattr(association, "_bytes_of_object", 0)
        for item in items:
            value = item.presentation_data_value
            is_last = bool(value[0] & 2)  # PS3.8 annex E.2
            seen += len(value)
            if seen > self.most + PDU:
                self.counters.add("objects_total", 'result="too_large"')
                logger.warning("an object is refused: larger than is accepted; its connection is closed")
                association.dul.socket.close()
                return
            seen = 0 if is_last else seen
        association._bytes_of_object = seen


def _handler_class(context: ssl.SSLContext | None, counters: Counters) -> Any:
    """A connection whose handshake and reading are bounded, of which pynetdicom bounds neither."""
    from pynetdicom.transport import RequestHandler

    class Handler(RequestHandler):
        def handle(self) -> None:
            self.request.settimeout(SILENT)
            if context is not None:
                try:
                    self.request = context.wrap_socket(self.request, server_side=True)
                except OSError:
                    counters.add("associations_refused_total", 'reason="tls"')
                    logger.warning("an association is refused: no TLS by a certificate that is accepted")
                    self.request.close()
                    return
            super().handle()

        def _create_association(self) -> Any:
            association = super()._create_association()
            socket: Any = association.dul.socket
            read = socket.recv

            def bounded(count: int) -> bytearray:
                content = bytearray()
                try:
                    if count > MOST_PDU:
                        counters.add("associations_refused_total", 'reason="pdu"')
                        logger.warning("a connection is closed: a PDU of more than %d KiB", MOST_PDU >> 10)
                        raise OSError("a PDU larger than is accepted")
                    content = read(count)
                finally:
                    if len(content) < count and association.requestor.primitive is None:
                        # nothing will be asked for any more, for which it would wait and count as one of the most
                        association.dul.to_user_queue.put(None)
                return content

            socket.recv = bounded
            return association

    return Handler


def _server_class(most_connections: int) -> Any:
    """A server that takes no more connections than it can have associations, and their refusals."""
    from pynetdicom.transport import ThreadedAssociationServer

    class Server(ThreadedAssociationServer):
        daemon_threads = True

        def verify_request(self, *_: Any) -> bool:
            return len(self.active_associations) < most_connections

        def handle_error(self, *_: Any) -> None:
            logger.warning("a connection ended by an error of its own")

    return Server


@contextmanager
def _without_words() -> Iterator[None]:
    """Pynetdicom logs what it is sent, and its threads know no context."""
    library = logging.getLogger("pynetdicom")
    level = library.level
    library.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        library.setLevel(level)


_SILENCED = Shared(_without_words)
