"""JSON of the HTTP port: what reading a body costs, whatever stands in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from seqserve.playground.http_error import HttpError
from seqserve.playground.message_json import read_message
from seqserve.servicers.malformed import MOST_FIELDS
from seqserve.v1 import encoding_pb2

PATIENCE_SECONDS = 30.0
"""For what takes a second: a busy machine has time, and what grows with the square takes hours."""
MAX_MEMORY_KIB = 131_072
_READ = """
import resource, sys
from seqserve.playground.http_error import HttpError
from seqserve.playground.message_json import read_message
from seqserve.v1 import encoding_pb2

def measure():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

body = eval(sys.argv[1])
before = measure()
try:
    read_message(body, encoding_pb2.EmbedRequest)
except HttpError as error:
    print(error.code, measure() - before)
"""


@pytest.mark.parametrize(
    "body",
    [
        r"""b'{"a": "' + b'\\"' * 4_000_000""",
        r"""b'{"a": "' + b'x"' * 4_000_000 + b'\\'""",
        r"""b'"' * 8_000_000""",
        r"""b'{"a": "' + b'\\' * 8_000_000""",
    ],
    ids=["no end", "quotes", "empty", "backslashes"],
)
def test_body_without_sense_is_refused_soon(body: str) -> None:
    """In a process of its own, since a search that goes on for hours lets nothing else run."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, body],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    code, memory_kib = map(int, done.stdout.split())
    assert code == 400
    assert memory_kib < MAX_MEMORY_KIB


def test_as_many_values_as_may_be_are_read() -> None:
    """With all the quotes and signs that texts may have in them; one more is refused."""
    texts = ['"\\[{,'] * (MOST_FIELDS - 2)
    message = read_message(json.dumps({"inputs": texts}).encode(), encoding_pb2.EmbedRequest)
    assert list(message.inputs) == texts
    with pytest.raises(HttpError, match=f"^the body has more than {MOST_FIELDS} values in all;"):
        read_message(json.dumps({"inputs": [*texts, "", ""]}).encode(), encoding_pb2.EmbedRequest)


def test_names_are_no_values() -> None:
    """As many values as may be, each with one: twice as many strings."""
    pairs = ", ".join(f'"{number}": ""' for number in range(MOST_FIELDS))
    with pytest.raises(HttpError, match="has no field named"):
        read_message(b"{" + pairs.encode() + b"}", encoding_pb2.EmbedRequest)


@pytest.mark.parametrize("body", [b'{"%b": 1}', b'{"inputs": "%b"}'])
def test_refusal_does_not_send_the_body_back(body: bytes) -> None:
    """Its beginning says enough."""
    with pytest.raises(HttpError, match=r"^the body is no EmbedRequest in JSON: ") as caught:
        read_message(body % (b"a" * 1_000_000), encoding_pb2.EmbedRequest)
    assert len(str(caught.value)) < 2000
