"""A server whose every graph takes minutes to open, in a library that hears of no signal.

It is run as ``seqserve`` is, with the same command line; it says when it begins.
"""

import hashlib
import sys
from typing import Any

import onnxruntime

import seqserve.__main__

OPENING = "opening a graph"
_NUM_ROUNDS = 10**9
"""Of a hash, in one call of OpenSSL's."""


def open_slowly(*arguments: Any, **options: Any) -> onnxruntime.InferenceSession:
    """Opens a graph, in the end."""
    print(OPENING, file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", _NUM_ROUNDS)
    raise AssertionError("it took too long")


if __name__ == "__main__":
    setattr(onnxruntime, "InferenceSession", open_slowly)  # noqa: B010
    seqserve.__main__.main(prog_name="stuck_server")
