"""A small project with real videos, pairs about them, and texts that mean harm."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from tpo.demo.world import plan_events, write_video
from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.needle import load_needles, plan_needles, show
from tpo.evaluation.scoring import predict
from tpo.params import NeedleParams
from tpo.records import (
    Answer,
    Branch,
    Caption,
    Granularity,
    PreferencePair,
    Query,
    QuestionType,
    Reason,
    Record,
    Rejection,
    Segment,
    Verdict,
    Video,
    content_id,
)
from tpo.store import Manifest, publish
from tpo.video.probe import Prober
from tpo.video.sample import dense, segment, without_segment

ROOT = Path(__file__).resolve().parents[2]
EVIL = '<img src=x onerror="document.title=1"><script>document.title=2</script> \u202egnp.exe \U0001f980 </textarea>'
LONG = f"{EVIL} {'x' * 100_000}"
HEBREW = "\u05de\u05d4 \u05e7\u05d5\u05d3\u05dd?"


def publish_stage(folder: Path, stage: str, files: dict[str, list[Record]]) -> None:
    done = Manifest(stage=stage, item="items", items_in=0, items_out=0, set_aside={}, seconds=0)
    publish(folder / "data" / stage, files, done)


def a_query(video: Video, number: int, question: str) -> Query:
    part = Segment(video_id=video.id, start_s=1.0, end_s=2.0)
    return Query(
        id=content_id("query", number), video_id=video.id, granularity=Granularity.LOCALIZED,
        question_type=list(QuestionType)[number % 3], segment=part, question=question,
        reference_answer=f"reference {number}", asker="rule",
    )  # fmt: skip


def a_pair(video: Video, query: Query, number: int, chosen: str) -> PreferencePair:
    assert query.segment
    checks = {"preferred_is": "better", "conflicts_with_captions": False, "is_correct": True}
    verdicts = tuple(Verdict.model_validate(checks | {"preferred_shown_first": first}) for first in (True, False))
    return PreferencePair(
        id=content_id("pair", number), video_id=video.id, query_id=query.id, granularity=query.granularity,
        question_type=query.question_type, question=query.question, view=dense(video, 4), chosen=chosen,
        rejected=f"rejected {number}", chosen_tokens=2, rejected_tokens=3, segment=query.segment,
        chosen_view=segment(video, query.segment, 2), rejected_view=without_segment(video, query.segment, 4),
        model_id="m", verdicts=verdicts, judge="rule",
    )  # fmt: skip


def make_project(folder: Path, num_pairs: int) -> list[PreferencePair]:
    """Pairs about two videos in turn, the second one with texts that mean harm; beside them one that was set aside."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["data"] |= {"videos": "videos", "benchmarks": "benchmarks"}
    settings["mix"]["held_out_share"] = 0
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    rng = np.random.default_rng(0)
    for path in (
        folder / "videos/<b>a.mp4",
        folder / "videos/b.mp4",
        folder / "benchmarks/longvideobench/videos/c.mp4",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, plan_events(rng, 4), 0.0)
    with Prober(folder / ".tpo/frames") as prober:
        files = sorted((folder / "videos").iterdir())
        videos = [found for file in files if isinstance(found := prober.probe(folder / "videos", file), Video)]
    texts = [{1: EVIL, 2: HEBREW}.get(number, f"What is number {number}?") for number in range(num_pairs)]
    queries = [a_query(videos[number % len(videos)], number, text) for number, text in enumerate(texts)]
    pairs = [
        a_pair(videos[number % len(videos)], query, number, LONG if number == 1 else f"chosen {number}")
        for number, query in enumerate(queries)
    ]
    tied = a_query(videos[0], num_pairs, "Which of both?")
    answers = [
        Answer(
            id=branch, query_id=tied.id, branch=branch, view=dense(videos[0], 4), text=f"{branch} answer",
            num_tokens=2, ended=True, model_id="m", decoding="greedy",
        )
        for branch in Branch
    ]  # fmt: skip
    captions = [
        Caption(id=f"{video.id[:6]}{at}", video_id=video.id, start_s=at, end_s=at + 1, text=EVIL, source=EVIL)
        for video in videos
        for at in (0, 1, 2)
    ]
    dropped = Rejection(stage="judge", item=tied.id, reason=Reason.TIE, detail="as good")
    publish_stage(folder, "catalog", {"videos.jsonl": videos})
    publish_stage(folder, "captions", {"captions.jsonl": captions})
    publish_stage(folder, "queries", {"queries.jsonl": [*queries, tied]})
    publish_stage(folder, "answers", {"answers.jsonl": answers})
    publish_stage(folder, "judged", {"pairs.jsonl": pairs, "rejected.jsonl": [dropped]})
    publish_evaluation(folder)
    return pairs


def publish_evaluation(folder: Path) -> None:
    """One question was gained, one was lost; a needle was found in the middle of a video."""
    row = {
        "video_id": "c", "video_path": "c.mp4", "candidates": ["a star", EVIL], "correct_choice": 1, "level": "L1",
        "topic_category": "KH", "question_category": "S2O", "subtitle_path": "c.json", "duration_group": 600,
        "starting_timestamp_for_subtitles": 0, "duration": 30.0, "position": [0],
    }  # fmt: skip
    rows = [row | {"id": f"c_{number}", "question": f"{number} {EVIL}"} for number in range(2)]
    (folder / "benchmarks/longvideobench/lvb_val.json").write_text(json.dumps(rows))
    lost, gained = load_benchmarks(folder / "benchmarks")[0]
    right, wrong = (-2.0, -0.5), (-0.5, -2.0)
    predictions = [
        predict(lost, "base", right), predict(lost, "tuned", wrong), predict(gained, "base", wrong),
        predict(gained, "tuned", right),
    ]  # fmt: skip
    needles = folder / "benchmarks/needle"
    for video, place in (
        ("videos/b.mp4", "clips/b.mp4"),
        ("benchmarks/longvideobench/videos/c.mp4", "haystacks/c.mp4"),
    ):
        (needles / place).parent.mkdir(parents=True)
        shutil.copy(folder / video, needles / place)
    question = {"id": "n", "clip": "b.mp4", "question": EVIL, "options": ["a star", "a moon"], "gold": 0}
    (needles / "needles.json").write_text(json.dumps([question]))
    wanted = NeedleParams(modes=("after_sampling",), num_frames=(8,), needle_frames=2, depths=(0.5,), per_cell=1)
    with Prober(folder / ".tpo/frames") as prober:
        clips, haystacks, _ = load_needles(needles, prober)
        cases, _ = plan_needles(wanted, 8, clips, haystacks, 0)
        shown = [show(case, needles, folder / ".tpo/needles", prober).shown for case in cases]
    found = [predict(case.item, role, (-0.5, -2.0)) for case in cases for role in ("base", "tuned")]
    files = {"predictions.jsonl": predictions, "needles.jsonl": found, "needles_shown.jsonl": shown}
    publish_stage(folder, "evaluation", files)


class Running:
    """A review server as a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", address: str, stderr: Path):
        self.process = process
        self.address = address
        self.origin, _, self.token = address.partition("/?token=")
        self._stderr = stderr

    @property
    def complaints(self) -> str:
        return self._stderr.read_text()


@contextmanager
def served(folder: Path, reviewer: str = "anna") -> Iterator[Running]:
    """`tpo review` in a project, killed at the end (SIGKILL: nothing may depend on a good end)."""
    command = [sys.executable, "-m", "tpo.cli", "review", "--no-browser", "--reviewer", reviewer]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    stderr = folder / f"stderr of {reviewer}"
    with (
        stderr.open("w") as complaints,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout
            told = process.stdout.readline()
            assert "http://127.0.0.1:" in told, told + stderr.read_text()
            yield Running(process, told.split()[-1], stderr)
        finally:
            process.kill()
