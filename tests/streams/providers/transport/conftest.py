"""Certificates for 127.0.0.1 and nobody else; every test runs on both event loops."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Served = tuple[ssl.SSLContext, Path]


def _served(folder: Path, days: int) -> Served:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - dt.timedelta(days=10))
        .not_valid_after(end)
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / "cert.pem", folder / "key.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context, file


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return _served(tmp_path_factory.mktemp("tls"), 5)


@pytest.fixture(scope="session")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return _served(tmp_path_factory.mktemp("expired"), -1)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on asyncio's loop and on the worker's."""
    del config, item
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
