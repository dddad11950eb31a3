"""The page and the screen tell what the stages published, and nothing in them can become markup."""

import json
from pathlib import Path

import pytest

from tpo.curation.mix import mix_pairs
from tpo.errors import UserError
from tpo.evaluation.analysis import analyse
from tpo.evaluation.metrics import metrics
from tpo.evaluation.scoring import predict
from tpo.params import MixParams, RegisterParams
from tpo.records import Granularity, Item, PreferencePair, QuestionType, View, ViewKind
from tpo.registry.evidence import gather
from tpo.registry.gate import decide
from tpo.registry.promotion import Promotion
from tpo.report.summary import collect, to_text, write_html
from tpo.store import Manifest, publish
from tpo.validation.checkpoint import ValidationVerdict

EVIL = "<script>alert('x')</script> & {{ 7 * 7 }}"
VIEW = View(video_id="v", kind=ViewKind.DENSE, timestamps_s=(0.0, 1.0))


def _pair(number: int, granularity: Granularity) -> PreferencePair:
    return PreferencePair(
        id=str(number), video_id="v", query_id=str(number), granularity=granularity,
        question_type=QuestionType.TEMPORAL_REASONING, question=f"What comes first? {EVIL}", view=VIEW,
        chosen="a red star", rejected="a blue moon", chosen_tokens=3, rejected_tokens=3,
        chosen_view=VIEW, rejected_view=VIEW, segment=None,
        model_id="m", verdicts=(), judge="rule",
    )  # fmt: skip


def _metrics() -> dict[str, object]:
    items = [
        Item(
            id=str(i), benchmark="mlvu", video=f"{i // 2}.mp4", question="?", options=("a", "b"), gold=0,
            duration_group="short", category="order",
        )
        for i in range(16)
    ]  # fmt: skip
    base = [predict(item, "base", (-1.0, 0.0) if int(item.id) % 2 else (0.0, -1.0)) for item in items]
    tuned = [predict(item, "tuned", (0.0, -1.0)) for item in items]
    return metrics(analyse([*base, *tuned], confidence=0.95, samples=200, seed=0))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A project folder in which every stage but captions, queries, answers and training has run."""
    catalog = Manifest(
        stage="ingest", item="videos", items_in=5, items_out=2, set_aside={"too_short": 2, "unreadable": 1}, seconds=1,
        facts={"benchmarks": "partly checked"},
    )  # fmt: skip
    publish(tmp_path / "data/catalog", {}, catalog)
    pairs = [_pair(i, Granularity.LOCALIZED if i % 3 else Granularity.COMPREHENSIVE) for i in range(9)]
    kept = Manifest(stage="mix", item="pairs", items_in=12, items_out=9, set_aside={"over_quota": 3}, seconds=1)
    mixed = mix_pairs(pairs, MixParams(max_pairs=100, localized_share=None), 0)
    report = mixed.report.model_dump_json()
    publish(tmp_path / "data/pairs", {"pairs.jsonl": pairs, "mix.json": report}, kept)
    evaluated = Manifest(stage="evaluate", item="items", items_in=8, items_out=8, set_aside={}, seconds=1)
    publish(tmp_path / "data/evaluation", {}, evaluated)
    (tmp_path / "data/validation").mkdir()
    verdict = ValidationVerdict(success=True, outcomes=())
    (tmp_path / "data/validation/verdict.json").write_text(verdict.model_dump_json())
    (tmp_path / "reports/data_docs").mkdir(parents=True)
    (tmp_path / "reports/data_docs/index.html").write_text("")
    found = _metrics()
    limits = RegisterParams(name="demo", experiment="demo", min_gain=0.0)
    evidence = gather(
        metrics=found, evaluation={"base_id": "a", "tuned_id": "b"}, training={}, validation={}, videos_report=None,
        questions_report=None, reports_digest=None, tuned_id="b", proof=None, registry=None,
    )  # fmt: skip
    decision = decide(evidence, limits, "2026-11-26T12:00:00+00:00")
    (tmp_path / "reports/evaluation.json").write_text(json.dumps(found))
    (tmp_path / "reports/gate.json").write_text(decision.model_dump_json())
    stayed = Promotion(promoted=False, version="2", champion="1", previous=None, reason=decision.summary)
    (tmp_path / "reports/registry.json").write_text(stayed.model_dump_json())
    return tmp_path


def test_the_screen_tells_what_came_in_what_was_set_aside_what_was_gained_and_where_to_look(finished: Path):
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
        "num_not_sampled": 0, "base": {"accuracy": interval}, "tuned": {"accuracy": interval},
        "difference": {**interval, "num_items": 20},
    }  # fmt: skip
    (finished / "reports/evaluation.json").write_text(json.dumps({"needle": {"in_video": needle}}))
    summary = collect(finished)
    assert "  needle in video" in to_text(summary)
    write_html(summary, finished / "page.html")
    assert "<td>needle in video</td><td>20 items</td>" in (finished / "page.html").read_text()


def test_a_password_in_the_tracking_address_is_not_shown(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:s3cret@db/mlflow")
    assert "s3cret" not in to_text(collect(finished))


def test_text_from_outside_is_escaped_in_the_page(finished: Path):
    write_html(collect(finished), finished / "reports/index.html")
    page = (finished / "reports/index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; {{ 7 * 7 }}" in page


def test_the_page_is_one_small_file_that_loads_nothing(finished: Path):
    write_html(collect(finished), finished / "reports/index.html")
    page = (finished / "reports/index.html").read_text(encoding="utf-8")
    assert "src=" not in page
    assert "@import" not in page
    assert "<link" not in page
    assert len(page) < 20_000
    for fact in (
        "50.0 % [28.0, 72.0]",
        "+50.0 [+50.0, +50.0]",
        "2 too short, 1 unreadable",
        "better_than_base",
        "champion is 1",
    ):
        assert fact in page


def test_a_run_that_has_only_begun_is_shown_as_far_as_it_got(tmp_path: Path):
    begun = Manifest(stage="ingest", item="videos", items_in=1, items_out=1, set_aside={}, seconds=1)
    publish(tmp_path / "data/catalog", {}, begun)
    summary = collect(tmp_path)
    assert "The gate has not decided yet." in to_text(summary)
    write_html(summary, tmp_path / "reports/index.html")
    assert "has not run" in (tmp_path / "reports/index.html").read_text(encoding="utf-8")


def test_a_folder_without_any_stage_is_an_error_that_says_what_to_run(tmp_path: Path):
    with pytest.raises(UserError, match="make demo"):
        collect(tmp_path)


def test_a_report_file_that_is_not_json_is_named(finished: Path):
    (finished / "reports/evaluation.json").write_text("{")
    with pytest.raises(UserError, match=r"evaluation\.json is not JSON"):
        collect(finished)
