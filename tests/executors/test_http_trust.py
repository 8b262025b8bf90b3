"""Endpoints behind TLS: who is trusted, and what happens with the others."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from bridge.invocation import Failed
from tests.contracts.executor import answer, error, invocation
from tests.executors.endpoint import behind, calling, far

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and a self-signed certificate of localhost."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return key, certificate


@pytest.fixture
def served(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    key, chain = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


async def test_a_certificate_that_nobody_trusts(served: ssl.SSLContext) -> None:
    async with far(served) as server, calling(behind(server.plain("echo"))) as executor:
        outcome = await executor.invoke(invocation())
        assert server.seen == []
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable"
    assert "certificate is not trusted" in error(outcome)["errorMessage"]
    assert "ca_file" in error(outcome)["errorMessage"]


async def test_an_authority_of_ones_own(served: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
    async with far(served) as server:
        async with calling(behind(server.plain("echo"), ca_file=certificate[1])) as executor:
            assert answer(await executor.invoke(invocation({"a": 1}))) == {"a": 1}
        another = server.plain("echo").replace("localhost", "127.0.0.1")
        async with calling(behind(another, ca_file=certificate[1])) as executor:
            outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable", "it is not the one meant"


async def test_no_verification(served: ssl.SSLContext) -> None:
    async with far(served) as server, calling(behind(server.plain("echo"), verify=False)) as executor:
        assert answer(await executor.invoke(invocation({"a": 1}))) == {"a": 1}


async def test_https_at_a_server_that_does_not_speak_it() -> None:
    async with far() as server, calling(behind(server.plain("echo").replace("http:", "https:"))) as executor:
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable"
