"""pynetdicom's server with bounds: on what a peer may send, and on how long it may dither."""

import socket
import ssl
from collections.abc import Callable
from typing import Any, NoReturn, cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from oncofm.pacs.config_node import ServerTls
from oncofm.pacs.errors import NodeError

_MAX_REQUEST_BYTES = 1 << 20
"""Longest PDU of any kind but data: a request with 128 presentation contexts has 30 KB."""
_READ_BYTES = 1 << 18
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)
"""Linux waits 40 ms with what it confirms, and many a sender with its next bytes for that."""


class BoundedSocket(AssociationSocket):
    """Reads no PDU that is longer than agreed, and no object without end.

    Attributes
    ----------
    max_pdu_bytes, max_object_bytes : int
        Reading more is an error, which ends the association.
    on_failure : callable
        Told why, in a word.
    n_object_bytes : int
        Read since somebody last set it to 0.
    """

    max_pdu_bytes: int
    max_object_bytes: int
    on_failure: Callable[[str], None]
    n_object_bytes = 0
    has_failed = False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, in larger pieces than the library does."""
        self.n_object_bytes += nr_bytes
        if nr_bytes > max(self.max_pdu_bytes, _MAX_REQUEST_BYTES):
            self._refuse("pdu_too_long")
        if self.n_object_bytes > self.max_object_bytes:
            self._refuse("object_too_large")
        assert self.socket is not None
        found = bytearray()
        while len(found) < nr_bytes:
            if _QUICK_ACK is not None:
                self.socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            piece = self.socket.recv(min(nr_bytes - len(found), _READ_BYTES))
            if not piece:
                break
            found += piece
        return found

    def _refuse(self, reason: str) -> NoReturn:
        """Say once why, and end the association."""
        if not self.has_failed:
            self.has_failed = True
            self.on_failure(reason)
        raise OSError(reason)


class BoundedHandler(RequestHandler):
    """Gives each association a `BoundedSocket`."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        server = cast(BoundedServer, self.server)
        bounded = association.dul.socket
        assert bounded is not None
        bounded.__class__ = BoundedSocket  # the library has no place to name the class
        bounded = cast(BoundedSocket, bounded)
        bounded.max_pdu_bytes = server.max_pdu_bytes
        bounded.max_object_bytes = server.max_object_bytes
        bounded.on_failure = lambda reason: server.on_failure(reason, self.client_address[0])
        return association


class BoundedServer(ThreadedAssociationServer):
    """Answers each connection in a thread of its own, the handshake of TLS included.

    The library shakes hands in the thread that accepts connections, so that a peer which says
    nothing keeps all others out.

    Attributes
    ----------
    max_pdu_bytes, max_object_bytes : int
        As for `BoundedSocket`.
    idle_s : float
        After as long a silent handshake is over.
    on_failure : callable
        Told, in a word, why a connection came to nothing, and from which address it was.
    """

    daemon_threads = True
    block_on_close = False
    max_pdu_bytes: int
    max_object_bytes: int
    idle_s: float
    on_failure: Callable[[str, str], None]

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection and leave the handshake for later."""
        assert self.socket is not None
        return self.socket.accept()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, then start the association."""
        request.settimeout(self.idle_s)
        if self.ssl_context is not None:
            request = self.ssl_context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing here: whoever made the server hears of it through `on_failure`."""
        self.on_failure("no_association", client_address[0])


def server_tls(files: ServerTls) -> ssl.SSLContext:
    """Make the server's side of TLS; with `client_ca` clients need a certificate.

    Raises
    ------
    NodeError
        If a file cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        names = ", ".join(map(str, filter(None, [files.certificate, files.key, files.client_ca])))
        raise NodeError(
            f"TLS cannot be set up with {names} ({error.strerror or error}); mend these files."
        ) from error
    return context
