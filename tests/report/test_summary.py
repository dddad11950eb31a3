"""The screen tells what the stages published."""

import json
from pathlib import Path

import pytest

from tpo.errors import UserError
from tpo.report.summary import collect, to_text
from tpo.store import Manifest, publish


def test_the_screen_tells_what_came_in_what_was_set_aside_what_was_gained_and_where_to_look(finished: Path):
    assert "reports/index.html" not in to_text(collect(finished))
    (finished / "reports/index.html").touch()
    text = to_text(collect(finished))
    assert "Videos       2 of 5 videos; set aside: 2 too short, 1 unreadable" in text
    assert "Pairs        9 of 12 pairs: 3 comprehensive, 6 localized; set aside: 3 over quota" in text
    assert "Lengths      chosen answers 3.0 tokens, rejected 3.0; the chosen one is longer in 0% of 9 pairs" in text
    assert "Short of     9 pairs to train on, 100 were asked for" in text
    assert "Captions     has not run" in text
    assert "Benchmarks   training videos partly checked against the benchmarks'" in text
    assert "mlvu  50.0 % [28.0, 72.0] → 100.0 % [80.6, 100.0], difference +50.0 [+50.0, +50.0]; 16 items" in text
    assert "  better: +50.0 points [+50.0, +50.0], p 0.0078 (Holm). Whether it needs the video" in text
    assert "Refused: the evaluation is of b, but the registered version is not known: run `dvc repro`;" in text
    assert "there is no verdict on the training pairs" in text
    assert "\nVersion 2 is challenger, champion is 1.\n" in text
    for place in ("reports/index.html", "reports/data_docs/index.html", "mlflow ui --backend-", "prefect server start"):
        assert place in text


def test_needles_are_shown_where_nothing_else_was_measured(finished: Path):
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    needle = {
        "num_not_sampled": 0, "num_not_asked": 3, "base": {"accuracy": interval}, "tuned": {"accuracy": interval},
        "difference": {**interval, "num_items": 20},
    }  # fmt: skip
    (finished / "reports/evaluation.json").write_text(json.dumps({"needle": {"in_video": needle}}))
    summary = collect(finished)
    assert "  needle in video" in to_text(summary)
    assert [score.asked for score in summary.beside] == ["20 items, 3 not asked"]


def test_a_password_in_the_tracking_address_is_not_shown(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:s3cret@db/mlflow")
    assert "s3cret" not in to_text(collect(finished))


def test_a_run_that_has_only_begun_is_shown_as_far_as_it_got(tmp_path: Path):
    begun = Manifest(stage="ingest", item="videos", items_in=1, items_out=1, set_aside={}, seconds=1)
    publish(tmp_path / "data/catalog", {}, begun)
    text = to_text(collect(tmp_path))
    assert "The gate has not decided yet." in text
    assert "Pairs        has not run" in text


def test_a_folder_without_any_stage_is_an_error_that_says_what_to_run(tmp_path: Path):
    with pytest.raises(UserError, match="make demo"):
        collect(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("reports/evaluation.json", b"{", r"evaluation\.json is not what its stage writes: Invalid JSON"),
        ("reports/evaluation.json", b"[]", r"evaluation\.json is not what its stage writes"),
        ("reports/evaluation.json", b'{"all": {"accuracy_tuned": 1}}', r"another version .*'num_items'"),
        ("reports/gate.json", b'{"promote": "maybe"}', r"gate\.json is not what its stage writes"),
        ("reports/registry.json", b"\xff", r"registry\.json is not what its stage writes"),
        ("data/pairs/pairs.jsonl", b"\xff\n", r"pairs\.jsonl, line 1: not a PreferencePair"),
    ],
)
def test_a_file_that_no_stage_wrote_so_is_named(finished: Path, name: str, content: bytes, message: str):
    (finished / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        collect(finished)
