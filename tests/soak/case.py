"""Requests of every kind, drawn by chance: each is answered alone first, and often in the soak.

A case is made from its kind and number alone, so that every process has the same ones.
"""

# The types of messages exist only in type stubs.
from __future__ import annotations

import dataclasses
import functools
import random
import string
from collections.abc import Callable
from typing import Any

from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from soak.method import METHODS, Method

NUM_CASES = 12
"""Of each kind."""
VERSIONS = ("1", "2")
"""Of the models that come and go; others have the first alone."""
FULL_CASE = ("generate", 0)
"""With as many inputs as a request may have."""
MAX_INPUTS = 16
CHANGING = ("sentence", "tiny")
_WORDS = ("the", "cat", "sat", "on", "mat", "dogs", "rain", "fell", "models", "small", "river")
_TARGETS = ("ba be", "du da do", "ki", "gi gu ga ge go")


@dataclasses.dataclass(frozen=True)
class Case:
    """One request, or those of one stream."""

    kind: str
    number: int
    model: str
    requests: tuple[Any, ...]
    """Without a version of the model."""

    @property
    def method(self) -> Method:
        """What answers it."""
        return METHODS[self.kind]

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return f"{self.kind}/{self.number}"

    @property
    def versions(self) -> tuple[str, ...]:
        """Of its model, that may answer it."""
        return VERSIONS if self.model in CHANGING else VERSIONS[:1]

    def requests_to(self, version: str) -> list[Any]:
        """Copies of its requests that ask for a version; an empty one is that of none."""
        copies = []
        for request in self.requests:
            copy = type(request)()
            copy.CopyFrom(request)
            whole = copy.request if self.kind == "embed_stream" else copy
            whole.model_version = version
            copies.append(copy)
        return copies


@functools.cache
def find_case(kind: str, number: int) -> Case:
    """The case of a kind with a number."""
    chance = random.Random(f"{kind}/{number}")
    make = _full if (kind, number) == FULL_CASE else _MAKERS[kind]
    model, requests = make(chance)
    return Case(kind, number, model, tuple(requests))


def all_cases() -> list[Case]:
    """All of every kind."""
    return [find_case(kind, number) for kind in METHODS for number in range(NUM_CASES)]


def _letters(chance: random.Random, most: int) -> str:
    return " ".join(chance.choices(string.ascii_lowercase, k=chance.randint(1, most)))


def _words(chance: random.Random, most: int = 16) -> str:
    return " ".join(chance.choices(_WORDS, k=chance.randint(1, most)))


def _count(chance: random.Random) -> int:
    return chance.choices([1, 2, 4], [6, 2, 1])[0]


def _options(chance: random.Random) -> generation_pb2.GenerateOptions:
    choices: list[dict[str, Any]] = [
        {},
        {"max_new_tokens": chance.randint(1, 24)},
        {"num_beams": 3, "num_return_sequences": 2, "return_scores": True},
        {"num_beams": 4, "length_penalty": 0.5, "return_token_log_probabilities": True},
        {"do_sample": True, "seed": chance.getrandbits(31), "temperature": 1.5, "top_k": 20},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"top_log_probability_count": 3, "min_new_tokens": 4},
    ]
    return generation_pb2.GenerateOptions(**chance.choice(choices))


def _generate(chance: random.Random) -> tuple[str, list[Any]]:
    model = chance.choice(["tiny", "tiny", "long"])
    inputs = [
        generation_pb2.GenerateInput(text=_letters(chance, 30 if model == "tiny" else 90))
        for _ in range(_count(chance))
    ]
    request = generation_pb2.GenerateRequest(
        model_name=model, inputs=inputs, options=_options(chance)
    )
    return model, [request]


def _full(chance: random.Random) -> tuple[str, list[Any]]:
    inputs = [generation_pb2.GenerateInput(text=_letters(chance, 30)) for _ in range(MAX_INPUTS)]
    options = generation_pb2.GenerateOptions(min_new_tokens=20)
    return "tiny", [
        generation_pb2.GenerateRequest(model_name="tiny", inputs=inputs, options=options)
    ]


def _stream(chance: random.Random) -> tuple[str, list[Any]]:
    model = chance.choice(["tiny", "long", "long"])
    options: dict[str, Any] = {"num_beams": chance.choice([1, 1, 3])}
    if model == "long":
        options |= {"min_new_tokens": 40, "max_new_tokens": 120}
    request = generation_pb2.GenerateStreamRequest(
        model_name=model,
        input=generation_pb2.GenerateInput(text=_letters(chance, 30)),
        options=generation_pb2.GenerateOptions(**options),
    )
    return model, [request]


def _score(chance: random.Random) -> tuple[str, list[Any]]:
    targets = [
        generation_pb2.Target(text=target)
        for target in chance.sample(_TARGETS, chance.randint(1, len(_TARGETS)))
    ]
    one = generation_pb2.ScoreTargetsInput(text=_letters(chance, 30), targets=targets)
    return "tiny", [generation_pb2.ScoreTargetsRequest(model_name="tiny", inputs=[one])]


def _embed(chance: random.Random) -> tuple[str, list[Any]]:
    settings: list[dict[str, Any]] = [
        {},
        {},
        {"normalize": False},
        {"return_token_embeddings": True},
    ]
    inputs = [_letters(chance, 28) for _ in range(_count(chance))]
    return "sentence", [
        encoding_pb2.EmbedRequest(model_name="sentence", inputs=inputs, **chance.choice(settings))
    ]


def _embed_stream(chance: random.Random) -> tuple[str, list[Any]]:
    """Some requests of a stream are wrong, which is an answer of their own."""
    items = []
    for _ in range(chance.randint(2, 12)):
        (request,) = _embed(chance)[1]
        if chance.random() < 0.15:
            del request.inputs[:]
        items.append(encoding_pb2.EmbedStreamRequest(request=request))
    return "sentence", items


def _classify(chance: random.Random) -> tuple[str, list[Any]]:
    inputs = [encoding_pb2.ClassifyInput(text=_words(chance)) for _ in range(_count(chance))]
    request = encoding_pb2.ClassifyRequest(model_name="classify", inputs=inputs, return_logits=True)
    return "classify", [request]


def _classify_tokens(chance: random.Random) -> tuple[str, list[Any]]:
    inputs = [_words(chance) for _ in range(_count(chance))]
    model = "classify_tokens"
    return model, [encoding_pb2.ClassifyTokensRequest(model_name=model, inputs=inputs)]


def _rerank(chance: random.Random) -> tuple[str, list[Any]]:
    documents = [_words(chance) for _ in range(chance.randint(1, 4))]
    return "rerank", [
        encoding_pb2.RerankRequest(
            model_name="rerank", query=_words(chance, 4), documents=documents
        )
    ]


def _fill_mask(chance: random.Random) -> tuple[str, list[Any]]:
    inputs = [f"{_words(chance, 6)} [MASK] {_words(chance, 6)}" for _ in range(_count(chance))]
    return "fill_mask", [
        encoding_pb2.FillMaskRequest(model_name="fill_mask", inputs=inputs, top_k=3)
    ]


def _tokenize(chance: random.Random) -> tuple[str, list[Any]]:
    texts = [_letters(chance, 30) for _ in range(_count(chance))]
    return "tiny", [model_pb2.TokenizeRequest(model_name="tiny", texts=texts)]


def _tensor(*texts: str) -> open_inference_pb2.ModelInferRequest.InferInputTensor:
    contents = open_inference_pb2.InferTensorContents(
        bytes_contents=[text.encode() for text in texts]
    )
    return open_inference_pb2.ModelInferRequest.InferInputTensor(
        name="text", datatype="BYTES", shape=[len(texts)], contents=contents
    )


def _infer(chance: random.Random) -> tuple[str, list[Any]]:
    model = chance.choice(["tiny", "sentence", "classify"])
    texts = [_words(chance) if model == "classify" else _letters(chance, 28) for _ in range(3)]
    tensor = _tensor(*texts[: _count(chance)])
    return model, [open_inference_pb2.ModelInferRequest(model_name=model, inputs=[tensor])]


def _infer_stream(chance: random.Random) -> tuple[str, list[Any]]:
    model = chance.choice(["tiny", "sentence"])
    return model, [
        open_inference_pb2.ModelInferRequest(
            model_name=model, id=str(index), inputs=[_tensor(_letters(chance, 28))]
        )
        for index in range(chance.randint(1, 8))
    ]


_MAKERS: dict[str, Callable[[random.Random], tuple[str, list[Any]]]] = {
    "generate": _generate,
    "stream": _stream,
    "score": _score,
    "embed": _embed,
    "embed_stream": _embed_stream,
    "classify": _classify,
    "classify_tokens": _classify_tokens,
    "rerank": _rerank,
    "fill_mask": _fill_mask,
    "tokenize": _tokenize,
    "infer": _infer,
    "infer_stream": _infer_stream,
}
