"""Model and window, as different servers tell them."""

from __future__ import annotations

import pytest

from app.errors import UserFacingError
from app.remote.served_model import served_model
from app.remote.server_address import ServerAddress


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ({"max_model_len": 32768}, 32768),
        ({"context_length": 4096}, 4096),
        ({"meta": {"n_ctx_train": 8192}}, 8192),
        ({"meta": {"n_ctx_train": 8192, "n_ctx": 2048}}, 2048),
        ({"meta": None, "owned_by": "llamacpp"}, None),
        ({"max_model_len": "many"}, None),
        ({"max_model_len": True}, None),
        ({}, None),
    ],
)
def test_the_window_is_read_where_it_is_told(server, entry, window):
    server.models = (200, {"data": [{"id": "models/small.gguf", **entry}]})
    model = served_model(ServerAddress.of(server.url))
    assert (model.model_id, model.name, model.context_tokens) == ("models/small.gguf", "small", window)


def test_of_several_one_must_be_named(server):
    server.models = (200, {"data": [{"id": "small"}, {"id": "owner/large"}]})
    address = ServerAddress.of(server.url)
    with pytest.raises(UserFacingError, match="--engine-model: small, owner/large"):
        served_model(address)
    assert served_model(address, "large").model_id == "owner/large"
    with pytest.raises(UserFacingError, match="no model 'middle'. It has small, owner/large"):
        served_model(address, "middle")


@pytest.mark.parametrize(
    ("models", "about"),
    [
        ((401, {"error": {"message": "no"}}), "does not accept the key"),
        ((404, {}), "does not speak OpenAI's API"),
        ((500, b"oops"), "error of its own"),
        ((200, b"<html>"), "no JSON"),
        ((200, {"data": 3}), "lists no models"),
        ((200, {"data": []}), "no model loaded"),
        ((302, b""), "redirects to http://elsewhere.invalid/v1/models"),
    ],
)
def test_what_stops_it_is_told(server, models, about):
    server.models = models
    with pytest.raises(UserFacingError, match=about) as raised:
        served_model(ServerAddress.of(server.url))
    assert server.url in raised.value.message and "token=1" not in raised.value.message


def test_one_without_a_list_is_asked_by_name(server):
    server.models = (404, {})
    assert served_model(ServerAddress.of(server.url), "small").model_id == "small"


def self_signed(folder):
    """Files of a certificate that nobody has signed, and of its key."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number()).not_valid_before(now)
    certificate = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return folder / "certificate.pem", folder / "key.pem"


def test_a_certificate_that_is_not_trusted_and_a_server_without_one_are_told(server, tmp_path):
    import ssl
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as signed:
        signed.socket = context.wrap_socket(signed.socket, server_side=True)
        threading.Thread(target=signed.serve_forever, daemon=True).start()
        with pytest.raises(UserFacingError, match="is not trusted: self.signed certificate.*SSL_CERT_FILE"):
            served_model(ServerAddress.of(f"https://127.0.0.1:{signed.server_port}"))
        signed.shutdown()
    with pytest.raises(UserFacingError, match="does not speak https"):
        served_model(ServerAddress.of(server.url.replace("http://", "https://")))
