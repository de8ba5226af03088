"""Which tensors a model takes and gives, for each way to call it."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol.parameter import Value, shorten
from seqserve.served_model import ServedModel
from seqserve.servicers.encoding import EncodingServicer
from seqserve.servicers.generation import GenerationServicer
from seqserve.v1 import priority_pb2

Tensors = dict[str, NDArray[Any]]
"""By name. Texts are arrays of objects, ``str``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """A tensor of requests."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 is a dimension that the request chooses."""
    is_required: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """A tensor of replies."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    is_default: bool = True
    """Whether it is returned, where it exists, to requests that name no outputs."""
    flag: str = ""
    """The parameter that asks for it as naming it does."""
    needs: str = ""
    """What a request must set for it to exist."""


@dataclasses.dataclass(frozen=True, slots=True)
class Services:
    """What answers."""

    generation: GenerationServicer
    encoding: EncodingServicer
    config: ServerConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, read and checked."""

    model: ServedModel
    tensors: Tensors
    parameters: dict[str, Value]
    asked: frozenset[str]
    """Outputs that are asked for one by one; empty for all that cost nothing."""
    priority: priority_pb2.Priority.ValueType
    """As in ``seqserve.v1``."""
    context: Any
    """That of the call, with the time that is left to this request."""
    services: Services

    def texts(self, name: str) -> list[str]:
        """The texts of a tensor; none if it is not given."""
        values = self.tensors.get(name)
        return [] if values is None else list(values.ravel())


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a model."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    parameters: tuple[str, ...]
    """Names, those of ``flag`` aside."""
    answer: Callable[[Call], Awaitable[Tensors]]


def choose_signature(signatures: list[Signature], names: list[str]) -> Signature:
    """The way to call a model that has the named inputs.

    Raises:
        InvalidRequestError: An input is unknown, missing, given twice, or of another way.
    """
    known = list(dict.fromkeys(one.name for way in signatures for one in way.inputs))
    for name in names:
        if name not in known:
            name = shorten(name)
            raise InvalidRequestError(
                name, f"`{name}` is no input of this model; it takes {_describe_ways(signatures)}"
            )
        if names.count(name) > 1:
            raise InvalidRequestError(
                name, f"the input `{name}` is given {names.count(name)} times"
            )
    for way in signatures:
        own = {one.name for one in way.inputs}
        required = {one.name for one in way.inputs if one.is_required}
        if required <= set(names) <= own:
            return way
    raise InvalidRequestError(
        "inputs",
        f"the inputs are {_list(names) or 'none'}, but this model takes "
        f"{_describe_ways(signatures)}",
    )


def check_outputs(signature: Signature, names: list[str], flags: Iterable[str]) -> frozenset[str]:
    """The outputs that are asked for, by name or by parameter.

    Raises:
        InvalidRequestError: One is unknown, or named twice.
    """
    known = [one.name for one in signature.outputs]
    for name in names:
        if name not in known:
            name = shorten(name)
            raise InvalidRequestError(
                name, f"`{name}` is no output for these inputs; there are: {_list(known)}"
            )
        if names.count(name) > 1:
            raise InvalidRequestError(
                name, f"the output `{name}` is asked for {names.count(name)} times"
            )
    by_flag = {one.name for one in signature.outputs if one.flag and one.flag in set(flags)}
    return frozenset(names) | by_flag


def select_outputs(
    signature: Signature, names: list[str], asked: frozenset[str], tensors: Tensors
) -> list[tuple[Output, NDArray[Any]]]:
    """What is returned: in the order of the request if it names outputs, else of the signature.

    Raises:
        InvalidRequestError: What is asked for does not exist.
    """
    by_name = {one.name: one for one in signature.outputs}
    chosen = [by_name[name] for name in names]
    for one in signature.outputs:
        is_wanted = one.name in asked or (not names and one.is_default and one.name in tensors)
        if is_wanted and one not in chosen:
            chosen.append(one)
    for one in chosen:
        if one.name not in tensors:
            raise InvalidRequestError(
                one.name, f"the output `{one.name}` is there with {one.needs} only"
            )
    return [(one, tensors[one.name]) for one in chosen]


def stack(rows: Any, rank: int, dtype: Any, fill: Any = 0) -> NDArray[Any]:
    """An array of lists in lists, ``rank`` deep, whose shorter ones are filled up."""
    sizes = [0] * rank
    _measure(rows, sizes, 0)
    values: NDArray[Any] = np.full(sizes, fill, dtype)
    _copy(rows, values)
    return values


def stack_texts(rows: Any, rank: int) -> NDArray[Any]:
    """The same of texts, filled up with empty ones."""
    return stack(rows, rank, object, "")


def _measure(rows: Any, sizes: list[int], axis: int) -> None:
    sizes[axis] = max(sizes[axis], len(rows))
    if axis + 1 < len(sizes):
        for row in rows:
            _measure(row, sizes, axis + 1)


def _copy(rows: Any, values: NDArray[Any]) -> None:
    if values.ndim == 1:
        values[: len(rows)] = list(rows)
        return
    for row, part in zip(rows, values, strict=False):
        _copy(row, part)


def _describe_ways(signatures: list[Signature]) -> str:
    return "; or ".join(
        _list([one.name for one in way.inputs if one.is_required])
        + "".join(f" [{one.name}]" for one in way.inputs if not one.is_required)
        for way in signatures
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
