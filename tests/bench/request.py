"""Messages of the benchmark's calls, the same for both servers."""

from collections.abc import Sequence as Items

import grpc

from bench.workload import Sentence
from seqserve.v1 import generation_pb2, generation_pb2_grpc

TIMEOUT_SECONDS = 600.0


def to_input(sentence: Sentence, num_beams: int = 1) -> generation_pb2.GenerateInput:
    """One input with the options of its own that fix the length of its target."""
    return generation_pb2.GenerateInput(
        token_ids=generation_pb2.TokenIds(values=sentence.source),
        options=generation_pb2.GenerateOptions(
            max_new_tokens=sentence.target_length,
            min_new_tokens=sentence.target_length,
            num_beams=num_beams,
        ),
    )


def to_request(sentences: Items[Sentence], num_beams: int = 1) -> generation_pb2.GenerateRequest:
    """One request for many sentences."""
    return generation_pb2.GenerateRequest(
        inputs=[to_input(sentence, num_beams) for sentence in sentences]
    )


def read_targets(response: generation_pb2.GenerateResponse) -> list[list[int]]:
    """The tokens of the best hypothesis of each input."""
    return [list(result.hypotheses[0].token_ids) for result in response.results]


def generate(target: str, sentences: Items[Sentence]) -> list[list[int]]:
    """One call on a connection of its own."""
    with grpc.insecure_channel(target) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        return read_targets(
            stub.Generate(to_request(sentences), timeout=TIMEOUT_SECONDS, wait_for_ready=True)
        )
