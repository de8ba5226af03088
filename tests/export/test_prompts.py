"""The prompts of sentence-transformers folders, and what of them is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import CrossEncoder

from seqserve.task_record import EmbeddingRecord, RerankingRecord, Task
from seqserve_export.encoder_files import read_prompts
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.source import EmbeddingSource, PredictionSource, Prompts
from seqserve_export.source_folder import read_source_folder
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder
from tiny_sentence_folder import make_tiny_sentence_folder

FILE = "config_sentence_transformers.json"


def write(folder: Path, **settings: Any) -> Path:
    """Writes the file with prompts."""
    (folder / FILE).write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_folders_without_prompts_have_none(tmp_path: Path) -> None:
    """Neither file nor field is needed."""
    assert read_prompts(tmp_path) == Prompts({}, None)
    assert read_prompts(write(tmp_path, prompts=None)) == Prompts({}, None)


def test_prompts_are_read_with_their_default(tmp_path: Path) -> None:
    """A prompt that is null is an empty one, as in the library."""
    folder = make_tiny_sentence_folder(tmp_path / "source", 1)
    prompts = {"query": "query: ", "document": None}
    write(folder, prompts=prompts, default_prompt_name="query")
    source = read_source_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, EmbeddingSource)
    assert source.prompts == Prompts({"query": "query: ", "document": ""}, "query")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ["query: "]}, r'"prompts" must be texts by name, but are \[\'query: \'\]'),
        ({"prompts": {"query": 5}}, r'"prompts" must be texts by name, but are \{\'query\': 5\}'),
        (
            {"prompts": {"query": "q"}, "default_prompt_name": "passage"},
            "must be one of the prompts, but is 'passage'; they are: query",
        ),
        ({"default_prompt_name": "q"}, "must be one of the prompts, but is 'q'; they are: none"),
    ],
)
def test_malformed_prompts_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """With the file, the rule and what was found."""
    with pytest.raises(CheckpointError, match=message):
        read_prompts(write(tmp_path, **settings))


def test_default_prompts_of_heads_are_refused(tmp_path: Path) -> None:
    """Their calls put nothing before texts; an empty default is none."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.CLASSIFY)
    write(folder, prompts={"query": "query: ", "none": ""}, default_prompt_name="query")
    with pytest.raises(UnsupportedError, match="'query' before every text, which is supported for"):
        read_source_folder(folder, is_pickle_allowed=False)
    write(folder, prompts={"query": "query: ", "none": ""}, default_prompt_name="none")
    assert read_source_folder(folder, is_pickle_allowed=False).name == tmp_path.name


def make_cross_encoder(folder: Path) -> Path:
    """A folder as ``CrossEncoder`` saves it, with prompts."""
    plain = make_tiny_encoder_folder(folder.with_name("plain"), find_variant("bert"), Task.RERANK)
    prompts = {"query": "query: ", "none": ""}
    encoder = CrossEncoder(str(plain), device="cpu", prompts=prompts, default_prompt_name="query")
    encoder.save_pretrained(str(folder), create_model_card=False)
    return folder


def test_prompts_of_cross_encoders_are_read(tmp_path: Path) -> None:
    """Of folders that the library itself reads them of; what it would not read is refused."""
    folder = make_cross_encoder(tmp_path / "folder")
    source = read_source_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, PredictionSource)
    assert isinstance(source.record, RerankingRecord)
    assert source.record.prompts == {"query": "query: ", "none": ""}
    assert source.record.default_prompt_name == "query"
    settings = json.loads((folder / FILE).read_bytes())
    write(folder, **settings | {"model_type": "SentenceTransformer"})
    with pytest.raises(
        UnsupportedError, match=r'it only beside modules\.json and with "model_type"'
    ):
        read_source_folder(folder, is_pickle_allowed=False)
    write(folder, **settings)
    (folder / "modules.json").unlink()
    with pytest.raises(UnsupportedError, match="puts the prompt 'query' before every text, but se"):
        read_source_folder(folder, is_pickle_allowed=False)


def test_cross_encoders_in_a_folder_below_are_refused(tmp_path: Path) -> None:
    """Their settings would be looked for in the wrong place."""
    folder = make_cross_encoder(tmp_path / "folder")
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "a.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(UnsupportedError, match="its only module Transformer in 0_Transformer, whi"):
        read_source_folder(folder, is_pickle_allowed=False)


def test_records_name_a_default_they_have() -> None:
    """A manifest with another default is malformed."""
    with pytest.raises(ValueError, match="default prompt 'q' is not among prompts"):
        EmbeddingRecord(
            embed_graph="embed.onnx",
            embedding_size=2,
            pooling="mean",
            normalize=True,
            default_prompt_name="q",
        )
