"""A folder of somebody's own videos through the pipeline, as the README tells: `dvc add`, paths, `dvc repro`.

The base model here is tiny and random, so every stage runs, but none of its answers is right and the judge keeps no
pair: these tests end at the judge's message. From pairs to a registered model goes the demo; its base knows something.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from processes import ROOT

from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.preflight import check_video, group_by_video
from tpo.records import Answer, Caption, Granularity, Query, Reason, Rejection, Video
from tpo.store import read_manifest, read_records
from tpo.video.probe import Prober

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STAGES = ("ingest", "caption", "ask", "answer")
SCENES = {
    "kitchen.mp4": [
        "A woman walks into a small kitchen.",
        "She takes a red pan from the wall.",
        'Somebody outside shouts "hurry up".',
        "Two eggs are broken into the pan.",
        "The cat jumps onto the table and is chased away.",
    ],
    "trips/harbour.mkv": [
        "Fishing boats lie in the harbour at dawn.",
        "A white ferry leaves the pier.",
        "Gulls follow the ferry out to sea.",
        "The camera turns to the lighthouse on the hill.",
    ],
    "trips/street.webm": [
        "People wait at a tram stop in the rain.",
        "A yellow tram arrives and everybody gets on.",
        "The street is empty.",
        "A boy runs after the tram with an umbrella.",
        "The street is empty.",
        "The rain stops and the lamps go on.",
    ],
    "upload 7 (final).MP4": [
        "A man kneels beside a bicycle and takes off its front wheel.",
        "He pumps air into the tube and listens.",
        "The wheel is put back and he rides away.",
        "The camera is left on the grass.",
    ],
}
ENCODERS = {".mp4": "libx264", ".mkv": "libx265", ".webm": "libvpx-vp9"}
SCENE_S = 5.0


def film(path: Path, num_scenes: int, fps: int = 12) -> None:
    """Write a clip with a camera's grain: in each scene another thing moves over another ground, at another place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    quiet = {"libx265": {"x265-params": "log-level=error"}, "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}
    with av.open(str(path), "w") as container:
        codec = ENCODERS[path.suffix.lower()]
        stream = container.add_stream(codec, rate=Fraction(fps), options=quiet.get(codec, {"preset": "ultrafast"}))
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        stream.thread_count = 1
        for scene in range(num_scenes):
            ground, thing = (tuple(int(value) for value in rng.integers(40, 200, 3)) for _ in range(2))
            width, height, first, top = (int(rng.integers(*span)) for span in ((20, 60), (20, 50), (0, 100), (0, 40)))
            for tick in range(round(SCENE_S * fps)):
                image = Image.new("RGB", (160, 90), ground)
                left = (first + tick * 2) % (160 - width)
                draw = ImageDraw.Draw(image)
                (draw.ellipse if scene % 2 else draw.rectangle)((left, top, left + width, top + height), fill=thing)
                grain = rng.integers(-12, 13, (90, 160, 1))
                pixels = np.clip(np.asarray(image, np.int16) + grain, 0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def write_captions(path: Path, sentences: list[str]) -> None:
    """Beside a clip: SubRip for MP4, WebVTT for Matroska, our JSON for WebM."""
    times = [(number * SCENE_S, (number + 1) * SCENE_S) for number in range(len(sentences))]
    if path.suffix == ".webm":
        cues = [{"start_s": s, "end_s": e, "text": text} for (s, e), text in zip(times, sentences, strict=True)]
        path.with_suffix(".captions.json").write_text(json.dumps({"captions": cues}))
        return
    is_vtt = path.suffix == ".mkv"
    point = "." if is_vtt else ","
    blocks = ["WEBVTT"] if is_vtt else []
    for number, ((start_s, end_s), text) in enumerate(zip(times, sentences, strict=True), start=1):
        first, second = text.split(" ", 1)  # subtitles are broken into lines
        clock = f"00:00:{start_s:02.0f}{point}000 --> 00:00:{end_s:02.0f}{point}000"
        blocks.append(f"{number}\n{clock}\n{first}\n{second}")
    path.with_suffix(".vtt" if is_vtt else ".srt").write_text("\n\n".join(blocks) + "\n")


def write_benchmark(folder: Path) -> None:
    """Two own videos in the layout of Video-MME."""
    rows = []
    for name in ("meadow", "station"):
        film(folder / f"data/{name}.mp4", 2)
        options = ["A. A rectangle.", "B. An ellipse.", "C. A dog.", "D. Nothing."]
        rows.append(
            {
                "videoID": name, "question_id": f"{name}-1", "duration": "short", "task_type": "Temporal Perception",
                "question": "What moves in the first scene?", "options": options, "answer": "A",
            }
        )  # fmt: skip
    path = folder / "videomme/test-00000-of-00001.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def dvc_environment(environment: dict[str, str]) -> dict[str, str]:
    """`python` in dvc.yaml is the one that runs the tests, and the code is the project's own copy."""
    path = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"} | {"PATH": path}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, dvc_environment: dict[str, str]) -> Path:
    """A clone whose params.yaml points to own videos, benchmark and base model, run up to `answer`."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("dvc.yaml", "demo/dvc.yaml", "params.yaml", ".dvc/config", ".dvcignore", ".gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("flows", "tpo"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for name, sentences in SCENES.items():
        film(folder / "data/videos" / name, len(sentences))
        write_captions(folder / "data/videos" / name, sentences)
    (folder / "data/videos/download.mp4").write_bytes((folder / "data/videos/kitchen.mp4").read_bytes()[:9000])
    write_benchmark(folder / "data/benchmarks/videomme")
    shutil.copytree(tiny_checkpoint, folder / "base")
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    settings["data"] |= {"videos": "data/videos", "benchmarks": "data/benchmarks"}
    settings["model"]["base"] = "base"
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    for arguments in (["add", "data/videos", "data/benchmarks"], ["repro", "answer"]):
        done = dvc(folder, dvc_environment, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def dvc(folder: Path, environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_demo_is_out_of_the_way(project: Path) -> None:
    assert not (project / "data/demo").exists()
    assert {path.name for path in (project / "data").iterdir() if path.is_dir()} == {
        "videos", "benchmarks", "catalog", "captions", "queries", "answers",
    }  # fmt: skip


def test_every_codec_is_cataloged_and_the_broken_file_is_set_aside(project: Path) -> None:
    videos = read_records(project / "data/catalog/videos.jsonl", Video)
    assert {video.path: video.codec for video in videos} == {
        "kitchen.mp4": "h264", "trips/harbour.mkv": "hevc", "trips/street.webm": "vp9", "upload 7 (final).MP4": "h264",
    }  # fmt: skip
    for video in videos:
        assert video.duration_s == pytest.approx(len(SCENES[video.path]) * SCENE_S, abs=0.1)
        assert (video.width, video.height, video.fps) == (160, 90, pytest.approx(12, rel=0.01))
    (rejection,) = read_records(project / "data/catalog/rejected.jsonl", Rejection)
    assert (rejection.item, rejection.reason) == ("download.mp4", Reason.UNREADABLE)


def test_captions_of_every_format_become_questions_about_their_video(project: Path) -> None:
    videos = {video.id: video for video in read_records(project / "data/catalog/videos.jsonl", Video)}
    captions = read_records(project / "data/captions/captions.jsonl", Caption)
    for video in videos.values():
        assert [caption.text for caption in captions if caption.video_id == video.id] == SCENES[video.path]
    queries = read_records(project / "data/queries/queries.jsonl", Query)
    for video in videos.values():
        asked = [query for query in queries if query.video_id == video.id]
        assert {query.granularity for query in asked} == set(Granularity)
        assert len({query.question for query in asked}) == len(asked)
        assert not [query for query in asked if '"The street is empty"' in query.question], "it comes twice"
    for query in queries:
        if query.segment:
            length_s = query.segment.end_s - query.segment.start_s
            assert 0 < length_s <= videos[query.video_id].duration_s - SCENE_S + 0.1


def test_every_question_is_answered_twice_and_everything_is_accounted_for(project: Path) -> None:
    queries = read_records(project / "data/queries/queries.jsonl", Query)
    answers = read_records(project / "data/answers/answers.jsonl", Answer)
    assert len(answers) == 2 * len(queries)
    assert {answer.query_id for answer in answers} == {query.id for query in queries}
    ins_and_outs = {}
    for stage in ("catalog", "captions", "queries", "answers"):
        found = read_manifest(project / "data" / stage)
        assert found.items_in == found.items_out + sum(found.set_aside.values())
        ins_and_outs[stage] = (found.items_in, found.items_out)
    assert ins_and_outs == {
        "catalog": (5, 4), "captions": (4, 4), "queries": (4, 4), "answers": (len(queries), len(queries)),
    }  # fmt: skip


def test_an_own_benchmark_in_an_official_layout_can_be_evaluated_on(project: Path, tmp_path: Path) -> None:
    root = project / "data/benchmarks"
    items, rejections = load_benchmarks(root)
    assert (len(items), rejections) == (2, [])
    assert items[0].options == ("A rectangle.", "An ellipse.", "A dog.", "Nothing.")
    with Prober(tmp_path) as prober:
        assert all(isinstance(check_video(root, group, prober), Video) for group in group_by_video(items))


def test_what_has_run_is_up_to_date_and_without_right_answers_the_judge_says_so(
    project: Path, dvc_environment: dict[str, str]
) -> None:
    judged = dvc(project, dvc_environment, "repro", "judge")
    told = judged.stdout + judged.stderr
    assert [stage for stage in STAGES if f"Stage '{stage}' didn't change, skipping" in told] == list(STAGES)
    assert re.findall("Running stage '(.*)'", told) == ["judge"]
    assert judged.returncode != 0
    assert told.count("judge: Not one preference pair was kept") == 1
    assert "Traceback" not in told
    queries = read_records(project / "data/queries/queries.jsonl", Query)
    rejected = read_records(project / "data/judged/rejected.jsonl", Rejection)
    assert {rejection.item for rejection in rejected} == {query.id for query in queries}
    found = read_manifest(project / "data/judged")
    assert (found.items_in, found.items_out) == (len(queries), 0)
    assert sum(found.set_aside.values()) == len(queries) == len(rejected)
