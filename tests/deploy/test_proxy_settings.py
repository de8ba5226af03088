"""The configurations of proxies agree with the server's settings, and spare long streams."""

import re
from typing import Any

import pytest
import yaml

from http2_frames import END_STREAM, PREFACE, Frame, Kind, call_headers
from proxy import FOLDER, PROXIES
from seqserve.config import ServerConfig
from seqserve.server import MODEL_SERVICE
from seqserve.transport import channel_options

DEFAULTS = ServerConfig()
METADATA_BYTES = dict(channel_options(DEFAULTS))["grpc.max_metadata_size"]
SECONDS = {"s": 1, "m": 60, "h": 3600}
BYTES = {"": 1, "k": 1024, "m": 2**20}


def read(name: str) -> str:
    """A configuration without its comments."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)


def find(text: str, pattern: str) -> str:
    """What a pattern's group matches, which it does once."""
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return str(found)


def seconds(text: str) -> float:
    """A time with its unit."""
    return float(text[:-1]) * SECONDS[text[-1]]


def num_bytes(text: str) -> int:
    """A size, with a unit or without."""
    return int(text.rstrip("km")) * BYTES[text.lstrip("0123456789")]


def test_every_file_is_that_of_a_proxy() -> None:
    """None is left untested."""
    assert {path.name for path in FOLDER.iterdir()} == {proxy.file for proxy in PROXIES}


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_servers_are_looked_for_on_their_ports(proxy: Any) -> None:
    """The defaults, on one line each."""
    ports = {int(port) for port in re.findall(r"\b(?:500\d\d|8080)\b", read(proxy.file))}
    asked = {DEFAULTS.health_port} if proxy.asks_for_health else set()
    assert ports == {8080, DEFAULTS.port} | asked


@pytest.fixture
def envoy() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Connection manager, route and cluster."""
    resources = yaml.safe_load(read("envoy.yaml"))["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    return manager, route["route"], cluster


def test_envoy_ends_no_call(envoy: Any) -> None:
    """Its defaults would end calls after 15 seconds, and silent streams after 5 minutes."""
    manager, route, _ = envoy
    assert manager["stream_idle_timeout"] == manager["request_timeout"] == route["timeout"] == "0s"
    assert "max_stream_duration" not in route


def test_envoy_pings_no_more_often_than_allowed(envoy: Any) -> None:
    """Or the server would send it away, with all of its calls."""
    manager, _, cluster = envoy
    (options,) = cluster["typed_extension_protocol_options"].values()
    upstream = options["explicit_http_config"]["http2_protocol_options"]
    assert seconds(upstream["connection_keepalive"]["interval"]) >= DEFAULTS.min_ping_seconds
    downstream = manager["http2_protocol_options"]
    for one in (upstream, downstream):
        assert one["max_concurrent_streams"] == DEFAULTS.max_connection_streams


def test_envoy_leaves_refusals_to_the_server(envoy: Any) -> None:
    """Which come with a time to retry; health is that of the probes."""
    _, _, cluster = envoy
    (limits,) = cluster["circuit_breakers"]["thresholds"]
    assert min(limits.values()) > DEFAULTS.max_connection_streams
    (check,) = cluster["health_checks"]
    assert check["grpc_health_check"] == {"service_name": MODEL_SERVICE}


def test_nginx_is_patient_and_passes_everything() -> None:
    """Times beyond the server's own, sizes without a limit or beyond the server's."""
    text = read("nginx.conf")
    for name in ("grpc_read_timeout", "grpc_send_timeout", "client_body_timeout", "send_timeout"):
        assert seconds(find(text, rf"^ *{name} (\S+);")) > DEFAULTS.max_request_seconds
    assert find(text, r"client_max_body_size (\S+);") == "0"
    count, size = find(text, r"large_client_header_buffers (.+);").split()
    assert int(count) * num_bytes(size) > num_bytes(size) > METADATA_BYTES
    assert num_bytes(find(text, r"grpc_buffer_size (\S+);")) > METADATA_BYTES
    streams = find(text, r"http2_max_concurrent_streams (\S+);")
    assert int(streams) == DEFAULTS.max_connection_streams


def test_haproxy_is_patient_and_passes_everything() -> None:
    """Times beyond the server's own, and room for its metadata."""
    text = read("haproxy.cfg")
    for side in ("client", "server"):
        assert seconds(find(text, rf"timeout {side} (\S+)")) > DEFAULTS.max_request_seconds
    assert int(find(text, r"tune\.bufsize (\d+)")) > 2 * METADATA_BYTES
    streams = find(text, r"tune\.h2\.max-concurrent-streams (\d+)")
    assert int(streams) == DEFAULTS.max_connection_streams


def test_haproxy_asks_for_health_in_grpc() -> None:
    """The bytes are a call of the health service, and those of an answer that says SERVING."""
    frames = (
        Frame(Kind.SETTINGS),
        call_headers(1, "/grpc.health.v1.Health/Check"),
        Frame(Kind.DATA, END_STREAM, 1, bytes(5)),
    )
    text = read("haproxy.cfg")
    sent = find(text, r"tcp-check send-binary (\w+)")
    assert bytes.fromhex(sent) == PREFACE + b"".join(frame.encode() for frame in frames)
    expected = find(text, r"tcp-check expect binary (\w+)")
    assert bytes.fromhex(expected) == b"\x00\x00\x00\x00\x02" + b"\x08\x01"
