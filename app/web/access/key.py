"""The key of a server: made or set, what of it is kept on the disk, and whether somebody has it.

Kept is a hash of the key, which nobody can turn back into it, and a secret by which browsers' cookies are made: whoever
signed in once goes on after a restart, until there is another key. Knows nothing of requests.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.errors import UserFacingError
from app.settings import AppSettings
from app.store.data_folder import storage_error

KEY_FILE = "access-key.json"
# 192 bits, 32 letters.
_KEY_BYTES = 24
_SECRET_BYTES = 32
# Of a key that the user has chosen.
LEAST_KEY_CHARACTERS = 16


@dataclass(frozen=True)
class AccessKey:
    """What a server knows of its key.

    Args:
        key_hash: SHA-256 of the key.
        cookie_secret: what makes the cookies of browsers that have signed in.
        made: the key itself, if it was made just now and has to be shown; else "".
    """

    key_hash: bytes
    cookie_secret: bytes
    made: str = ""

    def __repr__(self) -> str:
        # Neither in a log nor in a traceback.
        return "AccessKey(...)"

    def is_key(self, text: str) -> bool:
        """Whether that is the key; takes the same time whatever is wrong with it."""
        return hmac.compare_digest(_hash(text), self.key_hash)

    def cookie(self) -> str:
        """What a browser keeps in place of the key."""
        return hmac.new(self.cookie_secret, self.key_hash, hashlib.sha256).hexdigest()

    def is_cookie(self, text: str) -> bool:
        """Whether a browser was given that; takes the same time whatever is wrong with it."""
        return hmac.compare_digest(_hash(text), _hash(self.cookie()))


def open_access_key(settings: AppSettings) -> AccessKey | None:
    """The key that a server has to ask for; made at the first start.

    Args:
        settings: host, api_key, new_api_key, data_dir.

    Returns:
        None if nothing is asked: the server listens on the loopback alone, and no key was set.

    Raises:
        UserFacingError: the key that was set is too short, or what is kept cannot be read or written.
    """
    if settings.new_api_key and (settings.api_key or is_loopback(settings.host)):
        raise UserFacingError("--new-api-key is for a server with --listen that is given no --api-key.")
    if settings.api_key:
        _check(settings.api_key)
    elif is_loopback(settings.host):
        return None
    path = settings.data_dir / KEY_FILE
    try:
        key_hash, cookie_secret = _read(path)
        if settings.api_key:
            if not cookie_secret:
                cookie_secret = secrets.token_bytes(_SECRET_BYTES)
                _write(path, key_hash, cookie_secret)
            return AccessKey(_hash(settings.api_key), cookie_secret)
        if key_hash and not settings.new_api_key:
            return AccessKey(key_hash, cookie_secret)
        made = secrets.token_urlsafe(_KEY_BYTES)
        access = AccessKey(_hash(made), secrets.token_bytes(_SECRET_BYTES), made)
        _write(path, access.key_hash, access.cookie_secret)
        return access
    except OSError as error:
        raise storage_error(error, settings.data_dir) from error


def is_loopback(host: str) -> bool:
    """Whether a server on that address can be reached from its own machine alone. A name is taken to be no such."""
    host = host.strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(key: str) -> None:
    if len(key) < LEAST_KEY_CHARACTERS:
        raise UserFacingError(
            f"--api-key must have at least {LEAST_KEY_CHARACTERS} characters, and has {len(key)}. Choose a longer one, "
            "or leave it out: a server with --listen makes one."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserFacingError("--api-key may have letters without accents, digits and signs, and no spaces.")


def _hash(text: str) -> bytes:
    # Enough for a key that is random; one that the user has chosen is not kept at all.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _read(path: Path) -> tuple[bytes, bytes]:
    """Hash and secret; b"" for what is not kept.

    Raises:
        UserFacingError: it is no such file. Nobody is let in by a file that was tampered with.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return b"", b""
    if os.name == "posix":
        with suppress(PermissionError):
            path.chmod(0o600)
    try:
        kept = json.loads(text)
        key_hash, cookie_secret = bytes.fromhex(kept["key_sha256"]), bytes.fromhex(kept["cookie_secret"])
        if len(key_hash) not in (0, hashlib.sha256().digest_size) or len(cookie_secret) != _SECRET_BYTES:
            raise ValueError("a length is wrong")
    except (ValueError, TypeError, KeyError) as error:
        raise UserFacingError(
            f"The file of the server's key, {path}, is damaged. Delete it; the next start makes another key."
        ) from error
    return key_hash, cookie_secret


def _write(path: Path, key_hash: bytes, cookie_secret: bytes) -> None:
    """Put the file in place as a whole, for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    kept = {"key_sha256": key_hash.hex(), "cookie_secret": cookie_secret.hex()}
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
