"""What the README tells readers to type."""

import re
import shlex
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory

from seqserve.v1 import attention_pb2, encoding_pb2, generation_pb2, model_pb2

README = Path(__file__).parents[2] / "README.md"
SERVICES = {
    service.full_name: service
    for module in (attention_pb2, encoding_pb2, generation_pb2, model_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}


def find_calls() -> list[list[str]]:
    """The words of every command that runs grpcurl."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    commands = re.findall(r"^grpcurl .*?seqserve\.v1\.\w+/\w+$", "\n".join(blocks), re.M | re.S)
    return [shlex.split(command.replace("\\\n", " ")) for command in commands]


CALLS = find_calls()


def test_grpcurl_is_shown() -> None:
    """Were the layout of the README to change, the tests below would find nothing to look at."""
    assert CALLS


@pytest.mark.parametrize("words", CALLS, ids=lambda words: words[-1].rsplit("/", 1)[-1])
def test_bodies_of_grpcurl_are_requests(words: list[str]) -> None:
    """The method exists, and its request has every field of the body."""
    service, method = words[-1].split("/")
    request = SERVICES[service].methods_by_name[method].input_type
    pool = descriptor_pool.Default()
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(request.full_name))()
    json_format.Parse(words[words.index("-d") + 1], message)
    assert message.ListFields()
