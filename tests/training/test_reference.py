"""Reference log-probabilities: once, for the right model, and for every pair."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_shared_training import CPU, Counted, base_of

from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.records import PreferencePair
from tpo.replies import ReplyCache
from tpo.training.branches import branching
from tpo.training.features import VideoFeatures
from tpo.training.reference import reference_key, reference_scores
from tpo.training.rows import PairRows
from tpo.training.run import Kept, train_on_pairs
from tpo.training.scoring import add_row_scoring


def test_reference_scores_are_computed_once_and_only_for_what_changed(world, tmp_path: Path, monkeypatch) -> None:
    model, cache, counted = base_of(world), ReplyCache(tmp_path / "reference.sqlite"), Counted(monkeypatch)
    add_row_scoring(model.model, model.family)

    def scores(pairs: list[PreferencePair]) -> Any:
        rows = PairRows(pairs, VideoFeatures(model, world.videos, world.folder), model, "video")
        counted.rows = 0
        with branching(model.model):
            return reference_scores(model, rows, cache, CPU)

    first = scores(world.pairs)
    assert counted.rows == 2, "a row for each video"
    assert scores(world.pairs) == first
    assert counted.rows == 0
    other = [p.model_copy(update={"rejected": "a blue sea"}) if p.id == "pair3" else p for p in world.pairs]
    again = scores(other)
    assert counted.rows == 1
    assert {number for number in first if first[number] != again[number]} == {3}
    assert again[3].chosen == pytest.approx(first[3].chosen, abs=1e-9)


def test_processes_agree_on_which_reference_scores_are_missing(world, tmp_path: Path, monkeypatch) -> None:
    """Another process may have written some already when this one looks."""
    model, cache, counted = base_of(world), ReplyCache(tmp_path / "reference.sqlite"), Counted(monkeypatch)
    add_row_scoring(model.model, model.family)
    rows = PairRows(world.pairs, VideoFeatures(model, world.videos, world.folder), model, "video")
    with branching(model.model):
        reference_scores(model, rows, cache, CPU)
        monkeypatch.setattr("tpo.training.reference.broadcast_object_list", lambda _: [{}])  # the first found none
        found = reference_scores(model, rows, cache, CPU)
    assert counted.rows == 4
    assert sorted(found) == list(range(6))


def test_a_reference_that_is_no_number_is_an_error_and_is_not_kept(world, tmp_path: Path) -> None:
    model, cache = base_of(world), ReplyCache(tmp_path / "reference.sqlite")
    add_row_scoring(model.model, model.family)
    with torch.no_grad():
        model.model.get_output_embeddings().weight[0] = torch.nan
    rows = PairRows(world.pairs, VideoFeatures(model, world.videos, world.folder), model, "video")
    with branching(model.model), pytest.raises(UserError, match=r"pairs pair0 and pair2 and pair4 log-probabilities"):
        reference_scores(model, rows, cache, CPU)
    assert cache.get(reference_key(model, world.pairs[0])) is None


def test_a_references_key_has_the_model_the_view_and_what_is_said(world) -> None:
    model, pair = base_of(world), world.pairs[0]
    keys = {reference_key(model, pair)}
    for changes in ({"question": "?"}, {"chosen": "x"}, {"rejected": "x"}, {"view": world.pairs[1].view}):
        keys.add(reference_key(model, pair.model_copy(update=changes)))
    model.id = "another"
    keys.add(reference_key(model, pair))
    assert len(keys) == 6
    assert reference_key(model, pair) == reference_key(model, pair.model_copy(update={"id": "x", "judge": "y"}))


def test_another_bases_reference_is_never_used(world, tmp_path: Path) -> None:
    """Scores of a wrong model in the cache, under its own key: they are not found."""
    cache = ReplyCache(tmp_path / "reference.sqlite")
    model = load_model(world.base)
    other = model.__class__(**vars(model) | {"id": "another"})
    for pair in world.pairs:
        cache.put(reference_key(other, pair), json.dumps({"chosen": [-50.0], "rejected": [-1.0]}))
    _, history, *_ = train_on_pairs(
        world.pairs, world.videos, world.folder, world.base, world.params, tmp_path / "work",
        kept=Kept(replies=tmp_path / "reference.sqlite"),
    )  # fmt: skip
    assert history[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
