"""The HTTP port where the server speaks TLS: the same certificate, and the same callers."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest

from browser_call import browsing
from certificates import Authority, Pair
from playground_setting import MODELS, playing


@pytest.fixture(scope="module")
def servers() -> Authority:
    """Who signs the server."""
    return Authority("servers")


@pytest.fixture(scope="module")
def callers() -> Authority:
    """Who signs callers."""
    return Authority("callers")


@pytest.fixture
def settings(tmp_path: Path, servers: Authority) -> dict[str, Any]:
    """Of a server with TLS."""
    certificate, key = servers.issue().write(tmp_path / "tls")
    return {"tls_certificate": certificate, "tls_key": key}


def trusting(authority: Authority, pair: Path | None = None) -> ssl.SSLContext:
    """What a browser connects with: whom it trusts, and its own certificate."""
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    context.check_hostname = False
    if pair is not None:
        context.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    return context


async def test_page_and_calls_are_encrypted(settings: dict[str, Any], servers: Authority) -> None:
    """The page's origin is then https, and none else may call."""
    async with (
        playing(**settings) as setting,
        browsing(setting.port, trusting(servers)) as browser,
    ):
        origin = f"https://127.0.0.1:{setting.port}"
        page = await browser.get()
        answer = await browser.call(MODELS, {}, origin=origin)
        other = await browser.call(MODELS, {}, origin=origin.replace("https", "http"))
    assert (page.code, answer.code, other.code) == (200, 200, 403)


async def test_what_is_not_encrypted_is_not_served(settings: dict[str, Any]) -> None:
    """A token would be read on its way."""
    async with playing(**settings) as setting, setting.browse() as browser:
        browser.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in await browser.reader.read()


async def test_mutual_tls_holds_for_browsers_too(
    settings: dict[str, Any], servers: Authority, callers: Authority, tmp_path: Path
) -> None:
    """Whose certificate nobody signed, or who has none, gets no page."""
    client_ca = tmp_path / "ca.crt"
    client_ca.write_bytes(callers.certificate)
    callers.issue("researcher").write(tmp_path / "signed")
    servers.issue("somebody").write(tmp_path / "stranger")
    async with playing(**settings, tls_client_ca=client_ca) as setting:
        signed = trusting(servers, tmp_path / "signed")
        async with browsing(setting.port, signed) as browser:
            assert (await browser.get()).code == 200
            origin = f"https://127.0.0.1:{setting.port}"
            assert (await browser.call(MODELS, {}, origin=origin)).code == 200
        for pair in (None, tmp_path / "stranger"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with browsing(setting.port, trusting(servers, pair)) as browser:
                    await browser.get()
        setting.servicer.arrived.clear()
    assert not setting.servicer.arrived.is_set()


async def test_renewed_certificate_counts_for_the_next_connection(
    settings: dict[str, Any], servers: Authority, tmp_path: Path
) -> None:
    """One that does not fit leaves the former in use."""
    renewing = Authority("new servers")
    async with playing(**settings) as setting:
        (tmp_path / "tls" / "tls.key").write_bytes(Pair(b"", renewing.issue().key).key)
        async with browsing(setting.port, trusting(servers)) as browser:
            assert (await browser.get()).code == 200
        renewing.issue().write(tmp_path / "tls")
        async with browsing(setting.port, trusting(renewing)) as browser:
            assert (await browser.get()).code == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            async with browsing(setting.port, trusting(servers)):
                pass
