"""Names of tokens in the dummy vocabulary of the peer: token 123 is called ``t123``."""

from collections.abc import Iterable

from bench.workload import END_TOKEN

END_NAME, UNKNOWN_NAME = "</s>", "<unk>"
_UNKNOWN_TOKEN = 1
_SPECIAL_NAMES = {END_TOKEN: END_NAME, _UNKNOWN_TOKEN: UNKNOWN_NAME}
_SPECIAL_TOKENS = {name: token for token, name in _SPECIAL_NAMES.items()}


def to_names(tokens: Iterable[int]) -> list[str]:
    """What tokens are called."""
    return [_SPECIAL_NAMES.get(token, f"t{token}") for token in tokens]


def to_tokens(names: Iterable[str]) -> list[int]:
    """The tokens of names."""
    return [_SPECIAL_TOKENS[name] if name in _SPECIAL_TOKENS else int(name[1:]) for name in names]
