"""TLS and mutual TLS: who gets through, and certificates that change while the server runs."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certificates import Authority, Pair
from processes import read_metrics, start_process
from seqserve.__main__ import main
from seqserve.client import AsyncClient
from seqserve.v1 import model_pb2, model_pb2_grpc
from serving import MakeServer

PATIENCE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Party:
    """What a caller connects with."""

    trusted: bytes | None
    """Who signs servers; None for no TLS at all."""
    pair: Pair | None = None

    def channel(self, port: int) -> grpc.aio.Channel:
        """A connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        if self.trusted is None:
            return grpc.aio.insecure_channel(f"localhost:{port}", options)
        key, chain = (None, None) if self.pair is None else (self.pair.key, self.pair.certificate)
        credentials = grpc.ssl_channel_credentials(self.trusted, key, chain)
        return grpc.aio.secure_channel(f"localhost:{port}", credentials, options)


async def call(channel: grpc.aio.Channel) -> str:
    """The name of the status that a call ends with."""
    try:
        await model_pb2_grpc.ModelServiceStub(channel).ListModels(
            model_pb2.ListModelsRequest(), timeout=PATIENCE_SECONDS
        )
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def call_once(party: Party, port: int) -> str:
    """The name of the status of a call on a new connection."""
    async with party.channel(port) as channel:
        return await call(channel)


@pytest.fixture(scope="module")
def server_authority() -> Authority:
    """Who signs the server."""
    return Authority("servers")


@pytest.fixture(scope="module")
def caller_authority() -> Authority:
    """Who signs callers."""
    return Authority("callers")


@pytest.fixture
def settings(
    tmp_path: Path, server_authority: Authority, caller_authority: Authority
) -> dict[str, Path]:
    """Of a server with mutual TLS, with its files in a folder of their own."""
    certificate, key = server_authority.issue().write(tmp_path / "tls")
    client_ca = tmp_path / "tls" / "ca.crt"
    client_ca.write_bytes(caller_authority.certificate)
    return {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": client_ca}


async def test_mutual_tls_lets_signed_callers_in_and_no_others(
    serving: MakeServer,
    settings: dict[str, Path],
    server_authority: Authority,
    caller_authority: Authority,
) -> None:
    """Everybody else gets UNAVAILABLE: there is no connection to answer on."""
    trusted = server_authority.certificate
    good = Party(trusted, caller_authority.issue("a caller"))
    expected = {
        "signed": (good, "OK"),
        "no certificate": (Party(trusted), "UNAVAILABLE"),
        "signed by another": (Party(trusted, Authority("callers").issue()), "UNAVAILABLE"),
        "signed by the server's": (Party(trusted, server_authority.issue()), "UNAVAILABLE"),
        "expired": (Party(trusted, caller_authority.issue(is_expired=True)), "UNAVAILABLE"),
        "no TLS": (Party(None), "UNAVAILABLE"),
        "trusts another server": (
            Party(caller_authority.certificate, caller_authority.issue()),
            "UNAVAILABLE",
        ),
    }
    async with serving(**settings) as running:
        port = running.ports.grpc
        found = {name: await call_once(party, port) for name, (party, _) in expected.items()}
        assert found == {name: status for name, (_, status) in expected.items()}
        assert await call_once(good, port) == "OK"


async def test_tls_alone_wants_no_certificate_of_callers(
    serving: MakeServer, settings: dict[str, Path], server_authority: Authority
) -> None:
    """Whoever trusts the server gets in; in the clear nobody does."""
    del settings["tls_client_ca"]
    async with serving(**settings) as running:
        assert await call_once(Party(server_authority.certificate), running.ports.grpc) == "OK"
        assert await call_once(Party(None), running.ports.grpc) == "UNAVAILABLE"


async def test_probes_and_metrics_stay_in_the_clear(
    serving: MakeServer, settings: dict[str, Path]
) -> None:
    """A kubelet has no certificate."""
    async with serving(**settings) as running:
        async with Party(None).channel(running.ports.health) as channel:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        assert "process_resident_memory_bytes" in await read_metrics(running.ports.metrics)


async def test_replaced_files_count_without_a_restart(
    serving: MakeServer,
    settings: dict[str, Path],
    server_authority: Authority,
    caller_authority: Authority,
) -> None:
    """New connections see the new certificate and the new authority; open ones go on."""
    other_servers, other_callers = Authority("new servers"), Authority("new callers")
    former = Party(server_authority.certificate, caller_authority.issue())
    new = Party(other_servers.certificate, other_callers.issue())
    async with serving(**settings) as running, former.channel(running.ports.grpc) as channel:
        port = running.ports.grpc
        assert await call(channel) == "OK"
        assert await call_once(new, port) == "UNAVAILABLE"

        with structlog.testing.capture_logs() as logs:
            replaced = other_servers.issue()
            settings["tls_certificate"].write_bytes(replaced.certificate)  # its key is to come
            assert await call_once(former, port) == "OK"
            settings["tls_key"].write_bytes(replaced.key)
            settings["tls_client_ca"].write_bytes(other_callers.certificate)
            assert await call_once(new, port) == "OK"
        assert [log["event"] for log in logs if "certificate" in log["event"]] == [
            "certificate not renewed; the former stays in use",
            "certificate renewed",
        ]
        assert await call_once(former, port) == "UNAVAILABLE"
        assert await call(channel) == "OK"  # opened before


async def test_connections_end_with_their_age_and_no_call_fails(
    serving: MakeServer, settings: dict[str, Path], server_authority: Authority
) -> None:
    """Which is when a caller must show its certificate again."""
    del settings["tls_client_ca"]
    party = Party(server_authority.certificate)
    replaced = Authority("new servers")
    async with serving(**settings, max_connection_age_seconds=0.2) as running:
        async with party.channel(running.ports.grpc) as channel:
            assert await call(channel) == "OK"
            replaced.issue().write(settings["tls_key"].parent)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (status := await call(channel)) == "OK":
                    pass
        assert status == "UNAVAILABLE"  # it does not trust the new certificate
        assert await call_once(Party(replaced.certificate), running.ports.grpc) == "OK"


async def test_client_and_command_connect_with_certificates(
    serving: MakeServer,
    settings: dict[str, Path],
    tmp_path: Path,
    server_authority: Authority,
    caller_authority: Authority,
) -> None:
    """By the options of both."""
    pair = caller_authority.issue()
    certificate, key = pair.write(tmp_path / "caller")
    ca = tmp_path / "servers.crt"
    ca.write_bytes(server_authority.certificate)
    async with serving(**settings) as running:
        target = f"localhost:{running.ports.grpc}"
        async with AsyncClient(
            target,
            tls=True,
            root_certificates=server_authority.certificate,
            certificate=pair.certificate,
            private_key=pair.key,
        ) as client:
            assert {model.name for model in await client.list_models()} >= {"tiny", "sentence"}
        arguments = ["models", "--target", target, "--tls", "--ca", str(ca)]
        mutual = ["--cert", str(certificate), "--key", str(key)]
        result = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, *mutual])
        assert result.exit_code == 0, result.stderr
        assert "sentence" in result.stdout
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tls_key": None}, "tls_certificate and tls_key must be set together"),
        ({"tls_key": "absent"}, "tls_key absent cannot be read: No such file or directory"),
        ({"token_file": "absent"}, "token_file absent cannot be read: No such file or directory"),
    ],
    ids=["half", "missing", "tokens"],
)
def test_files_that_cannot_be_used_are_one_line_and_exit_2(
    store: Path, settings: dict[str, Path], change: dict[str, Any], message: str
) -> None:
    """Before a model is opened."""
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in (settings | change).items()
        if value is not None
    ]
    process = start_process(store, *flags)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


def warnings_of(logs: list[Any]) -> list[str]:
    """What was logged as a warning, up to the first semicolon."""
    return [log["event"].partition(";")[0] for log in logs if log["log_level"] == "warning"]


async def test_serving_others_in_the_clear_is_a_warning(
    serving: MakeServer, settings: dict[str, Path]
) -> None:
    """On any address but loopback; tokens are mentioned if there are any."""
    read_and_alter = "serving in the clear: the network can read and alter texts"
    whoever = "serving whoever can connect"
    token = {"token": "0123456789abcdef"}
    tls = {name: path for name, path in settings.items() if name != "tls_client_ca"}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, []),
        ({"host": "localhost"}, []),
        ({"host": "0.0.0.0"}, [read_and_alter, whoever]),
        ({"host": "0.0.0.0", **token}, [f"{read_and_alter} and tokens"]),
        ({"host": "0.0.0.0", **tls}, [whoever]),
        ({"host": "0.0.0.0", **settings}, []),
        ({"host": "0.0.0.0", **tls, **token}, []),
    ]
    for changes, expected in cases:
        with structlog.testing.capture_logs() as logs:
            async with serving(**changes):
                pass
        assert warnings_of(logs) == expected, changes
