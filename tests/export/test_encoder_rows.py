"""What encoders are calibrated on and judged by: the rows they will see, with pairs and masks."""

from pathlib import Path

import pytest

from seqserve.task_record import Task
from seqserve_export.encoder_folder import read_encoder_folder
from seqserve_export.encoder_rows import (
    encode_groups,
    encode_texts,
    find_frame,
    make_random_groups,
)
from seqserve_export.source import EmbeddingSource, PredictionSource
from tiny_encoder_folder import TEXT, find_variant, make_tiny_encoder_folder

TEXTS = ("the cat sat on the mat", "rain fell over the hills")
FRAME = {2, 3}


def read(folder: Path, task: Task) -> EmbeddingSource | PredictionSource:
    """A tiny BERT of a task."""
    make_tiny_encoder_folder(folder, find_variant("bert"), task)
    return read_encoder_folder(folder, is_pickle_allowed=False)


def test_rerankers_see_pairs(tmp_path: Path) -> None:
    """Each text with the next, the last with the first; the second has type 1."""
    source = read(tmp_path, Task.RERANK)
    encodings = source.tokenizer.encode_batch([TEXTS, TEXTS[::-1]])
    assert encode_texts(source, TEXTS) == [
        (encoding.ids, encoding.type_ids) for encoding in encodings
    ]
    assert set(encodings[0].type_ids) == {0, 1}


def test_mask_models_see_masks(tmp_path: Path) -> None:
    """As in service, where no source comes without one."""
    source = read(tmp_path, Task.FILL_MASK)
    assert isinstance(source, PredictionSource)
    for (tokens, _), text in zip(encode_texts(source, TEXTS), TEXTS, strict=True):
        plain = source.tokenizer.encode(text).ids
        changed = [token for token, other in zip(tokens, plain, strict=True) if token != other]
        assert changed
        assert set(changed) == {source.mask_token}
        assert (tokens[0], tokens[-1]) == (plain[0], plain[-1])


def test_others_see_texts(tmp_path: Path) -> None:
    """One a source, cut to what the model can read."""
    source = read(tmp_path, Task.EMBED)
    sources = encode_texts(source, [*TEXTS, " ".join(TEXTS) * 20])
    assert [tokens for tokens, _ in sources[:2]] == [
        source.tokenizer.encode(text).ids for text in TEXTS
    ]
    assert len(sources[2][0]) == source.max_source_length
    assert {types for _, types in sources} == {None}


def test_documents_of_a_query_are_a_group(tmp_path: Path) -> None:
    """The first of four texts is the query, and all four are its documents, itself among them."""
    source = read(tmp_path, Task.RERANK)
    texts = [*TEXTS, *TEXT[:2], *TEXT[2:]]
    groups = encode_groups(source, texts)
    pairs = [[(texts[0], text) for text in texts[:4]], [(texts[4], texts[4])]]
    expected = [source.tokenizer.encode_batch(group) for group in pairs]
    assert groups == [
        [(encoding.ids, encoding.type_ids) for encoding in group] for group in expected
    ]


def test_other_tasks_have_one_group(tmp_path: Path) -> None:
    """Of all texts."""
    source = read(tmp_path, Task.CLASSIFY)
    assert encode_groups(source, TEXT) == [encode_texts(source, TEXT)]


def test_the_frame_stands_around_every_text(tmp_path: Path) -> None:
    """And is nothing of it."""
    assert find_frame(read(tmp_path, Task.EMBED)) == FRAME


@pytest.mark.parametrize(
    "task", [Task.EMBED, Task.CLASSIFY, Task.CLASSIFY_TOKENS, Task.RERANK, Task.FILL_MASK]
)
def test_random_rows_are_what_the_task_needs(task: Task, tmp_path: Path) -> None:
    """Pairs of types, masks, and groups, of other tokens for another seed."""
    source = read(tmp_path, task)
    groups, origin = make_random_groups(source, 40, 7)
    assert origin == "40 sources of random tokens"
    assert [len(group) for group in groups] == ([4] * 10 if task is Task.RERANK else [40])
    for tokens, types in groups[0]:
        assert (types is not None) is (task in (Task.RERANK, Task.CLASSIFY))
        assert types is None or len(types) == len(tokens)
        assert task is not Task.FILL_MASK or 4 in tokens
    assert groups == make_random_groups(source, 40, 7)[0]
    assert groups != make_random_groups(source, 40, 8)[0]
