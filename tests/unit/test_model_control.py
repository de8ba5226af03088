"""Loading and unloading models through the clients and the command line."""

import json

import pytest

from command_line import run
from fake_server import FakeServer
from seqserve.client import AsyncClient, Client
from seqserve.v1 import model_pb2


def test_client_loads_and_unloads(server: FakeServer) -> None:
    """A load returns the model as it is served."""
    with Client(server.target) as client:
        assert client.load_model("tiny", "2").version == "2"
        client.unload_model("tiny", "1")
    assert server.requests == [
        model_pb2.LoadModelRequest(model_name="tiny", model_version="2"),
        model_pb2.UnloadModelRequest(model_name="tiny", model_version="1"),
    ]


async def test_async_client_loads_and_unloads(server: FakeServer) -> None:
    """The same, awaited."""
    async with AsyncClient(server.target) as client:
        assert (await client.load_model("tiny", "2")).version == "2"
        await client.unload_model("tiny", "1")
    assert [type(request) for request in server.requests] == [
        model_pb2.LoadModelRequest,
        model_pb2.UnloadModelRequest,
    ]


def test_commands_say_what_they_did(server: FakeServer) -> None:
    """In a line, or in JSON."""
    options = ("--model", "tiny", "--version", "2")
    assert run(server, "load", *options).stdout == "loaded tiny/2\n"
    assert run(server, "unload", *options).stdout == "unloaded tiny/2\n"
    loaded = json.loads(run(server, "load", *options, "--json").stdout)
    assert (loaded["name"], loaded["version"], loaded["tasks"]) == ("tiny", "2", ["generate"])
    unloaded = json.loads(run(server, "unload", *options, "--json").stdout)
    assert unloaded == {"name": "tiny", "version": "2"}


@pytest.mark.parametrize("command", ["load", "unload"])
@pytest.mark.parametrize("option", ["--model", "--version"])
def test_commands_do_not_guess(server: FakeServer, command: str, option: str) -> None:
    """Name and version must be given."""
    result = run(server, command, option, "1")
    assert result.exit_code == 2
    assert "say which version: give --model and --version" in result.stderr
    assert server.requests == []
