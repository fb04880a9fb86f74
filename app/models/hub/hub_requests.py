"""What is asked of the hub about a model, and what to tell of its refusals.

Runs in the process of `hub_process.py`. The access token goes to the hub alone, never into a message, and never to the
hosts that the hub sends one to for large files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_session, get_token, hf_hub_url
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers

from app.models.hub.hub_model import HubError, HubFile, HubModel, config_that_matters, needed_files, split_model_id

ANSWER_S = 10.0
_TIMEOUT = httpx2.Timeout(ANSWER_S, read=20.0)
_MOST_REDIRECTS = 5
_MOST_CONFIG_BYTES = 1 << 20
_MOST_WAIT_S = 600.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Unreachable(HubError):
    """The hub or the network does not answer now, and may later.

    Args:
        message: a sentence without an end, e.g. "The connection to huggingface.co was lost".
        wait_s: how long the hub asks to wait.
    """

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__("unreachable", message)
        self.wait_s = wait_s


def look_up(model_id: str) -> HubModel:
    """What the hub says of a model, without its weights.

    Raises:
        HubError: there is none that could be downloaded and read.
        Unreachable: the hub does not answer.
    """
    repository, gguf = split_model_id(model_id)
    with explained(repository):
        info = HfApi().model_info(repository, files_metadata=True, timeout=ANSWER_S)
        files = _files(model_id, info)
        config: dict[str, Any] = {}
        if gguf:
            # Whether this user is let in is said of files alone.
            _location(repository, info.sha, files[0])
        else:
            config = _read_config(repository, info.sha, next(file for file in files if file.name == "config.json"))
            config = config_that_matters(repository, config)
    card = info.card_data or {}
    licence = card.get("license_name") or card.get("license") or ""
    return HubModel(
        model=model_id,
        commit=info.sha,
        licence=str(licence)[:60],
        is_gated=bool(info.gated),
        config=config,
        files=files,
    )


def _files(model_id: str, info: Any) -> tuple[HubFile, ...]:
    known = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    files = []
    for name in needed_files(model_id, known):
        one = known[name]
        try:
            if one.lfs is not None:
                files.append(HubFile(name, one.lfs.size, one.lfs.sha256))
            else:
                files.append(HubFile(name, one.size, one.blob_id))
        except ValueError as error:
            raise HubError("failed", f"{model_id} cannot be downloaded: the hub says that {error}.") from error
    return tuple(sorted(files, key=lambda file: (file.size_bytes, file.name)))


def _read_config(repository: str, commit: str, file: HubFile) -> dict[str, Any]:
    content = b""
    if file.size_bytes <= _MOST_CONFIG_BYTES:
        with opened(repository, commit, file, 0) as response:
            for block in response.iter_bytes():
                content += block
                if len(content) > file.size_bytes:
                    break
    digest = file.new_digest()
    digest.update(content)
    try:
        config = json.loads(content) if digest.hexdigest() == file.blob else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise HubError("unsupported", f"{repository} cannot be used: its config.json is damaged. Choose another model.")
    return config


@contextmanager
def opened(repository: str, commit: str, file: HubFile, start: int) -> Iterator[httpx2.Response]:
    """The hub's answer to a request for a file from byte `start` on; its body is read from it.

    Raises:
        HubError: as `explained`, which is around this.
    """
    address, has_token = _location(repository, commit, file)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    for _ in range(_MOST_REDIRECTS):
        sent = headers | (build_hf_headers() if has_token else build_hf_headers(token=False))
        with get_session().stream("GET", address, headers=sent, timeout=_TIMEOUT, follow_redirects=False) as response:
            if not response.has_redirect_location:
                if response.status_code not in (200, 206, 416):
                    response.raise_for_status()
                    raise Unreachable(f"The hub gave an answer that is no file ({response.status_code})")
                yield response
                return
            address = _redirected(address, response.headers["Location"])
            has_token = has_token and _is_hub(address)
    raise Unreachable("The hub sends one from address to address")


def _location(repository: str, commit: str, file: HubFile) -> tuple[str, bool]:
    """Where a file's bytes are now, and whether the token may go there."""
    url = hf_hub_url(repository, file.name, revision=commit)
    found = get_hf_file_metadata(url, timeout=ANSWER_S)
    if found.commit_hash is None:
        # A page that one must pass in a hotel's or a firm's network, for instance.
        raise Unreachable(f"What answers at {hub_name()} is not the hub; a proxy or a login page may be in between")
    if found.etag != file.blob or found.size not in (None, file.size_bytes):
        raise HubError("changed", f"{file.name} has changed on the hub. Remove this download and start it again.")
    return _redirected(url, found.location), _is_hub(_redirected(url, found.location))


def _redirected(address: str, location: str) -> str:
    target = urljoin(address, location)
    if urlsplit(target).scheme not in ("https", urlsplit(constants.ENDPOINT).scheme):
        raise HubError("failed", "The hub sent the download to an address without encryption; it was not followed.")
    return target


def _is_hub(address: str) -> bool:
    return _origin(address) == _origin(constants.ENDPOINT)


def _origin(address: str) -> tuple[str, str, int]:
    parts = urlsplit(address)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def hub_name() -> str:
    """The hub's host, for people."""
    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


@contextmanager
def explained(repository: str) -> Iterator[None]:
    """Turn what goes wrong inside into a `HubError` or `Unreachable` about that repository."""
    try:
        yield
    except HubError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError("offline", "Quest Chat is offline (HF_HUB_OFFLINE is set).") from error
    except HFValidationError as error:
        raise HubError("unknown", f"There is no model {repository!r}: an id is written owner/name.") from error
    except GatedRepoError as error:
        raise HubError("gated", _gated_message(repository)) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            "unknown",
            f"The hub knows no model {repository}, or it is private. Check the spelling; for a private one, start "
            "Quest Chat with HF_TOKEN set to an access token.",
        ) from error
    except (RevisionNotFoundError, RemoteEntryNotFoundError) as error:
        message = f"A file of {repository} is not on the hub any more. Remove this download and start it again."
        raise HubError("changed", message) from error
    except FileMetadataError as error:
        message = f"What answers at {hub_name()} is not the hub; a proxy or a login page may be in between"
        raise Unreachable(message) from error
    except (HfHubHTTPError, httpx2.HTTPStatusError) as error:
        raise _explained_status(repository, error.response) from error
    except httpx2.TimeoutException as error:
        raise Unreachable(f"{hub_name()} does not answer") from error
    except httpx2.HTTPError as error:
        raise Unreachable(f"The connection to {hub_name()} was lost") from error


def _gated_message(repository: str) -> str:
    page = f"{constants.ENDPOINT}/{repository}"
    if get_token() is None:
        return (
            f"{repository} is given only to those who accept its licence. Sign in at {page}, accept it there, make an "
            "access token in your account's settings, and start Quest Chat with HF_TOKEN set to it (or run `hf auth "
            "login`). Or choose a model without such a condition."
        )
    return (
        f"{repository} is given only to those who accept its licence, and your account has not been let in. Accept it "
        f"at {page}, or wait until its owner has agreed; then try again. Or choose a model without such a condition."
    )


def _explained_status(repository: str, response: httpx2.Response) -> HubError:
    status = response.status_code
    if status == 429:
        wait_s = _retry_after(response)
        return Unreachable("The hub has had too many requests from this address", wait_s)
    if status >= 500 or status == 408:
        return Unreachable(f"The hub has trouble of its own ({status})", _retry_after(response))
    is_hub = _is_hub(str(response.request.url))
    if not is_hub and status in (400, 401, 403, 404, 410):
        # Addresses of large files hold for an hour or so; the next attempt asks for a new one.
        return Unreachable(f"The address of the file has expired ({status})")
    if status == 401:
        return HubError(
            "gated",
            f"The hub refuses the access token, or {repository} needs one. Make a new token in your account's settings "
            "on the hub, and start Quest Chat with HF_TOKEN set to it.",
        )
    if status == 403:
        return HubError("gated", f"The hub does not let you have {repository} (403). Look at its page on the hub.")
    return HubError("failed", f"The hub refuses to give {repository} ({status}). Try another model.")


def _retry_after(response: httpx2.Response) -> float:
    try:
        return min(_MOST_WAIT_S, max(0.0, float(response.headers.get("Retry-After", 0))))
    except ValueError:
        return 0.0
