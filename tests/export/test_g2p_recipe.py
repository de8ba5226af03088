"""The pronunciation recipe: data, tokenizers, scores, training and the folder it ships."""

import io
import random
from pathlib import Path

import click
import pytest
import torch
from rich.console import Console
from torch import Tensor

from seqserve_export.checkpoint import load_checkpoint
from seqserve_export.recipes.decoding import decode_all
from seqserve_export.recipes.evaluation import count_edits, score_predictions
from seqserve_export.recipes.g2p import Recipe
from seqserve_export.recipes.pronunciation_batch import make_batches, make_examples, pad
from seqserve_export.recipes.pronunciation_data import (
    Dictionary,
    Split,
    group_pronunciations,
    split_words,
)
from seqserve_export.recipes.pronunciation_model import GENERATION, make_model
from seqserve_export.recipes.pronunciation_tokenizer import (
    END_ID,
    PAD_ID,
    UNKNOWN_ID,
    make_source_tokenizer,
    make_target_tokenizer,
)
from seqserve_export.recipes.trainer import Trainer, TrainingConfig
from seqserve_export.transformer import Transformer

_PHONEMES = {"a": "AA", "b": "B", "d": "D", "i": "IY", "k": "K", "m": "M", "o": "OW", "t": "T"}


def _make_words(count: int) -> Dictionary:
    generator = random.Random(3)
    words: set[str] = set()
    while len(words) < count:
        words.add("".join(generator.choices(sorted(_PHONEMES), k=generator.randint(2, 6))))
    return {word: [tuple(_PHONEMES[letter] for letter in word)] for word in sorted(words)}


def _make_tiny_model() -> Transformer:
    torch.manual_seed(5)
    return make_model(31, 12, width=32, num_encoder_layers=1, num_decoder_layers=1)


def _make_config(epochs: int) -> TrainingConfig:
    return TrainingConfig(
        epochs=epochs, batch_size=16, learning_rate=5e-3, warmup_steps=5, validation_epochs=1
    )


def _make_trainer(model: Transformer, config: TrainingConfig, folder: Path) -> Trainer:
    target = make_target_tokenizer(list(_PHONEMES.values()))
    examples = make_examples(_make_words(200), make_source_tokenizer(), target)
    return Trainer(model, examples, config, folder, Console(file=io.StringIO()))


def _copy_weights(model: Transformer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_grouping_merges_stress_and_keeps_plain_words() -> None:
    """Pronunciations that differ in stress alone are one; odd words are dropped."""
    grouped = group_pronunciations(
        [
            ("record", ["R", "EH1", "K", "ER0", "D"]),
            ("record", ["R", "IH0", "K", "AO1", "R", "D"]),
            ("record", ["R", "EH0", "K", "ER1", "D"]),
            ("can't", ["K", "AE1", "N", "T"]),
            ("a.m.", ["EY1", "EH1", "M"]),
            ("x-ray", ["EH1", "K", "S", "R", "EY1"]),
            ("3d", ["TH", "R", "IY1", "D", "IY1"]),
        ]
    )
    assert grouped == {
        "can't": [("K", "AE", "N", "T")],
        "record": [("R", "EH", "K", "ER", "D"), ("R", "IH", "K", "AO", "R", "D")],
    }


def test_split_is_disjoint_complete_and_deterministic() -> None:
    """The three parts share no word, lose none, and are the same whatever the order read."""
    words = _make_words(60)
    reversed_words = dict(reversed(words.items()))
    split = split_words(words, num_test=20, num_valid=10, seed=1)
    assert split == split_words(reversed_words, num_test=20, num_valid=10, seed=1)
    assert split != split_words(words, num_test=20, num_valid=10, seed=2)
    parts = [set(split.train), set(split.valid), set(split.test)]
    assert [len(part) for part in parts] == [30, 10, 20]
    assert set.union(*parts) == set(words)


def test_split_is_the_same_on_every_platform() -> None:
    """The words of a seeded split are fixed."""
    words: Dictionary = {letter: [("AA",)] for letter in "abcdefgh"}
    split = split_words(words, num_test=2, num_valid=2, seed=1)
    assert (list(split.test), list(split.valid)) == (["d", "g"], ["b", "f"])


def test_split_needs_words_to_train_on() -> None:
    """A split that leaves nothing to train on is refused."""
    with pytest.raises(ValueError, match="must be below the 4 words"):
        split_words(_make_words(4), num_test=3, num_valid=1, seed=1)


def test_source_tokenizer_folds_letters_and_appends_the_end() -> None:
    """Case, accents and curly apostrophes are folded; other characters are unknown."""
    tokenizer = make_source_tokenizer()
    assert tokenizer.encode("").ids == [END_ID]
    assert tokenizer.encode("ÉCOLE\u2019s").ids == tokenizer.encode("ecole's").ids
    assert tokenizer.encode("ab").tokens == ["a", "b", "</s>"]
    assert tokenizer.encode("a 7\n").ids == [5, UNKNOWN_ID, UNKNOWN_ID, UNKNOWN_ID, END_ID]
    assert tokenizer.decode(tokenizer.encode("can't").ids, skip_special_tokens=True) == "can't"


def test_target_tokenizer_round_trip() -> None:
    """Phonemes come back with single spaces and without special tokens."""
    tokenizer = make_target_tokenizer(["OW", "HH", "AH", "L"])
    tokens = tokenizer.encode("HH AH L OW").ids
    assert tokens == [5, 4, 6, 7]
    assert tokenizer.decode([1, *tokens, END_ID, PAD_ID], skip_special_tokens=True) == "HH AH L OW"


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)],
)
def test_edits(first: str, second: str, edits: int) -> None:
    """Edits are counted, from either side."""
    assert count_edits(first, second) == count_edits(second, first) == edits


def test_scores_take_the_closest_pronunciation() -> None:
    """One word of two is right, and two of nine phonemes are wrong."""
    score = score_predictions(["abcd", "abcx"], [["xy", "abcd"], ["abcde", "z"]])
    assert score.word_error_rate == 0.5
    assert score.phoneme_error_rate == pytest.approx(2 / 9)
    assert str(score) == "PER 22.22 %, WER 50.00 %"


def test_batches_hold_each_word_once_and_repeat() -> None:
    """An epoch holds every word, again the same when asked again, and another when not."""
    words = _make_words(50)
    source, target = make_source_tokenizer(), make_target_tokenizer(list(_PHONEMES.values()))
    examples = make_examples(words, source, target)

    def list_rows(epoch: int) -> list[list[int]]:
        batches = make_batches(examples, 8, unknown_rate=0.0, seed=1, epoch=epoch)
        return [
            row[:length]
            for batch in batches
            for row, length in zip(
                batch.source_tokens.tolist(), batch.source_lengths.tolist(), strict=True
            )
        ]

    assert sorted(list_rows(0)) == sorted(example.source for example in examples)
    assert list_rows(0) == list_rows(0) != list_rows(1)


def test_unknown_letters_never_hide_the_end() -> None:
    """With a rate of one, every word has exactly one unknown letter and keeps its end."""
    target = make_target_tokenizer(list(_PHONEMES.values()))
    examples = make_examples(_make_words(30), make_source_tokenizer(), target)
    for batch in make_batches(examples, 8, unknown_rate=1.0, seed=1, epoch=0):
        assert (batch.source_tokens == UNKNOWN_ID).sum(1).eq(1).all()
        assert (batch.source_tokens == END_ID).sum(1).eq(1).all()


def test_one_beam_is_greedy() -> None:
    """Cached decoding with one beam takes what the whole model scores highest, step by step."""
    model = _make_tiny_model().eval()
    source = [4, 5, 6, END_ID]
    [decoded] = decode_all(model, [source], GENERATION, num_beams=1)
    target = [GENERATION.decoder_start_token_id]
    while len(target) <= GENERATION.max_new_tokens:
        with torch.inference_mode():
            logits = model(*pad([source]), *pad([target]))
        target.append(int(logits[0, -1].argmax()))
        if target[-1] == END_ID:
            break
    assert decoded == [token for token in target[1:] if token not in (END_ID, PAD_ID)]


def test_decoding_does_not_depend_on_the_batch() -> None:
    """A word gets the same beam search result alone as among others."""
    model = _make_tiny_model().eval()
    sources = [[4, 5, END_ID], [6, 7, 8, 9, 10, END_ID], [11, END_ID]]
    together = decode_all(model, sources, GENERATION, num_beams=3)
    assert together == [decode_all(model, [s], GENERATION, num_beams=3)[0] for s in sources]


def test_training_reduces_the_loss(tmp_path: Path) -> None:
    """Two epochs on two hundred words are enough to see it."""
    trainer = _make_trainer(_make_tiny_model(), _make_config(2), tmp_path)
    trainer.run(lambda epoch: None)
    assert len(trainer.losses) == 2
    assert trainer.losses[1] < 0.9 * trainer.losses[0]


def test_resumed_training_gives_the_same_weights(tmp_path: Path) -> None:
    """Interrupted after the first of two epochs or not: the result is the same to the bit."""
    whole = _make_trainer(_make_tiny_model(), _make_config(2), tmp_path / "whole")
    whole.run(lambda epoch: None)

    def interrupt(epoch: int) -> None:
        raise KeyboardInterrupt

    first = _make_trainer(_make_tiny_model(), _make_config(2), tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        first.run(interrupt)
    torch.manual_seed(99)  # The random state comes from the folder.
    second = _make_trainer(_make_tiny_model(), _make_config(2), tmp_path / "parts")
    assert second.resume()
    assert second.epoch == 1
    second.run(lambda epoch: None)
    torch.testing.assert_close(
        _copy_weights(second.model), _copy_weights(whole.model), rtol=0, atol=0
    )
    torch.testing.assert_close(second.averages, whole.averages, rtol=0, atol=0)
    assert second.losses == whole.losses


def test_shortened_training_ends_early(tmp_path: Path) -> None:
    """Fewer epochs on resuming end the schedule there."""
    _make_trainer(_make_tiny_model(), _make_config(2), tmp_path).run(lambda epoch: None)
    trainer = _make_trainer(_make_tiny_model(), _make_config(1), tmp_path)
    assert trainer.resume()
    trainer.run(lambda epoch: pytest.fail("there is nothing left to train"))
    assert trainer.epoch == 2


def test_shipped_folder_loads_and_has_a_card(tmp_path: Path) -> None:
    """The folder holds the averaged weights, rounded to fp16, and the measured numbers."""
    words = _make_words(120)
    output = io.StringIO()
    recipe = Recipe(
        split=split_words(words, num_test=20, num_valid=10, seed=1),
        config=_make_config(1),
        device="cpu",
        work=tmp_path / "work",
        console=Console(file=output),
    )
    model, out = _make_tiny_model(), tmp_path / "out"
    recipe.run(model, out, is_resumed=True, is_trained=True)
    checkpoint = load_checkpoint(out)
    assert checkpoint.name == "g2p-en"
    assert checkpoint.generation == GENERATION
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "samples.txt",
        "target_tokenizer.json",
        "tokenizer.json",
    }
    assert (out / "samples.txt").read_text(encoding="utf-8").split() == [
        next(iter(recipe.split.valid))
    ]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| greedy |" in card
    assert "after 1 epochs: PER" in output.getvalue()
    recipe.run(_make_tiny_model(), tmp_path / "again", is_resumed=True, is_trained=False)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    """Without a state, writing the folder would ship random weights."""
    words = _make_words(20)
    recipe = Recipe(
        split=Split(train=words, valid=words, test=words),
        config=_make_config(1),
        device="cpu",
        work=tmp_path / "work",
        console=Console(file=io.StringIO()),
    )
    with pytest.raises(click.UsageError, match="holds no training to write"):
        recipe.run(_make_tiny_model(), tmp_path / "out", is_resumed=True, is_trained=False)
