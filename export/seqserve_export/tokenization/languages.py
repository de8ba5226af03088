"""The languages of a tokenizer: their codes, and where a source and a target say theirs."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

from seqserve_export.errors import CheckpointError, UnsupportedError

SourceMarker = int | Literal["source_language", "target_language"]
"""A token id, or the place of the token of a language."""
TargetMode = Literal["forced_bos", "decoder_start", "source_prefix"]

_MARIAN_CODE = re.compile(r">>(.+)<<")
_NLLB_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Languages:
    """Codes and the frame of a source; the tokenizer itself then adds no special tokens."""

    source_codes: dict[str, int]
    """Token id of each language a source can be in; empty if sources do not say theirs."""
    target_codes: dict[str, int]
    source_prefix: tuple[SourceMarker, ...]
    """What stands before the tokens of the text."""
    source_suffix: tuple[SourceMarker, ...]
    target_mode: TargetMode
    """Where the target's language goes: it is the first new token, it is the token decoding starts
    with, or it stands in the frame of the source."""
    default_source: str | None = None
    """What the checkpoint takes if nothing is said; None if it says nothing itself."""
    default_target: str | None = None

    def frame(
        self, tokens: list[int], source: str | None = None, target: str | None = None
    ) -> list[int]:
        """Puts prefix and suffix around the tokens of a text.

        Args:
            tokens: Of the text alone.
            source: The source's language; needed where the frame names it.
            target: The target's language; needed where the frame names it.
        """
        found = {
            "source_language": self.source_codes.get(source or ""),
            "target_language": self.target_codes.get(target or ""),
        }
        framed = []
        for marker in (*self.source_prefix, *tokens, *self.source_suffix):
            token_id = marker if isinstance(marker, int) else found[marker]
            if token_id is None:
                raise ValueError(f"the source's frame needs its {marker}")
            framed.append(token_id)
        return framed


def read_languages(tokenizer: Any, settings: Mapping[str, Any]) -> Languages | None:
    """Finds the languages of a tokenizer; None if it knows of none.

    Args:
        tokenizer: As ``transformers`` reads it.
        settings: Of ``tokenizer_config.json``.

    Raises:
        CheckpointError: A class with languages has no token for any of them.
        UnsupportedError: A class has languages in a way that is not known here.
    """
    kind = type(tokenizer).__name__
    end = (int(tokenizer.eos_token_id),) if tokenizer.eos_token_id is not None else ()
    language: tuple[SourceMarker, ...] = ("source_language",)
    prefix: tuple[SourceMarker, ...]
    suffix: tuple[SourceMarker, ...]
    target_mode: TargetMode
    match kind:
        case "MarianTokenizer":
            codes = _find(tokenizer, _MARIAN_CODE)
            if not codes:
                return None
            return Languages(
                source_codes={},
                target_codes=codes,
                source_prefix=("target_language",),
                source_suffix=end,
                target_mode="source_prefix",
            )
        case "MBartTokenizer" | "PLBartTokenizer":
            prefix, suffix, target_mode = (), (*end, *language), "decoder_start"
        case "MBart50Tokenizer" | "M2M100Tokenizer":
            prefix, suffix, target_mode = language, end, "forced_bos"
        case "NllbTokenizer" if tokenizer.legacy_behaviour:
            prefix, suffix, target_mode = (), (*end, *language), "forced_bos"
        case "NllbTokenizer":
            prefix, suffix, target_mode = language, end, "forced_bos"
        case _ if hasattr(tokenizer, "src_lang"):
            raise UnsupportedError(
                f"{kind} has languages in a way that is not supported; supported are Marian, "
                "mBART, mBART-50, M2M100, NLLB and PLBart"
            )
        case _:
            return None
    codes = _read_codes(tokenizer, kind)
    return Languages(
        source_codes=codes,
        target_codes=codes,
        source_prefix=prefix,
        source_suffix=suffix,
        target_mode=target_mode,
        default_source=_read_default(settings, "src_lang", codes),
        default_target=_read_default(settings, "tgt_lang", codes),
    )


def _find(tokenizer: Any, pattern: re.Pattern[str]) -> dict[str, int]:
    """Codes by what the pattern's group matches, in the order of their ids."""
    found = []
    for token, token_id in tokenizer.encoder.items():
        if match := pattern.fullmatch(token):
            found.append((token_id, match[1]))
    return {code: token_id for token_id, code in sorted(found)}


def _read_codes(tokenizer: Any, kind: str) -> dict[str, int]:
    if kind == "NllbTokenizer":
        tokens = [str(token) for token in tokenizer.extra_special_tokens]
        names = {token: token for token in tokens if _NLLB_CODE.fullmatch(token)}
    elif kind == "M2M100Tokenizer":
        names = {code: tokenizer.get_lang_token(code) for code in tokenizer.lang_code_to_id}
    else:
        # PLBart's ``__python__`` is called ``python``.
        names = {code.strip("_"): code for code in tokenizer.lang_code_to_id}
    codes = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    codes = {name: code for name, code in codes.items() if code != tokenizer.unk_token_id}
    if not codes:
        raise CheckpointError(f"{kind} has no token for any language; its vocabulary is incomplete")
    return codes


def _read_default(settings: Mapping[str, Any], name: str, codes: dict[str, int]) -> str | None:
    value = settings.get(name)
    if value is None:
        return None
    code = str(value).strip("_")
    if code not in codes:
        raise CheckpointError(
            f'"{name}": {value!r} in tokenizer_config.json is not one of the languages '
            f"{', '.join(codes)}"
        )
    return code
