"""A small demo through every stage to a registered model, with the shipped base."""

import csv
from pathlib import Path

import pytest
from processes import ROOT, edit_params, must_work, registry

from flows.stage import by_video
from flows.train import train_model
from tpo.curation.captions import caption_video
from tpo.curation.contamination import QuestionReport
from tpo.curation.judging import RuleJudge, candidates_of, judge_pairs
from tpo.curation.queries import ask_video
from tpo.errors import UserError
from tpo.evaluation.benchmarks import find_items
from tpo.params import load_params
from tpo.records import (
    Answer,
    Caption,
    Checked,
    Condition,
    GateDecision,
    Method,
    Prediction,
    PreferencePair,
    Query,
    Rejection,
    Video,
)
from tpo.report.summary import STAGES
from tpo.store import read_manifest, read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_way_ends_at_one_version_with_the_aliases_that_the_gate_decided(finished: Path) -> None:
    decision = GateDecision.model_validate_json((finished / "reports/gate.json").read_text())
    assert registry(finished) == ([1], {"challenger": 1, "champion": 1} if decision.promote else {"challenger": 1})
    assert decision.promote == all(rule.passed for rule in decision.rules)
    mixed = read_manifest(finished / "data/pairs")
    assert read_manifest(finished / "models/tuned").items_in == mixed.counts["training pairs"] > 50
    assert mixed.counts["held-out pairs"] > 0


def test_the_report_links_every_stages_run_in_prefect(finished: Path) -> None:
    page = (finished / "reports/index.html").read_text()
    for name, out in STAGES.items():
        run_id = read_manifest(finished / out).facts["flow_run_id"]
        assert f'/runs/flow-run/{run_id}">' in page, name
    assert "<td>Prefect run, register</td>" in page


def test_every_stage_accounts_for_everything_that_came_in(finished: Path) -> None:
    outs = ("catalog", "captions", "queries", "answers", "judged", "pairs", "evaluation")
    told = {out: read_manifest(finished / "data" / out) for out in outs}
    for out, found in told.items():
        assert found.items_in == found.items_out + sum(found.set_aside.values())
        if out not in ("captions", "queries"):  # which set aside single captions and questions as well
            rejected = read_records(finished / "data" / out / "rejected.jsonl", Rejection)
            assert len(rejected) == sum(found.set_aside.values()), "each thing set aside is on disk with its reason"
    assert (told["catalog"].items_in, told["catalog"].items_out) == (12 + 7, 12 + 2)
    assert (told["captions"].items_in, told["captions"].items_out) == (12 + 2, 12)
    queries = read_records(finished / "data/queries/queries.jsonl", Query)
    assert told["answers"].items_in == len(queries) > 12 * 8
    answers = read_records(finished / "data/answers/answers.jsonl", Answer)
    assert len(answers) == 2 * told["answers"].items_out
    assert told["evaluation"].items_in == 6 * 4
    predicted = read_records(finished / "data/evaluation/predictions.jsonl", Prediction)
    in_full = [one for one in predicted if one.condition is Condition.FULL and one.method is Method.LOGPROB]
    assert len(in_full) == len({(one.item_id, one.model) for one in in_full}) == 2 * told["evaluation"].items_out


def test_stages_of_records_publish_what_the_plain_functions_give(finished: Path) -> None:
    data, params = finished / "data", load_params(finished / "params.yaml")
    videos = read_records(data / "catalog/videos.jsonl", Video)
    captioned = {video.id: caption_video(video, finished / params.data.videos) for video in videos}
    captions = by_video(read_records(data / "captions/captions.jsonl", Caption))
    assert captions == {name: texts for name, (texts, _) in captioned.items() if texts}
    assert read_records(data / "captions/rejected.jsonl", Rejection) == [
        rejection for _, rejections in captioned.values() for rejection in rejections
    ]
    videos = [video for video in videos if video.id in captions]
    asked = [ask_video(video, captions[video.id], params.ask, params.data.seed) for video in videos]
    queries = read_records(data / "queries/queries.jsonl", Query)
    assert queries == [query for questions, _ in asked for query in questions]
    answers = read_records(data / "answers/answers.jsonl", Answer)
    judged: list[PreferencePair | Rejection] = []
    for video in videos:
        own = [answer for answer in answers if answer.view.video_id == video.id]
        candidates, without = candidates_of(video, captions[video.id], by_video(queries)[video.id], own)
        assert without == []
        judged += judge_pairs(candidates, RuleJudge(), params.answer.full_frames)
    assert read_records(data / "judged/pairs.jsonl", PreferencePair) == [
        one for one in judged if isinstance(one, PreferencePair)
    ]
    assert read_records(data / "judged/rejected.jsonl", Rejection) == [
        one for one in judged if isinstance(one, Rejection)
    ]


def test_questions_that_share_words_with_a_benchmarks_are_set_aside_and_named(
    copy: Path, environment: dict[str, str]
) -> None:
    edit_params(copy, lambda settings: settings["ask"].update(contamination_words=5))
    must_work("ask", copy, environment)
    out, items = copy / "data/queries", find_items(copy / "data/demo/benchmarks")[0]
    report = QuestionReport.model_validate_json((out / "decontamination.json").read_text())
    kept, set_aside = read_records(out / "queries.jsonl", Query), read_records(out / "contaminated.jsonl", Rejection)
    assert report.benchmark_questions == {"longvideobench": 8, "mlvu": 8, "videomme": 8}
    assert (report.status, report.queries) == (Checked.PARTLY, len(kept) + len(set_aside))
    taken = {item.question for item in items if len(item.question.split()) >= 5}
    assert set_aside
    assert not taken & {query.question for query in kept}
    assert taken & {found.question for found in report.found}
    assert read_manifest(out).counts["contaminated queries"] == len(set_aside)


def test_training_in_two_processes_is_the_same_training(
    finished: Path, copy: Path, environment: dict[str, str]
) -> None:
    settings = {"launch": str(ROOT / "configs/accelerate/cpu2.yaml"), "pairs_per_device": 8}
    edit_params(copy, lambda wanted: wanted["train"].update(settings))
    must_work("train", copy, environment)
    curves = [list(csv.DictReader((folder / "reports/training/curves.csv").open())) for folder in (finished, copy)]
    for name in ("loss", "rewards/margins", "grad_norm", "localized/margins"):
        alone, together = ([float(row[name] or "nan") for row in rows] for rows in curves)
        assert together == pytest.approx(alone, abs=1e-3, nan_ok=True), name
    assert len(curves[0]) == 7
    told = [read_manifest(folder / "models/tuned").facts["processes"] for folder in (finished, copy)]
    assert told == [1, 2]
    assert read_manifest(copy / "models/tuned").items_out == read_manifest(finished / "models/tuned").items_out


def test_a_launch_config_that_is_not_there_is_named(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(copy, lambda wanted: wanted["train"].update(launch="configs/nowhere.yaml"))
    monkeypatch.chdir(copy)
    message = r"train.launch names 'configs/nowhere.yaml', and there is no such file. See configs/accelerate\."
    with pytest.raises(UserError, match=message):
        train_model.fn(tmp_path / "checkpoints", tmp_path / "out", "no run")
