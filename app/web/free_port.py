"""Whether an address can be served on, asked before anything slow starts."""

from __future__ import annotations

import errno
import socket

from app.errors import UserFacingError


def ensure_port_is_free(host: str, port: int) -> None:
    """Raise UserFacingError if a server could not listen on `host`:`port`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UserFacingError(f"{host!r} is no address of this machine. Give one with --host.") from error
    with socket.socket(family, kind, protocol) as probe:
        # As the server does: a port that a closed connection still lingers on can be taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = f"Port {port} is in use, perhaps by another Quest Chat. Choose another with --port."
            elif error.errno == errno.EACCES:
                reason = f"Port {port} needs administrator rights. Choose one above 1023 with --port."
            else:
                reason = f"{host}:{port} cannot be served on: {error.strerror}. Choose another with --host and --port."
            raise UserFacingError(reason) from error
