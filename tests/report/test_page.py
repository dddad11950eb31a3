"""The page says what the files say, says what is missing, and nothing in it can become markup or is loaded."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tpo.records import GateRule, PreferencePair
from tpo.report.charts import bars
from tpo.report.page import cut, in_unit, write_html
from tpo.report.summary import collect, to_text, validation_text
from tpo.store import Manifest, publish, read_records
from tpo.validation.checkpoint import Outcome, ValidationVerdict

ROOT = Path(__file__).resolve().parents[2]
MORE_EVIL = '<img src="http://evil.example/x" onerror=alert(1)> \u202egnp.elif \U0001f9ed $x$ '


def page_of(root: Path, **runs: str) -> str:
    write_html(root, runs)
    return (root / "reports/index.html").read_text(encoding="utf-8")


def said(page: str) -> str:
    """The page's text, without tags and with one space between words."""
    found: list[str] = []
    reader = HTMLParser()
    reader.handle_data = found.append  # type: ignore[method-assign]
    reader.feed(page[page.index("<body>") :])
    return " ".join(" ".join(found).split())


def add_metrics(root: Path, **more: Any) -> None:
    path = root / "reports/evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def add_file(root: Path, name: str, text: str) -> None:
    path = root / "reports" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_the_run_is_told_in_a_line_with_its_reason(finished: Path):
    text = said(page_of(finished))
    assert "Better than the base: +50.0 points [+50.0, +50.0], p 0.0078 (Holm)" in text
    assert "Tuned minus base on 16 items, 8 videos: base 50.0 % [28.0, 72.0], tuned 100.0 % [80.6, 100.0]." in text
    assert "✗ Not promoted. Refused: the evaluation is of b, but the registered version is not known" in text
    assert "Version 2 is challenger, champion is 1." in text


def test_a_promoted_version_is_said_to_be_promoted(finished: Path):
    moved = {"promoted": True, "version": "2", "champion": "2", "previous": "1", "reason": ""}
    add_file(finished, "registry.json", json.dumps(moved))
    assert "✓ Promoted." in said(page_of(finished))


def test_every_reason_and_every_count_of_the_manifests_is_there(finished: Path):
    text = said(page_of(finished))
    assert "Videos 2 of 5 videos 2 too short, 1 unreadable" in text
    assert "Pairs 9 of 12 pairs 3 over quota" in text
    assert "Captions has not run" in text


def test_distributions_name_how_many_they_are_of(finished: Path):
    text = said(page_of(finished))
    assert "Question types of the 9 pairs trained on: 6 localized, 3 comprehensive." in text
    assert "Answer lengths in tokens, of 9 pairs trained on." in text
    assert "Durations of the videos in the catalog: 2 videos, 0.2 hours in all." in text


def test_lengths_that_are_not_known_are_counted(finished: Path):
    path = finished / "data/pairs/pairs.jsonl"
    first, *others = read_records(path, PreferencePair)
    lines = [first.model_copy(update={"chosen_tokens": None}), *others]
    path.write_text("".join(pair.model_dump_json() + "\n" for pair in lines))
    assert "of 8 pairs trained on; of 1 more it is not known." in said(page_of(finished))


def test_training_curves_are_drawn_from_what_was_measured(finished: Path):
    add_file(finished, "training/curves.csv", "step,loss/preference,rewards/margins\n1,0.693,0.0\n2,0.6,0.1\n3,0.5,\n")
    text = said(page_of(finished))
    assert "Measured points: preference 3." in text
    assert "Measured points: trained on 2." in text
    add_file(finished, "training/held_out.csv", "step,eval_rewards/margins\n2,0.2\n")
    assert "Measured points: trained on 2; held out 1." in said(page_of(finished))


def test_the_table_has_accuracy_and_difference_with_intervals_by_benchmark_and_by_duration(finished: Path):
    text = said(page_of(finished))
    row = "16 items, 8 videos 50.0 % [28.0, 72.0] 100.0 % [80.6, 100.0] +50.0 [+50.0, +50.0]"
    for name in ("all", "mlvu", "mlvu, short"):
        assert f"{name} {row}" in text
    assert "No other model was champion, or it was not asked" in text


def test_the_champion_stands_beside_base_and_tuned_in_every_benchmark_and_by_duration(finished: Path):
    share = {f"accuracy_{role}{end}": 0.75 for role in ("champion", "tuned") for end in ("", "_low", "_high")}
    gain = {"difference": 0.25, "difference_low": 0.1, "difference_high": 0.4, "num_items": 16, "num_videos": 8}
    against = share | gain
    add_metrics(finished, champion={"all": against, "mlvu": against | {"duration_group": {"short": against}}})
    page = page_of(finished)
    row = "+50.0 [+50.0, +50.0] 75.0 % [75.0, 75.0] +25.0 [+10.0, +40.0]"
    assert said(page).count(row) == 3, "all, mlvu and its short videos"
    assert page.count(">champion</text>") == 2
    assert "Champion 75.0 % [75.0, 75.0], tuned minus champion +25.0" in to_text(collect(finished))


def test_controls_say_what_each_model_loses(finished: Path):
    metrics = json.loads((finished / "reports/evaluation.json").read_text())
    numbers = {"num_items": 16, "num_videos": 8}
    for what, value in {"accuracy_base": 0.5, "accuracy_tuned": 0.5, "difference": 0.0, "drop_base": 0.1}.items():
        numbers |= {what: value, f"{what}_low": value, f"{what}_high": value}
    for what in ("drop_tuned", "drop_difference"):
        numbers |= {what: 0.4, f"{what}_low": 0.3, f"{what}_high": 0.5}
    add_metrics(finished, all=metrics["all"] | {"conditions": {"text_only": numbers}})
    row = "text only 16 items, 8 videos +10.0 [+10.0, +10.0] +40.0 [+30.0, +50.0] +40.0 [+30.0, +50.0]"
    assert row in said(page_of(finished))


def test_needle_maps_show_each_field_of_base_tuned_and_difference(finished: Path):
    head = "mode,length,depth,model,accuracy,low,high,n,not_sampled\n"
    rows = "in_video,0.5,0.0,base,0.25,0,1,4,1\nin_video,0.5,0.0,tuned,0.75,0,1,4,1\n"
    add_file(finished, "needle.csv", head + rows)
    head = "mode,length,depth,difference,low,high,n,gained,lost\n"
    add_file(finished, "needle_difference.csv", head + "in_video,0.5,0.0,0.5,-1,1,4,3,1\n")
    half = {"value": 0.5, "low": 0.4, "high": 0.6, "num_items": 4}
    asked = {"base": {"accuracy": half, "needle_absent": half}, "tuned": {"accuracy": half, "needle_absent": half}}
    add_metrics(finished, needle={"in_video": asked | {"difference": half, "num_not_sampled": 1, "num_not_asked": 0}})
    page = page_of(finished)
    assert "With the needle absent, 4 questions: base 50.0 % [40.0, 60.0], tuned 50.0 % [40.0, 60.0]." in said(page)
    assert [f">{field}</text>" in page for field in ("25", "75", "+50")] == [True] * 3
    assert "Needle in video, base: % found, 4 questions, 4 a field; 1 of them on no sampled frame." in said(page)
    assert "Needle in video, tuned minus base: points, 4 questions, 4 a field; 3 gained, 1 lost." in said(page)


def test_what_asking_models_cost_is_in_the_table(finished: Path):
    usage = {"calls": 1200, "remembered": 3, "failed": 0, "input_tokens": 45000, "output_tokens": 600, "usd": 1.25}
    judged = Manifest(
        stage="judge", item="pairs", items_in=1, items_out=1, set_aside={}, seconds=61.5, facts={"usage": usage}
    )
    publish(finished / "data/judged", {}, judged)
    row = "Judging 61.5 s 1,200 calls, 3 replies remembered; 45,000 tokens in, 600 out; 1.25 US dollars"
    assert row in said(page_of(finished))


def test_runs_of_mlflow_and_prefect_can_be_found(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@tracking.example/")
    facts = {"mlflow_run_id": "abc123"}
    evaluated = Manifest(stage="evaluate", item="items", items_in=8, items_out=8, set_aside={}, seconds=1, facts=facts)
    publish(finished / "data/evaluation", {}, evaluated)
    monkeypatch.setenv("PREFECT_API_URL", "http://me:s3cret@flows.example/api")
    page = page_of(finished, register="flow-7")
    assert '<a href="https://***@tracking.example/#/runs/abc123">abc123</a>' in page
    assert "s3cret" not in page
    assert '<a href="http://***@flows.example/runs/flow-run/flow-7">flow-7</a>' in page
    assert '<a href="data_docs/index.html">' in page


def test_text_from_outside_is_shown_as_text_and_kept_from_turning_the_page(finished: Path):
    path = finished / "data/pairs/pairs.jsonl"
    pairs = [pair.model_copy(update={"chosen": MORE_EVIL}) for pair in read_records(path, PreferencePair)]
    path.write_text("".join(pair.model_dump_json() + "\n" for pair in pairs), encoding="utf-8")
    page = page_of(finished)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; {{ 7 * 7 }}" in page
    assert (
        "<bdi>&lt;img src=&#34;http://evil.example/x&#34; onerror=alert(1)&gt; \u202egnp.elif \U0001f9ed $x$ </bdi>"
        in page
    )


def test_a_long_text_is_cut_where_the_reader_sees_it(finished: Path):
    path = finished / "data/pairs/pairs.jsonl"
    pairs = [pair.model_copy(update={"question": "why? " * 20_000}) for pair in read_records(path, PreferencePair)]
    path.write_text("".join(pair.model_dump_json() + "\n" for pair in pairs))
    page = page_of(finished)
    assert "(cut; 100,000 characters in all)" in page
    assert len(page.encode()) < 300_000
    assert cut("short") == "short"


def test_a_name_in_a_chart_is_text_and_not_markup_or_a_formula():
    svg = bars("<b>t</b>", ["<script>$a$"], {"": [3]}, "pairs")
    assert "<title>&lt;b&gt;t&lt;/b&gt;</title>" in svg
    assert "&lt;script&gt;$a$</text>" in svg


def test_the_page_is_one_small_file_that_loads_nothing_and_is_the_same_every_time(finished: Path):
    page = page_of(finished)
    assert len(page.encode()) < 100_000
    for loading in ("<script", "<link", "src=", "@import", "url(http", "http://www.w3.org"):
        assert loading not in page
    assert re.findall(r'(?:xlink:)?href="(?!#|data_docs/)[^"]*"', page) == []
    assert "default-src 'none'" in page
    assert page_of(finished) == page
    found = re.findall(r' id="([^"]*)"', page)
    assert len(found) == len(set(found)), "what one chart names is not taken from another"


def test_a_run_that_has_only_begun_says_of_each_part_that_it_is_missing(tmp_path: Path):
    begun = Manifest(stage="ingest", item="videos", items_in=1, items_out=1, set_aside={}, seconds=1)
    publish(tmp_path / "data/catalog", {"videos.jsonl": []}, begun)
    text = said(page_of(tmp_path))
    for sentence in (
        "Whether the tuned model is better is not known: no questions with options were compared.",
        "The gate has not decided yet.",
        "No pairs and no catalog yet",
        "training has not run",
        "No questions with options were compared.",
        "No controls were asked",
        "There was no needle test: evaluation has not run.",
        "Evaluation has not run",
    ):
        assert sentence in text


def test_a_rules_numbers_have_units():
    def rule(name: str) -> GateRule:
        return GateRule(name=name, passed=True, value=0.0, threshold=0.0, reason="")

    assert in_unit(rule("better_than_base"), 0.083) == "+8.3 points"
    assert in_unit(rule("better_than_base"), -0.0001) == "+0.0 points"
    assert in_unit(rule("measured"), 6.0) == "6 videos"
    assert in_unit(rule("decontaminated"), 0.05) == "5.0 %"
    assert in_unit(rule("confidence"), 0.95) == "95.0 %"
    assert in_unit(rule("validated"), value=True) == "yes"
    assert in_unit(rule("complete"), None) == "none"


def test_a_long_id_is_cut_as_far_as_it_still_tells_two_apart():
    rule = GateRule(name="answers_from_registry", passed=True, value="0123456789abcdef" * 4, threshold="", reason="")
    assert in_unit(rule, rule.value) == "0123456789abcdef…"


def test_the_confidence_of_the_intervals_is_what_the_evaluation_noted(finished: Path):
    shutil.copy(ROOT / "params.yaml", finished)  # which says 0.95, and may have been changed since
    add_metrics(finished, intervals={"confidence": 0.9})
    assert "All intervals are at 90 %." in said(page_of(finished))
    add_metrics(finished, intervals={})
    assert "All intervals are at" not in said(page_of(finished))


def test_what_is_a_warning_only_is_told_apart_from_what_stops_training():
    outcome = Outcome(
        suite="videos", name="is_captioned", expected="", severity="warning", passed=False, observed=None,
        unexpected_count=0, unexpected_ids=(), error=None,
    )  # fmt: skip
    broken = outcome.model_copy(update={"name": "has_frames", "severity": "critical"})
    assert validation_text(ValidationVerdict(success=True, outcomes=(outcome,))) == (
        "passed, 1 expectations; warned of: is_captioned"
    )
    assert validation_text(ValidationVerdict(success=False, outcomes=(outcome, broken))) == (
        "failed, 2 expectations; not met: has_frames; warned of: is_captioned"
    )


def test_a_curve_of_many_steps_is_drawn_by_few_points_and_the_caption_says_so(finished: Path):
    steps = range(3000)
    add_file(finished, "training/curves.csv", "\n".join(["step,loss/sft", *(f"{step},{step % 7}" for step in steps)]))
    page = page_of(finished)
    assert "Measured points: SFT 3,000 (means of 20 drawn)." in said(page)
    assert len(page.encode()) < 100_000
