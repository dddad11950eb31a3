"""The evaluation stage with everything on: all kinds of benchmarks, controls, needles, subtitles, a served judge."""

import csv
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, edit_params, finish, must_work
from tiny import save_tiny

from tpo.demo.build import build_benchmarks
from tpo.params import load_params
from tpo.records import Condition, Method, Prediction, PredictionStatus, Rejection
from tpo.registry.evidence import gather
from tpo.registry.gate import decide
from tpo.report.summary import collect, to_text
from tpo.store import Manifest, digest, publish, read_manifest, read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FILM = "longvideobench/videos/synthetic-000.mp4"


@pytest.fixture(scope="module")
def judge() -> Iterator[tuple[str, list[str]]]:
    """A judge that always says the same, and what it was asked."""
    asked: list[str] = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(request["messages"][-1]["content"])
            message = {"role": "assistant", "content": "completeness: 4\nreliability: 2"}
            body = json.dumps(
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "judge",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
        server.shutdown()


def settings_with(url: str) -> Any:
    def edit(settings: dict[str, Any]) -> None:
        settings["demo"] |= {"num_eval_videos": 3, "questions_per_eval_video": 3, "num_needles": 3, "num_haystacks": 2}
        settings["runtime"]["items_per_task"] = 1
        settings["model"] |= {"base": "base", "device": "cpu"}
        settings["evaluate"] |= {
            "num_frames": 8,
            "prompts": "official",
            "subtitles": True,
            "max_new_tokens": 6,
            "free_answer_judge": {"url": url, "model": "judge"},
            "bootstrap_samples": 200,
            "needle": {
                "modes": ["after_sampling", "in_video"],
                "num_frames": [8],
                "minutes": [0.5],
                "depths": [0, 1],
                "needle_frames": 3,
                "per_cell": 2,
            },
        }

    return edit


def add_benchmarks(root: Path) -> None:
    """Rows of our own as NExT-GQA, Charades-STA and MLVU's summaries have them, some of them bad; and bad subtitles."""
    film = root / FILM
    (root / "longvideobench/subtitles/synthetic-000_en.json").write_text("")
    for place in ("nextgqa/videos/1.mp4", "charades_sta/videos/A.mp4", "mlvu/MLVU/video/9_summary/s.mp4"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, root / place)
    columns = ["video_id", "frame_count", "width", "height", "question", "answer", "qid", "type"]
    rows = [
        ["1", "90", "64", "64", "what is seen", "a star", "0", "TN", "a star", "a moon", "a ring", "a cat", "a dog"]
    ]
    with (root / "nextgqa/test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*columns, *(f"a{n}" for n in range(5))], *rows])
    (root / "nextgqa/gsub_test.json").write_text('{"1": {"duration": 60, "location": {"0": [[1, 5]]}}}')
    (root / "charades_sta/charades_sta_test.txt").write_text("A 1.0 4.0##a star appears.\nA 4.0 1.0##backwards.\n")
    summary = {"duration": 60, "question": "Sum it up.", "answer": "A star, then a moon.", "question_type": "summary"}
    (root / "mlvu/MLVU/json/9_summary.json").write_text(
        json.dumps([summary | {"video": "s.mp4"}, summary | {"video": "gone.mp4"}, summary | {"video": "../../x.mp4"}])
    )


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], judge: tuple[str, list[str]]
) -> Path:
    """Two models of random weights, and benchmarks of all kinds about demo videos."""
    folder = tmp_path_factory.mktemp("evaluation")
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, settings_with(judge[0]))
    build_benchmarks(folder / "data/demo/benchmarks", load_params(folder / "params.yaml").demo)
    add_benchmarks(folder / "data/demo/benchmarks")
    save_tiny("llava_onevision", folder / "base")
    tuned = save_tiny("llava_onevision", folder / "other", seed=1)
    trained = Manifest(
        stage="train", item="pairs", items_in=0, items_out=0, set_aside={}, seconds=0, facts={"mlflow_run_id": "none"}
    )
    publish(folder / "models/tuned", {".": lambda out: shutil.copytree(tuned, out, dirs_exist_ok=True)}, trained)
    return folder


@pytest.fixture(scope="module")
def output(project: Path, environment: dict[str, str], judge: tuple[str, list[str]]) -> str:
    """What the stage says."""
    return must_work("evaluate", project, environment)


@pytest.fixture(scope="module")
def predictions(project: Path, output: str) -> list[Prediction]:
    return read_records(project / "data/evaluation/predictions.jsonl", Prediction)


def test_what_is_amiss_is_said_before_a_model_is_loaded(output: str) -> None:
    said = output.splitlines()
    lost = next(line for line in said if line.startswith("evaluate: mlvu: ") and "cannot be asked:" in line)
    assert "2 of 6 questions cannot be asked: 1 bad rows, 1 videos video_missing" in lost
    assert any("charades_sta: 1 of 2 rows are set aside" in line and "not after its start" in line for line in said)
    silent = next(line for line in said if "longvideobench: 3 questions are asked without their subtitles" in line)
    assert "synthetic-000_en.json is empty" in silent


def test_every_question_is_asked_of_both_models_in_every_way_that_was_planned(predictions: list[Prediction]) -> None:
    ways = Counter((one.benchmark, one.condition, one.method) for one in predictions if one.model == "base")
    assert ways == Counter((one.benchmark, one.condition, one.method) for one in predictions if one.model == "tuned")
    for benchmark in ("longvideobench", "videomme"):
        assert ways[benchmark, Condition.FULL, Method.LOGPROB] == 3
        assert ways[benchmark, Condition.FULL, Method.GENERATION] == 3
        assert ways[benchmark, Condition.CIRCULAR, Method.LOGPROB] == 12
        for condition in (Condition.TEXT_ONLY, Condition.SINGLE_FRAME, Condition.SHUFFLED, Condition.REVERSED):
            assert ways[benchmark, condition, Method.LOGPROB] == 3
    assert ways["nextgqa", Condition.FULL, Method.LOGPROB] == 1
    assert ways["nextgqa", Condition.FULL, Method.GENERATION] == 2, "the answer and its moment"
    assert ways["charades_sta", Condition.FULL, Method.GENERATION] == 1
    assert len({one.option_logprobs for one in predictions if one.method is Method.LOGPROB}) > 50


def test_a_missing_video_counts_as_wrong_and_a_bad_row_is_set_aside(
    project: Path, predictions: list[Prediction]
) -> None:
    gone = [one for one in predictions if one.video.endswith("gone.mp4")]
    assert [(one.model, one.status, one.score) for one in gone] == [
        (role, PredictionStatus.VIDEO_MISSING, 0) for role in ("base", "tuned")
    ]
    rejected = read_records(project / "data/evaluation/rejected.jsonl", Rejection)
    assert [one.item for one in rejected] == ["mlvu/9_summary.json:2", "charades_sta/charades_sta_test.txt:1"]
    numbers = json.loads((project / "reports/evaluation.json").read_text())
    assert numbers["incomplete"] == {
        "num_items": 1,
        "num_videos_missing": 1,
        "num_videos_broken": 0,
        "num_bad_rows": 2,
        "num_without_subtitles": 3,
    }


def test_free_answers_carry_the_marks_of_the_judge(
    project: Path, predictions: list[Prediction], judge: tuple[str, list[str]]
) -> None:
    judged = [one for one in predictions if one.video.endswith("s.mp4")]
    written = [one for one in judged if one.text.strip()]
    assert {one.status for one in written} <= {PredictionStatus.OK}
    assert {one.score for one in written} <= {0.5}
    assert len(judge[1]) == len({one.text for one in written})
    assert all("A star, then a moon." in asked for asked in judge[1])
    marks = json.loads((project / "reports/evaluation.json").read_text())["mlvu"]["marks"]
    assert marks["tuned"]["judge"] == "not comparable with the official judge"


def test_numbers_of_all_kinds_stand_in_the_report(project: Path, output: str) -> None:
    numbers = json.loads((project / "reports/evaluation.json").read_text())
    everything = numbers["all"]
    assert everything["num_items"] == 3 * 3 + 1
    moved = "official, subtitles before the question instead of between the frames"
    assert (numbers["prompts"]["longvideobench"], numbers["prompts"]["videomme"]) == (moved, "official, subtitles")
    assert set(everything["conditions"]) == {"text_only", "single_frame", "shuffled", "reversed", "circular"}
    assert "temporal_gain_tuned" in everything["conditions"]["shuffled"]
    assert everything["verdict"].startswith(("not shown: ", "better: ", "worse: "))
    assert set(numbers["nextgqa"]["grounding"]["base"]) >= {"miou", "miop", "acc_qa", "acc_gqa"}
    assert numbers["charades_sta"]["grounding"]["tuned"]["num_items"] == 1
    compatible = numbers["videomme"]["compatible"]["base"]
    assert {mode: compatible[mode]["num_items"] for mode in ("official", "lmms_eval")} == {
        "official": 3,
        "lmms_eval": 3,
    }
    assert "m_avg" in numbers["mlvu"]["compatible"]["tuned"]
    for mode in ("after_sampling", "in_video"):
        assert numbers["needle"][mode]["difference"]["num_items"] == 4
        assert set(numbers["needle"][mode]["base"]) == {"accuracy", "needle_absent", "needle_alone"}
    cells = list(csv.DictReader((project / "reports/needle.csv").open()))
    assert Counter(cell["model"] for cell in cells) == {"base": 4, "tuned": 4}


def test_every_answer_is_in_a_table_to_filter(project: Path, predictions: list[Prediction]) -> None:
    rows = list(csv.DictReader((project / "data/evaluation/items.csv").open()))
    full = [row for row in rows if row["condition"] == "full" and row["benchmark"] == "videomme"]
    assert len(full) == 6
    assert {row["change"] for row in rows} <= {"gained", "lost", "same"}
    assert {row["method"] for row in full} == {"logprob", "generation"}


def test_run_again_with_another_confidence_it_asks_nothing_again(
    project: Path, output: str, environment: dict[str, str], judge: tuple[str, list[str]], tmp_path: Path
) -> None:
    before = read_records(project / "data/evaluation/predictions.jsonl", Prediction)
    num_judged = len(judge[1])
    copy = Path(shutil.copytree(project, tmp_path / "project"))
    spliced = sorted((copy / ".tpo/needles").glob("*.mp4"))
    (copy / ".tpo/needles/of-an-earlier-plan.mp4").touch()
    shutil.rmtree(copy / "data/evaluation")
    edit_params(copy, lambda settings: settings["evaluate"].update(confidence=0.9))
    shutil.rmtree(copy / ".tpo/frame_cache")
    must_work("evaluate", copy, environment)
    assert read_records(copy / "data/evaluation/predictions.jsonl", Prediction) == before
    assert len(judge[1]) == num_judged
    assert not list((copy / ".tpo/frame_cache").rglob("*.npy")), "no video was decoded"
    assert sorted((copy / ".tpo/needles").glob("*.mp4")) == spliced, "what no plan asks for is removed"


def test_a_benchmark_that_lacks_most_of_its_videos_stops_the_run_until_they_are_there(
    project: Path, output: str, environment: dict[str, str], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "project"))
    videos = copy / "data/demo/benchmarks/videomme/data"
    videos.rename(tmp_path / "not downloaded yet")
    code, _, error = finish("evaluate", copy, environment)
    assert code == 1
    assert "videomme: 3 of 3 questions cannot be asked: 0 bad rows, 1 videos video_missing" in error
    assert "evaluate.max_unusable_share (0.5)" in error
    assert read_manifest(copy / "data/evaluation").items_out > 0, "what was there before is untouched"
    (tmp_path / "not downloaded yet").rename(videos)
    must_work("evaluate", copy, environment)


def test_where_settings_leave_out_every_question_it_says_which_setting(
    project: Path, output: str, environment: dict[str, str], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "project"))
    for benchmark in ("longvideobench", "mlvu", "videomme", "nextgqa"):
        shutil.rmtree(copy / "data/demo/benchmarks" / benchmark)
    alone = {"max_new_tokens": None, "free_answer_judge": None, "needle": None}
    edit_params(copy, lambda settings: settings["evaluate"].update(alone))
    code, out, error = finish("evaluate", copy, environment)
    assert code == 1
    assert "charades_sta: 1 questions are not asked: spans are written: set evaluate.max_new_tokens" in out
    assert "Nothing is left to ask" in error


def test_a_needle_test_by_itself_is_asked_shown_and_no_ground_for_promotion(
    project: Path, output: str, environment: dict[str, str], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "project"))
    for benchmark in (copy / "data/demo/benchmarks").iterdir():
        if benchmark.name != "needle":
            shutil.rmtree(benchmark)
    must_work("evaluate", copy, environment)
    numbers = json.loads((copy / "reports/evaluation.json").read_text())
    assert numbers["needle"] == json.loads((project / "reports/evaluation.json").read_text())["needle"]
    evidence = gather(
        metrics=numbers, metrics_digest=digest(copy / "reports/evaluation.json"),
        evaluation=read_manifest(copy / "data/evaluation").facts, training={}, validation={},
        videos_report=None, questions_report=None, reports_digest=None, tuned_id=None, proof=None, registry=None,
    )  # fmt: skip
    limits = load_params(copy / "params.yaml").register_
    assert decide(evidence, limits, "").summary.startswith("Refused: base and tuned were not compared")
    assert "needle in video" in to_text(collect(copy))
