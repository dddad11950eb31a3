"""Stages as real processes: killed in their middle, given mistakes to report, and asked to account for everything."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import edit_params, finish, killed_when, must_work

from tpo.curation.captions import caption_video
from tpo.curation.contamination import QuestionReport
from tpo.curation.judging import RuleJudge, candidates_of, judge_pairs
from tpo.curation.queries import ask_video
from tpo.demo.build import build_benchmarks, build_videos, write_json
from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events
from tpo.evaluation.benchmarks import find_items
from tpo.params import load_params
from tpo.records import (
    Answer,
    Branch,
    Caption,
    Checked,
    Condition,
    Method,
    Prediction,
    PreferencePair,
    Query,
    Record,
    Rejection,
    Video,
    View,
    ViewKind,
    content_id,
)
from tpo.store import Manifest, count_reasons, publish, read_manifest, read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = {
    "ingest": ("data/catalog", {"videos.jsonl": Video, "rejected.jsonl": Rejection}),
    "caption": ("data/captions", {"captions.jsonl": Caption, "rejected.jsonl": Rejection}),
    "ask": ("data/queries", {"queries.jsonl": Query, "rejected.jsonl": Rejection}),
    "answer": ("data/answers", {"answers.jsonl": Answer, "rejected.jsonl": Rejection}),
    "judge": ("data/judged", {"pairs.jsonl": PreferencePair, "rejected.jsonl": Rejection}),
    "evaluate": ("data/evaluation", {"predictions.jsonl": Prediction, "rejected.jsonl": Rejection}),
}


def make_small(settings: dict[str, Any]) -> None:
    settings["demo"] |= {
        "num_train_videos": 6,
        "num_eval_videos": 6,
        "questions_per_eval_video": 3,
        "num_needles": 4,
        "num_haystacks": 2,
    }
    settings["evaluate"]["needle"] |= {"num_frames": [16], "minutes": [0.5], "per_cell": 2}
    settings["ask"] |= {"localized_per_video": 4, "comprehensive_per_video": 2}
    settings["runtime"]["items_per_task"] = 1  # so that every stage has a middle
    settings["evaluate"]["bootstrap_samples"] = 200


def published(folder: Path, stage: str) -> dict[str, list[Record]]:
    out, kinds = OUTPUTS[stage]
    return {name: read_records(folder / out / name, kind) for name, kind in kinds.items()}


def manifest(stage: str, item: str, count: int, **facts: Any) -> Manifest:
    return Manifest(stage=stage, item=item, items_in=count, items_out=count, set_aside={}, seconds=0, facts=facts)


def publish_questions(folder: Path) -> None:
    """data/captions and data/queries from data/catalog, without the flows: they have tests of their own."""
    params = load_params(folder / "params.yaml")
    videos = read_records(folder / "data/catalog/videos.jsonl", Video)
    captions = {video.id: caption_video(video, folder / params.data.videos)[0] for video in videos}
    asked = [video for video in videos if captions[video.id]]
    queries = [query for v in asked for query in ask_video(v, captions[v.id], params.ask, params.data.seed)[0]]
    texts = [caption for video in asked for caption in captions[video.id]]
    publish(folder / "data/captions", {"captions.jsonl": texts}, manifest("caption", "videos", len(asked)))
    publish(folder / "data/queries", {"queries.jsonl": queries}, manifest("ask", "videos", len(asked)))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, environment: dict[str, str]) -> Path:
    """A small demo project, undisturbed: ingested, answered and evaluated, with random models that know nothing."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, make_small)
    demo = load_params(folder / "params.yaml").demo
    build_videos(folder / "data/demo/videos", demo)
    build_benchmarks(folder / "data/demo/benchmarks", demo)
    shutil.copytree(tiny_checkpoint, folder / "demo/checkpoint")
    tokenizer = build_tokenizer()
    tuned = build_model(tokenizer, 1)
    publish(
        folder / "models/tuned",
        {".": lambda out: save_checkpoint(tuned, tokenizer, out)},
        manifest("train", "pairs", 0, mlflow_run_id="none"),
    )
    must_work("ingest", folder, environment)
    publish_questions(folder)
    must_work("answer", folder, environment)
    must_work("evaluate", folder, environment)
    return folder


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "project"))


def resume(stage: str, folder: Path, environment: dict[str, str], num_items: int) -> Manifest:
    """Kill a stage in its middle, run it again; its manifest, after checking that it went on and did no item twice."""
    out = folder / OUTPUTS[stage][0]
    shutil.rmtree(out, ignore_errors=True)

    def num_done() -> int:
        return sum(path.read_bytes().count(b"\n") for path in (folder / ".tpo" / stage).glob("*/journal.jsonl"))

    with killed_when(lambda: num_done() > 0, stage, folder, environment):
        done = num_done()
        assert 1 <= done < num_items, "the kill came too late to be in the middle"
        assert not out.exists(), "nothing half-written is to be seen"
        said = must_work(stage, folder, environment)
    assert f"{stage}: going on, {done} " in said
    found = read_manifest(out)
    assert found.resumed == done
    assert not list((folder / ".tpo" / stage).iterdir()), "a finished stage leaves no journal"
    return found


@pytest.mark.parametrize(("stage", "num_items"), [("ingest", 13 + 6), ("answer", 6), ("evaluate", 100)])
def test_a_killed_stage_goes_on_and_ends_as_an_undisturbed_one(
    project: Path, copy: Path, environment: dict[str, str], stage: str, num_items: int
) -> None:
    if stage == "ingest":  # what was measured before is known again by its content, at once: it would have no middle
        shutil.rmtree(copy / ".tpo/frames")
    resumed = resume(stage, copy, environment, num_items)
    undisturbed = read_manifest(project / OUTPUTS[stage][0])
    assert published(copy, stage) == published(project, stage)
    passing = {"resumed", "seconds", "facts"}
    assert resumed.model_dump(exclude=passing) == undisturbed.model_dump(exclude=passing)
    if stage == "evaluate":
        assert (copy / "reports/evaluation.json").read_text() == (project / "reports/evaluation.json").read_text()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records about 300 videos, up to the answers, which are right where the evidence was in view and else wrong.

    Captioning, asking and judging take a few milliseconds a video, so they need many of them to have a middle; they
    read records and caption files alone.
    """
    folder = tmp_path_factory.mktemp("crowd")
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, make_small)
    params = load_params(folder / "params.yaml")
    root = folder / params.data.videos
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    videos: list[Video] = []
    captions: list[Caption] = []
    queries: list[Query] = []
    answers: list[Answer] = []
    for number in range(300):
        events = plan_events(rng, 8)
        name = f"walk_{number}.mp4"
        video = Video(
            id=content_id(name) * 4, path=name, size_bytes=1, duration_s=events[-1].end_s, fps=2, num_frames=1,
            width=64, height=64, rotation_deg=0, codec="h264", is_vfr=False, has_audio=False,
            last_frame_s=events[-1].end_s - 0.5, longest_frame_s=0.5, num_restarts=1, brightness=90.0, change=3.0,
        )  # fmt: skip
        write_json(root / name, events)
        cues, _ = caption_video(video, root)
        asked, _ = ask_video(video, cues, params.ask, params.data.seed)
        videos.append(video)
        captions += cues
        queries += asked
        answers += [answer_by_reference(query, branch) for query in asked for branch in Branch]
    publish(folder / "data/catalog", {"videos.jsonl": videos}, manifest("ingest", "files", 300))
    nothing: dict[str, list[Record]] = {"rejected.jsonl": []}
    publish(folder / "data/captions", {"captions.jsonl": captions, **nothing}, manifest("caption", "videos", 300))
    publish(folder / "data/queries", {"queries.jsonl": queries, **nothing}, manifest("ask", "videos", 300))
    publish(folder / "data/answers", {"answers.jsonl": answers}, manifest("answer", "queries", len(queries)))
    judged: list[PreferencePair | Rejection] = []
    for video in videos:
        candidates, _ = candidates_of(
            video,
            [caption for caption in captions if caption.video_id == video.id],
            [query for query in queries if query.video_id == video.id],
            [answer for answer in answers if answer.view.video_id == video.id],
        )
        judged += judge_pairs(candidates, RuleJudge(), params.answer.full_frames)
    kept = [one for one in judged if isinstance(one, PreferencePair)]
    dropped = [one for one in judged if isinstance(one, Rejection)]
    assert len(kept) > 300
    assert len(dropped) > 0
    counts = manifest("judge", "pairs of answers", len(kept)).model_copy(
        update={"items_in": len(queries), "set_aside": count_reasons(dropped)}
    )
    publish(folder / "data/judged", {"pairs.jsonl": kept, "rejected.jsonl": dropped}, counts)
    return folder


def answer_by_reference(query: Query, branch: Branch) -> Answer:
    """The reference with the evidence in view, without it a guess, which one time in eight is the reference too."""
    view = View(video_id=query.video_id, kind=ViewKind.DENSE, timestamps_s=(0.0,))
    guess = branch is Branch.DISPREFERRED and int(query.id, 16) % 8
    text = "a heart" if guess else query.reference_answer
    return Answer(
        id=content_id(query.id, branch), query_id=query.id, branch=branch, view=view, text=text, num_tokens=5,
        ended=True, model_id="m", decoding="greedy",
    )  # fmt: skip


@pytest.mark.parametrize("stage", ["caption", "ask", "judge"])
def test_a_killed_stage_of_records_goes_on_and_ends_as_the_plain_functions_do(
    crowd: Path, tmp_path: Path, environment: dict[str, str], stage: str
) -> None:
    copy = Path(shutil.copytree(crowd, tmp_path / "crowd"))
    found = resume(stage, copy, environment, 300)
    assert published(copy, stage) == published(crowd, stage)
    assert found.items_out == read_manifest(crowd / OUTPUTS[stage][0]).items_out


def test_every_stage_accounts_for_everything_that_came_in(project: Path) -> None:
    told = {stage: read_manifest(project / OUTPUTS[stage][0]) for stage in ("ingest", "answer", "evaluate")}
    for stage, found in told.items():
        assert found.items_in == found.items_out + sum(found.set_aside.values())
        rejected = published(project, stage)["rejected.jsonl"]
        assert len(rejected) == sum(found.set_aside.values()), "each thing set aside is on disk with its reason"
    assert (told["ingest"].items_in, told["ingest"].items_out) == (13, 8)
    assert told["answer"].items_in == len(read_records(project / "data/queries/queries.jsonl", Query)) == 6 * 6
    assert len(published(project, "answer")["answers.jsonl"]) == 2 * told["answer"].items_out
    assert told["evaluate"].items_in == 6 * 3
    predicted = [one for one in published(project, "evaluate")["predictions.jsonl"] if isinstance(one, Prediction)]
    in_full = [one for one in predicted if one.condition is Condition.FULL and one.method is Method.LOGPROB]
    assert len(in_full) == len({(one.item_id, one.model) for one in in_full}) == 2 * told["evaluate"].items_out


def test_questions_that_share_words_with_a_benchmarks_are_set_aside_and_named(
    copy: Path, environment: dict[str, str]
) -> None:
    edit_params(copy, lambda settings: settings["ask"].update(contamination_words=5))
    must_work("ask", copy, environment)
    out, items = copy / "data/queries", find_items(copy / "data/demo/benchmarks")[0]
    report = QuestionReport.model_validate_json((out / "decontamination.json").read_text())
    kept, set_aside = read_records(out / "queries.jsonl", Query), read_records(out / "contaminated.jsonl", Rejection)
    assert report.benchmark_questions == {"longvideobench": 6, "mlvu": 6, "videomme": 6}
    assert (report.status, report.queries) == (Checked.PARTLY, len(kept) + len(set_aside))
    taken = {item.question for item in items if len(item.question.split()) >= 5}
    assert set_aside
    assert not taken & {query.question for query in kept}
    assert taken & {found.question for found in report.found}
    assert read_manifest(out).counts["contaminated queries"] == len(set_aside)


def fails_with(message: str, stage: str, folder: Path, environment: dict[str, str]) -> None:
    code, _, err = finish(stage, folder, environment)
    assert code == 1
    assert "Traceback" not in err
    assert err.count(message) == 1, err
    assert err.splitlines()[-1].startswith((f"{stage}: ", "  ")), "the message comes last"


def test_an_unknown_setting_is_named_with_those_that_exist(copy: Path, environment: dict[str, str]) -> None:
    edit_params(copy, lambda settings: settings["ask"].update(questions_per_video=3))
    fails_with("ask.questions_per_video: unknown key. Allowed here: asker, blind", "ask", copy, environment)


def test_a_missing_base_model_is_named(copy: Path, environment: dict[str, str]) -> None:
    edit_params(copy, lambda settings: settings["model"].update(base="demo/nowhere"))
    message = "'demo/nowhere' is neither a checkpoint folder nor a reachable hub id"
    fails_with(message, "answer", copy, environment)


def test_a_folder_without_videos_is_named(copy: Path, environment: dict[str, str]) -> None:
    (copy / "my/videos").mkdir(parents=True)
    edit_params(copy, lambda settings: settings["data"].update(videos="my/videos"))
    fails_with("No video in my/videos: no file ends in one of", "ingest", copy, environment)


def test_when_no_pair_is_left_the_reasons_are_on_disk(copy: Path, environment: dict[str, str]) -> None:
    """A random model is never right, so no pair of its answers is kept."""
    fails_with("judge: Not one preference pair was kept", "judge", copy, environment)
    found = read_manifest(copy / "data/judged")
    assert (found.items_in, found.items_out) == (6 * 6, 0)
    assert sum(found.set_aside.values()) == 6 * 6
    assert len(read_records(copy / "data/judged/rejected.jsonl", Rejection)) == 6 * 6
