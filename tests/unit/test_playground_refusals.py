"""What the HTTP port refuses before there is a call: strangers' pages, wrong forms, too much."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest

import seqserve.playground.connection as connection_module
import seqserve.playground.listener as listener_module
from browser_call import PATIENCE_SECONDS, STREAM, browsing
from playground_setting import MODELS, playing
from seqserve.config import ServerConfig
from seqserve.config_source import read_config
from seqserve.errors import ConfigurationError
from seqserve.playground.opening import open_playground

FOREIGN = (
    "403 PERMISSION_DENIED: calls of other pages are refused: only the playground's own may call"
)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
    ids=str,
)
async def test_call_of_another_page_is_refused(headers: dict[str, str]) -> None:
    """A browser tells on itself; nobody is told that calls across origins are allowed."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.call(MODELS, {}, **headers)
        assert not setting.servicer.arrived.is_set()
    assert answer.status == FOREIGN
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_question_before_a_call_across_origins_is_not_answered() -> None:
    """What a browser asks before it lets another page send JSON."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.get(f"/api/{MODELS}", "OPTIONS", origin="http://evil.example")
    assert answer.status == "405 INVALID_ARGUMENT: calls are made with POST, not with OPTIONS"
    assert answer.headers["allow"] == "POST"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "a@localhost", "x:y", "127.0.0.1.nip.io"]
)
@pytest.mark.parametrize("path", ["/", f"/api/{MODELS}"])
async def test_name_that_nobody_gave_to_the_server_is_refused(host: str, path: str) -> None:
    """It may be a stranger's that leads here (DNS rebinding); then even the page is kept back."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.get(path, host=host)
    assert answer.status == (
        f"421 PERMISSION_DENIED: '{host}' is no name of this server: use localhost or an address, "
        "or add the name to playground_hosts"
    )


@pytest.mark.parametrize("host", ["localhost:1", "[::1]:8080", "10.0.0.7", "Play.Example", "b.c:9"])
async def test_known_names_and_addresses_are_served(host: str) -> None:
    """Names are those of the setting, in any case; ports may be those of a tunnel."""
    async with playing(playground_hosts="play.example,b.c") as setting, setting.browse() as browser:
        page = await browser.get(host=host)
        answer = await browser.call(MODELS, {}, host=host, origin=f"https://{host}")
    assert (page.code, answer.code) == (200, 200)


async def test_program_without_origin_may_call() -> None:
    """It is no browser, and could send any."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.call(MODELS, {}, origin="")
    assert (answer.code, answer.body) == (200, b"{}")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_body_that_any_page_may_send_is_refused(kind: str) -> None:
    """Forms and plain texts are sent across origins without a question."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.call(MODELS, {}, content_type=kind)
    assert answer.status == (
        "415 INVALID_ARGUMENT: the header Content-Type must be application/json, once"
    )


async def test_connection_without_a_request_is_closed() -> None:
    """After as long as a handshake may take."""
    async with playing(handshake_seconds=0.1) as setting, setting.browse() as browser:
        browser.writer.write(b"GET / HTTP/1.1\r\n")
        assert await browser.reader.read() == b""


async def test_what_is_no_http_is_answered_with_an_error() -> None:
    """In JSON, as all errors are; the connection ends."""
    async with playing() as setting, setting.browse() as browser:
        browser.writer.write(b"\x16\x03\x01hello\r\n\r\n")
        data = await browser.reader.read()
    assert data.startswith(b"HTTP/1.1 400 ")
    message = json.loads(data.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert message.startswith("the request is no HTTP/1.1 that is understood here: ")


@pytest.mark.parametrize(
    "path",
    [
        "/favicon.ico",
        "/metrics",
        "/../config.py",
        "/api/seqserve.v1.ModelService/LoadModel",
        "/api/seqserve.v1.ModelService/UnloadModel",
        "/api/seqserve.v1.GenerationService/Generate",
        "/api/grpc.health.v1.Health/Check",
    ],
)
async def test_nothing_else_is_here(path: str) -> None:
    """One page, and the calls that it makes."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.get(path, "POST", content_length="0")
    assert answer.code == 404
    assert answer.error["message"].startswith(
        "nothing is here; the page is at /, and its calls are /api/seqserve.v1.ModelService/List"
    )


async def test_page_is_read_and_not_written() -> None:
    """GET and HEAD; nothing in a query matters."""
    async with playing() as setting, setting.browse() as browser:
        page = await browser.get("/?a=b")
        head = await browser.get(verb="HEAD")
        answer = await browser.get(verb="DELETE")
    assert page.code == head.code == 200
    assert head.headers["content-length"] == str(len(page.body))
    assert answer.status == "405 INVALID_ARGUMENT: the page is read with GET, not with DELETE"


async def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with a request go on."""
    monkeypatch.setattr(listener_module, "_MAX_CONNECTIONS", 1)
    async with playing() as setting, setting.browse() as browser:
        await browser.send(STREAM, {"input": {"text": "one"}})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.servicer.arrived.wait()
        async with browsing(setting.port) as other:
            with pytest.raises(ConnectionError):
                await other.get()
        setting.servicer.turns.release()
        assert (await browser.receive()).code == 200


async def test_connection_without_a_request_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has waited longest: connections that are only kept open keep nobody out."""
    monkeypatch.setattr(listener_module, "_MAX_CONNECTIONS", 2)
    async with playing() as setting, setting.browse() as first, setting.browse() as second:
        assert (await first.get()).code == 200
        assert (await second.get()).code == 200
        assert (await first.get()).code == 200
        async with setting.browse() as third:
            assert (await third.get()).code == 200
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await second.reader.read() == b""
        assert (await first.get()).code == 200


async def test_reader_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its call is cancelled: the answer would wait for ever."""
    monkeypatch.setattr(connection_module, "_WRITE_SECONDS", 0.2)
    async with playing() as setting, setting.browse() as browser:
        setting.servicer.turns.release()
        await browser.send(STREAM, {"input": {"text": f"{'a' * 8_000_000} never"}})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.servicer.left.wait()


async def test_port_that_is_taken_is_named() -> None:
    """The message is that of a start that fails."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            async with playing(playground_port=port):
                pass
    assert str(caught.value) == (
        f"playground_port: 127.0.0.1:{port} cannot be bound; another process may be using it"
    )


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the playground is on."""
    for name in [name for name in sys.modules if name.startswith("seqserve.playground.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "h11", None)
    assert open_playground(ServerConfig(), [], has_tokens=False) is None
    with pytest.raises(ConfigurationError) as caught:
        open_playground(ServerConfig(playground=True), [], has_tokens=False)
    assert str(caught.value) == (
        "playground is set, but h11 is not installed; install seqserve[playground], or leave "
        "playground out"
    )


def test_settings_come_from_everywhere(tmp_path: Path) -> None:
    """Flag, variable and file, like all."""
    file = tmp_path / "seqserve.toml"
    file.write_text('playground_hosts = "play.example"', encoding="utf-8")
    config = read_config({"playground": True}, file, {"SEQSERVE_PLAYGROUND_PORT": "81"})
    found = (config.playground, config.playground_port, config.playground_hosts)
    assert found == (True, 81, "play.example")
    assert not ServerConfig().playground


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"playground_hosts": "a.b"}, "playground_hosts has an effect with playground only"),
        (
            {"playground": True, "playground_hosts": "http://a.b"},
            "--playground-hosts: String should match pattern",
        ),
    ],
    ids=["off", "pattern"],
)
def test_settings_without_effect_are_refused(settings: dict[str, object], message: str) -> None:
    """Names of hosts, without scheme or port, and only where they are used."""
    with pytest.raises(ConfigurationError) as caught:
        read_config(settings, None, {})
    assert message in str(caught.value)
