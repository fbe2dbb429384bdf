"""The catalogue is the list of layers: nothing that a Keras exports is missing, and each has a rule or a reason."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from modelio.layers import census
from modelio.layers.catalogue import CATALOGUE
from modelio.layers.census import ABSTRACT, MODELS, OF_APPLICATIONS, REASONS, generations
from modelio.lowering.rules import find
from tests.lowering.harness import keras2, keras3
from tools.document_layers import PAGE, page


def exported(keras: ModuleType) -> set[str]:
    """The layer classes of ``keras.layers``, each once, under the name that files have."""
    spaces = [keras.layers]
    for path in ("experimental", "experimental.preprocessing"):
        if hasattr(keras.layers, "experimental"):
            spaces.append(importlib.import_module(f"{keras.__name__}.layers.{path}"))
    names: dict[type, list[str]] = {}
    for space in spaces:
        for name, value in vars(space).items():
            if isinstance(value, type) and issubclass(value, keras.layers.Layer):
                names.setdefault(value, []).append(name)
    return {value.__name__ if value.__name__ in known else known[0] for value, known in names.items()}


CONSIDERED = CATALOGUE.keys() | ABSTRACT.keys() | MODELS.keys() | REASONS.keys()


@pytest.mark.parametrize("keras", [keras3, keras2])
def test_every_exported_layer_is_listed(keras):
    known = CONSIDERED | {old for new in CATALOGUE for old in census.known_as(new)}
    assert sorted(exported(keras()) - known) == []


def test_every_layer_of_the_catalogue_has_a_rule_or_a_reason():
    missing = [name for name in CATALOGUE if find(name) is None and name not in REASONS]
    assert missing == []


def test_no_reason_is_stated_where_there_is_a_rule():
    assert [name for name in (*ABSTRACT, *MODELS, *REASONS) if find(name) is not None] == []


@pytest.mark.parametrize(("keras", "generation"), [(keras3, 3), (keras2, 2)])
def test_the_generations_are_those_of_the_installed_versions(keras, generation):
    there = exported(keras())
    listed = {name for name in CONSIDERED - ABSTRACT.keys() - OF_APPLICATIONS if generation in generations(name)}
    renamed = {"GroupedQueryAttention": "GroupQueryAttention", "SyncBatchNormalization": "BatchNormalization"}
    assert sorted(listed - {renamed.get(name, name) for name in there}) == []
    assert sorted({renamed.get(name, name) for name in there} - listed - ABSTRACT.keys()) == []


def test_every_name_of_the_census_is_a_layer():
    """A name misspelled there would be in no table."""
    named = census._KERAS_1 | census._KERAS_1_ALONE | census._NOT_KERAS_2 | census._NOT_KERAS_3
    assert sorted(named - CONSIDERED) == []


def test_the_page_is_up_to_date():
    """``python tools/document_layers.py`` writes it anew."""
    assert PAGE.read_text(encoding="utf-8") == page()
