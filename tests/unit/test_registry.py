"""Which version answers: by number, by label, by default, while versions come and go."""

from typing import Any

import pytest

from fakes import FakeEngine, make_generation_record
from running_worker import make_worker
from seqserve.admission import Admission
from seqserve.errors import InvalidRequestError, ModelNotFoundError
from seqserve.lanes import Lanes
from seqserve.manifest import FileRecord, Manifest, Provenance
from seqserve.metrics import Metrics
from seqserve.model_metrics import ModelMetrics
from seqserve.registry import Registry
from seqserve.served_model import ServedModel
from seqserve.task_record import Task

NOTHING: Any = None
"""In place of tokenizers, which nobody uses here."""
FILES = ("encode.onnx", "decode.onnx", "tokenizer.json")


def make_model(version: str, name: str = "tiny") -> ServedModel:
    """A model whose worker was not started."""
    manifest = Manifest(
        manifest_version=1,
        name=name,
        version=version,
        tasks=(Task.GENERATE,),
        family="bart",
        dtype="fp32",
        source_tokenizer="tokenizer.json",
        source_vocabulary_size=32,
        max_source_length=40,
        generation=make_generation_record(),
        is_batch_invariant=True,
        verification=(),
        provenance=Provenance(source="tiny", exporter="test 1", libraries={}),
        files={file: FileRecord(size_bytes=0, sha256="0" * 64) for file in FILES},
    )
    return ServedModel(
        manifest=manifest,
        source_tokenizer=NOTHING,
        target_tokenizer=NOTHING,
        lanes=Lanes([make_worker(FakeEngine())]),
        admission=Admission(1),
        token_admission=Admission(1, noun="tokens"),
        metrics=ModelMetrics(Metrics(), name, version),
        budget=None,
        is_batch_invariant=True,
    )


def make_registry(*versions: str) -> Registry:
    """A registry of some versions of one model."""
    return Registry([make_model(version) for version in versions])


def found(registry: Registry, version: str = "", name: str = "tiny") -> str:
    """The version that answers."""
    return registry.find(name, version, Task.GENERATE).manifest.version


def refusal(registry: Registry, version: str = "", name: str = "tiny") -> str:
    """The message with which a request is refused."""
    with pytest.raises((InvalidRequestError, ModelNotFoundError)) as caught:
        found(registry, version, name)
    return str(caught.value)


def test_newest_version_is_the_default() -> None:
    """By number, whenever it came."""
    registry = make_registry("10", "9")
    assert found(registry) == "10"
    registry.add(make_model("11"))
    registry.add(make_model("2"))
    assert found(registry) == "11"
    assert [model.label for model in registry.models] == ["tiny/2", "tiny/9", "tiny/10", "tiny/11"]


def test_stable_is_the_default_where_there_is_such_a_label() -> None:
    """A newer version answers only those who ask for it, by number or by label."""
    registry = make_registry("1", "2", "3")
    assert registry.set_labels("tiny", {"stable": "1", "canary": "3"}) == {}
    assert (found(registry), found(registry, "stable")) == ("1", "1")
    assert (found(registry, "canary"), found(registry, "2")) == ("3", "2")
    registry.set_labels("tiny", {"canary": "3"})
    assert found(registry) == "3"


def test_unknown_version_is_refused_with_what_there_is() -> None:
    """Versions with their labels; models, when the name is wrong."""
    registry = make_registry("1", "2", "3")
    registry.set_labels("tiny", {"stable": "1", "old": "1", "canary": "3"})
    assert refusal(registry, "beta") == (
        "model 'tiny' has no version 'beta'; it has: 1 (old, stable), 2, 3 (canary)"
    )
    assert refusal(registry, name="nope") == "there is no model 'nope'; there are: tiny"


def test_label_waits_for_its_version_where_it_was() -> None:
    """A version that was refused, or is still to come, never leaves requests without an answer."""
    registry = make_registry("1", "2")
    registry.set_labels("tiny", {"stable": "1"})
    assert registry.set_labels("tiny", {"stable": "3", "canary": "4"}) == {
        "stable": "3",
        "canary": "4",
    }
    assert found(registry) == "1"
    assert "no version 'canary'; it has: 1 (stable), 2" in refusal(registry, "canary")
    registry.add(make_model("3"))
    assert found(registry) == "1"
    assert registry.set_labels("tiny", {"stable": "3", "canary": "4"}) == {"canary": "4"}
    assert found(registry) == "3"


def test_last_version_can_go_and_come_back() -> None:
    """Without versions there is no model of the name."""
    registry = make_registry("1")
    model = registry.find("tiny", "1", None)
    registry.remove(model)
    assert (registry.models, registry.keys, registry.tasks()) == ([], set(), set())
    assert refusal(registry) == "there is no model 'tiny'; there are: none"
    assert refusal(registry, name="") == (
        "`model_name` is empty, but the models that generate are: none"
    )
    registry.add(model)
    assert found(registry, name="") == "1"


def test_version_with_a_label_cannot_be_removed() -> None:
    """Or the label would mean nothing."""
    registry = make_registry("1", "2")
    registry.set_labels("tiny", {"stable": "1"})
    with pytest.raises(AssertionError, match="tiny/1 has a label"):
        registry.remove(registry.find("tiny", "1", None))


def test_name_may_be_left_out_while_one_model_is_left() -> None:
    """A second name takes the choice away, its end gives it back."""
    registry = make_registry("1")
    other = make_model("1", "other")
    registry.add(other)
    assert refusal(registry, name="") == (
        "`model_name` is empty, but the models that generate are: other, tiny"
    )
    registry.remove(other)
    assert found(registry, name="") == "1"
