"""What the files of a folder say about its tokenizer, before ``transformers`` reads them.

``transformers`` makes up a vocabulary where a file is absent, takes another class for one it does
not know, and another format for a file it cannot read. All of that is refused here.
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from google.protobuf import runtime_version
from transformers import PreTrainedTokenizerBase, TokenizersBackend
from transformers.models.auto.tokenization_auto import (
    TOKENIZER_MAPPING_NAMES,
    tokenizer_class_from_name,
)

from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.json_file import read_json_object
from seqserve_export.tokenization.pieces import DECODING
from seqserve_export.tokenizer_file import read_tokenizer

SETTINGS_FILE = "tokenizer_config.json"
TOKENIZER_FILE = "tokenizer.json"

_SUPPORTED = (
    f"supported are {TOKENIZER_FILE}, the classes that transformers {transformers.__version__} "
    f"runs with the tokenizers library, and {', '.join(sorted(DECODING))}"
)
_READ_WITHOUT = frozenset(
    f"{name}Tokenizer"
    for name in (
        *("Albert", "Bert", "Camembert", "Deberta", "DebertaV2", "DistilBert", "MBart", "MBart50"),
        *("MPNet", "Nllb", "Pegasus", "Roberta", "T5", "XLMRoberta"),
    )
)
"""Classes whose older files are read with the ids and special tokens of the models' training; of
others ``transformers`` 5 is known to get them wrong (Barthez, Blenderbot)."""
_OTHER_FILES = {"tokenizer_file", "tokenizer_config_file", "target_vocab_file"}


def read_settings(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads ``tokenizer_config.json``, which may be absent.

    Raises:
        UnsupportedError: The tokenizer is Python code of the folder.
    """
    path = folder / SETTINGS_FILE
    settings = read_json_object(path) if path.is_file() else {}
    for name, content in ((SETTINGS_FILE, settings), ("config.json", config)):
        code = content.get("auto_map")
        has_code = "AutoTokenizer" in code if isinstance(code, Mapping) else bool(code)
        if has_code:
            raise UnsupportedError(
                f'{folder / name} names Python code for its tokenizer ("auto_map"), which is never '
                f"run; {_SUPPORTED}"
            )
    return settings


def find_class(
    folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> type[PreTrainedTokenizerBase]:
    """Finds the class of a folder's tokenizer.

    Raises:
        UnsupportedError: The class is unknown, or runs neither library.
    """
    kind = config.get("model_type")
    name = settings.get("tokenizer_class") or config.get("tokenizer_class")
    name = name or TOKENIZER_MAPPING_NAMES.get(str(kind))
    if name is None and (folder / TOKENIZER_FILE).is_file():
        return TokenizersBackend
    if name is None:
        raise UnsupportedError(
            f"{folder} does not say which tokenizer it has: there is no {TOKENIZER_FILE}, no "
            f'"tokenizer_class" in {SETTINGS_FILE}, and none belongs to "model_type": {kind!r}; '
            f"{_SUPPORTED}"
        )
    found = tokenizer_class_from_name(str(name))
    if found is None:
        raise UnsupportedError(f"the tokenizer class {name} ({folder}) is unknown; {_SUPPORTED}")
    if not issubclass(found, TokenizersBackend) and found.__name__ not in DECODING:
        raise UnsupportedError(
            f"the tokenizer class {name} ({folder}) is not supported; {_SUPPORTED}"
        )
    return found


def check_files(
    folder: Path, kind: type[PreTrainedTokenizerBase], settings: Mapping[str, Any]
) -> None:
    """Checks that the files are there and can be read.

    Raises:
        CheckpointError: They are not.
        UnsupportedError: The class must be read from a ready file.
    """
    names = dict(kind.vocab_files_names)
    is_rust = issubclass(kind, TokenizersBackend)
    if is_rust and (folder / TOKENIZER_FILE).is_file():
        read_tokenizer(folder / TOKENIZER_FILE)
        return
    needed = [name for role, name in names.items() if role not in _OTHER_FILES]
    if settings.get("separate_vocabs"):
        needed.append(names["target_vocab_file"])
    absent = [name for name in needed if not (folder / name).is_file()]
    if absent:
        alternative = f"neither {TOKENIZER_FILE} nor" if is_rust else "no"
        raise CheckpointError(
            f"{folder} has {alternative} {', '.join(absent)}; {kind.__name__} is read from "
            f"{', '.join(needed)}"
        )
    if is_rust and kind.__name__ not in _READ_WITHOUT:
        raise UnsupportedError(
            f"{kind.__name__} ({folder}) is supported with {TOKENIZER_FILE} alone, not with "
            f"{', '.join(needed)}; save the folder again with a version of transformers that reads "
            f"these files well; supported without are {', '.join(sorted(_READ_WITHOUT))}"
        )
    for name in needed:
        if name.endswith((".model", ".spm")):
            _check_model(folder / name)
        elif name.endswith(".json"):
            read_json_object(folder / name)


def _check_model(path: Path) -> None:
    try:
        sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model: {error}") from error


def mend_model_reader() -> None:
    """Lets ``transformers`` read SentencePiece models whatever protobuf is installed.

    It reads them with the code that ``sentencepiece`` ships, which refuses to be imported where
    protobuf is older than the one it was generated with (0.2.3: 7.36), and then takes the file for
    one of tiktoken. ``transformers`` ships the same, generated for older ones.
    """
    name = "sentencepiece.sentencepiece_model_pb2"
    try:
        importlib.import_module(name)
    except runtime_version.VersionError:
        substitute = importlib.import_module("transformers.utils.sentencepiece_model_pb2_new")
        sys.modules[name] = substitute
