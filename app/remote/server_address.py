"""Where another engine is asked, and with which key. Knows nothing of what is asked."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from app.errors import UserFacingError


@dataclass(frozen=True)
class ServerAddress:
    """An OpenAI-compatible server.

    Args:
        base: its address up to and with "/v1", without a slash at the end.
        key: sent with each request; "" for none.
    """

    base: str
    key: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str, key: str = "") -> ServerAddress:
        """What a user means by an address, with or without "/v1" and a slash at its end.

        Raises:
            UserFacingError: it is none, or holds a password; or the key cannot be sent.
        """
        example = "Give one like http://127.0.0.1:8000."
        try:
            parts = urlsplit(url.strip() if "://" in url else f"http://{url.strip()}")
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise UserFacingError(f"--engine-url is no address ({error}). {example}") from None
        if parts.username is not None or parts.password is not None:
            raise UserFacingError("--engine-url must not hold a name or a password. Give a key with --engine-key.")
        if parts.scheme not in ("http", "https") or not host or any(blank in url.strip() for blank in " \t\r\n"):
            raise UserFacingError(f"--engine-url {url!r} is no address of a web server. {example}")
        if parts.query or parts.fragment:
            raise UserFacingError(f"--engine-url must end before the ? or #. {example}")
        path = parts.path.rstrip("/")
        for end in ("/chat/completions", "/completions", "/models"):
            path = path.removesuffix(end)
        if not path.endswith("/v1"):
            path += "/v1"
        key = key.strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UserFacingError("--engine-key holds characters that no key has. Copy it again, without line breaks.")
        return cls(urlunsplit((parts.scheme, parts.netloc, path, "", "")), key)

    @property
    def shown(self) -> str:
        """The address for people."""
        return self.base.removesuffix("/v1")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, where no proxy is asked."""
        host = urlsplit(self.base).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with each request."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def without_key(self, text: str) -> str:
        """A text of the server's, which may quote the key."""
        return text.replace(self.key, "…") if self.key else text
