"""Captions, questions and verdicts by models behind HTTP, chosen by params.yaml alone; killed, and followed back."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, all_must_work, edit_params, finish, num_done, resume

from tpo.demo.build import build_videos
from tpo.demo.provider import Provider
from tpo.params import load_params
from tpo.records import Caption, PreferencePair, Query, Rejection
from tpo.report.trace import to_text, trace
from tpo.store import read_manifest, read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = ("caption", "ask", "answer", "judge", "mix")


def by_models(url: str) -> Any:
    def edit(settings: dict[str, Any]) -> None:
        model = {"url": url, "model": "demo", "concurrency": 8, "usd_per_million_input_tokens": 1.0}
        settings["caption"] |= {"source": model, "segment_s": 3}
        settings["ask"] |= {"asker": model, "localized_per_video": 8, "comprehensive_per_video": 8}
        settings["ask"]["question_types"] = ["temporal_reasoning", "information_extraction", "object_reasoning"]
        settings["judge"]["judge"] = model
        settings["demo"] |= {"num_train_videos": 4}
        settings["runtime"]["items_per_task"] = 2
        settings["answer"]["max_new_tokens"] = 16
        settings["mix"]["held_out_share"] = 0.3

    return edit


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], provider: Provider) -> Path:
    """Curated from end to end, with no caption file anywhere."""
    folder = tmp_path_factory.mktemp("by_models")
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, by_models(provider.url))
    build_videos(folder / "data/demo/videos", load_params(folder / "params.yaml").demo)
    (folder / "data/demo/benchmarks").mkdir(parents=True)
    for sidecar in (folder / "data/demo/videos").glob("*.json"):
        sidecar.unlink()
    shutil.copytree(ROOT / "demo/checkpoint", folder / "demo/checkpoint")
    all_must_work(("ingest", *STAGES), folder, environment)
    return folder


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "project"))


def judged(folder: Path) -> list[PreferencePair]:
    return read_records(folder / "data/judged/pairs.jsonl", PreferencePair)


def test_all_three_roles_are_played_by_models_behind_a_url(project: Path) -> None:
    captions = read_records(project / "data/captions/captions.jsonl", Caption)
    queries = read_records(project / "data/queries/queries.jsonl", Query)
    assert {len(caption.frames_s) for caption in captions} == {1}
    assert all(caption.prompt_id and caption.source == queries[0].asker for caption in captions)
    assert judged(project), "the base model answers some of these questions only with the evidence in view"
    for stage in ("captions", "queries", "judged"):
        usage = read_manifest(project / "data" / stage).facts["usage"]
        assert usage["calls"] > 0
        assert usage["usd"] == pytest.approx(usage["input_tokens"] / 1e6)


def test_every_prompt_and_candidate_ends_somewhere(project: Path) -> None:
    asked = read_manifest(project / "data/queries")
    questions = len(read_records(project / "data/queries/queries.jsonl", Query))
    set_aside = sum(count for what, count in asked.counts.items() if what.startswith("questions set aside"))
    assert questions + set_aside == asked.facts["usage"]["calls"]
    for stage in STAGES:
        out = project / {"caption": "data/captions", "ask": "data/queries", "answer": "data/answers"}.get(
            stage, "data/judged" if stage == "judge" else "data/pairs"
        )
        found = read_manifest(out)
        assert found.items_in == found.items_out + sum(found.set_aside.values())


def test_a_pair_can_be_followed_back_to_everything_that_it_came_from(project: Path) -> None:
    params = load_params(project / "params.yaml")
    pair = judged(project)[0]
    found = trace(project, pair.id[:8], params)
    assert found.pair == pair
    assert found.query is not None
    assert found.query.id == pair.query_id
    assert found.captions
    assert len(found.prompts) == 1 + 2
    assert all(prompt.is_same for prompt in found.prompts), "written again, they are what the models were asked"
    text = to_text(found, with_prompts=True)
    for told in (pair.question, pair.chosen, pair.rejected, found.video.path, found.captions[0].text, "Wanted:"):
        assert told in text
    changed = params.model_copy(update={"judge": params.judge.model_copy(update={"show_reference": False})})
    assert [prompt.is_same for prompt in trace(project, pair.id, changed).prompts] == [True, False, False]


def test_what_was_set_aside_can_be_followed_too(project: Path) -> None:
    params = load_params(project / "params.yaml")
    rejected = read_records(project / "data/judged/rejected.jsonl", Rejection)[0]
    found = trace(project, rejected.item, params)
    assert found.pair is None
    assert found.went.startswith(f"set aside by judge: {rejected.reason}")
    assert all(answer.text in to_text(found) for answer in found.answers)


@pytest.mark.parametrize(("stage", "calls"), [("caption", 20), ("ask", 20), ("judge", 10)])
def test_a_stage_that_is_killed_goes_on_and_pays_for_no_finished_call_again(
    project: Path, copy: Path, environment: dict[str, str], provider: Provider, stage: str, calls: int
) -> None:
    out = {"caption": "data/captions", "ask": "data/queries", "judge": "data/judged"}[stage]
    edit_params(copy, lambda settings: settings["runtime"].update(items_per_task=1))  # so that it has a middle
    for remembered in (copy / ".tpo").glob("replies.sqlite*"):
        remembered.unlink()
    provider.prompts.clear()
    provider.latency_s = 0.05

    def ready() -> bool:
        return len(provider.prompts) >= calls and num_done(stage, copy) > 0

    try:
        found = resume(stage, copy / out, copy, environment, ready, num_items=4)
    finally:
        provider.latency_s = 0
    prompts = list(provider.prompts)
    paid_twice = len(prompts) - len(set(prompts))
    assert paid_twice <= 8, "no more than were in flight when it was killed"
    undisturbed = read_manifest(project / out)
    assert (found.items_in, found.items_out) == (undisturbed.items_in, undisturbed.items_out)
    kinds = {"captions.jsonl": Caption, "queries.jsonl": Query, "pairs.jsonl": PreferencePair}
    for name, kind in {**kinds, "rejected.jsonl": Rejection}.items():
        if (project / out / name).is_file():
            assert read_records(copy / out / name, kind) == read_records(project / out / name, kind)


def test_another_setting_of_the_judge_asks_the_judge_alone(
    copy: Path, environment: dict[str, str], provider: Provider
) -> None:
    provider.prompts.clear()
    edit_params(copy, lambda settings: settings["judge"].update(show_reference=False))
    assert finish("judge", copy, environment)[0] in (0, 1), "without the reference this judge may keep nothing"
    assert provider.prompts
    assert all("1. Is Answer 1 better" in prompt for prompt in provider.prompts)
    provider.prompts.clear()
    all_must_work(("caption", "ask"), copy, environment)
    for out in ("data/captions", "data/queries"):
        assert read_manifest(copy / out).facts["usage"]["calls"] == 0
    assert provider.prompts == [], "everything that was said before is remembered"


def test_a_server_that_is_not_there_ends_the_stage_with_a_message_and_loses_nothing(
    copy: Path, environment: dict[str, str]
) -> None:
    before = (copy / "data/judged/pairs.jsonl").read_text()

    def nowhere(settings: dict[str, Any]) -> None:
        settings["judge"]["judge"] |= {"url": "http://127.0.0.1:9/v1", "max_retries": 1, "model": "other"}

    edit_params(copy, nowhere)
    code, _, err = finish("judge", copy, environment)
    assert code == 1
    assert "Traceback" not in err
    assert "http://127.0.0.1:9/v1" in err.splitlines()[-1]
    assert (copy / "data/judged/pairs.jsonl").read_text() == before
