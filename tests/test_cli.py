"""The command line as a person meets it: readable errors, exit codes, JSON, completion, and little to wait for."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer

from tpo.cli import EXIT_CODES, app, main
from tpo.demo.world import plan_events, write_video
from tpo.records import Granularity, PreferencePair, Query, QuestionType, Segment, Video
from tpo.store import Manifest, publish
from tpo.video.probe import Prober
from tpo.video.sample import dense

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "import sys; sys.argv[0] = 'tpo'; from tpo.cli import main; main()"
HEAVY = ("torch", "mlflow", "transformers", "pandas", "matplotlib", "numpy", "scipy", "av", "prefect", "dvc")


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def tpo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process, by the program's own entry point: processes of their own import for seconds."""

    def run(folder: Path, *arguments: str) -> Done:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["tpo", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


def process(folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"} | settings
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_command_has_an_example_and_the_exit_codes_are_told(tpo, tmp_path: Path) -> None:
    commands = typer.main.get_command(app).commands
    commands |= {f"pairs {name}": command for name, command in commands.pop("pairs").commands.items()}
    assert {"status", "use", "summary", "show", "review", "ask", "registry", "promote", "rollback"} < set(commands)
    for name, command in commands.items():
        assert command.epilog.startswith(f"Example: tpo {name}"), name
        words = shlex.split(command.epilog.removeprefix(f"Example: tpo {name}"))
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, name
    assert " ".join(EXIT_CODES.split()) in " ".join(tpo(tmp_path, "--help").stdout.split())


def test_help_completion_and_status_import_nothing_heavy(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    code = f"""
import contextlib, os, sys, tpo.cli
for arguments in (["--help"], ["use"], ["status", "--json"], []):
    sys.argv = ["tpo", *arguments]
    if not arguments:
        os.environ.update(_TPO_COMPLETE="complete_bash", COMP_WORDS="tpo use long", COMP_CWORD="2")
    with contextlib.suppress(SystemExit):
        tpo.cli.main()
print([name for name in {HEAVY} if name in sys.modules])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    *before, completed, heavy = done.stdout.splitlines()
    assert before[-1] == "}", "status --json"
    assert completed == "longva"
    assert heavy == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("summary", "No stage has run"),
        ("status", "is no tpo project"),
        ("registry", "No params.yaml here"),
        ("rollback --reason why", "No params.yaml here"),
        ("needles", "No params.yaml here"),
        ("use longva", "No params.yaml here"),
        ("use nothing", "There is no recipe 'nothing'. There are: llava_video, longva, one_small_gpu."),
        ("ask clip.mp4 What?", "No params.yaml here"),
        ("ask clip.mp4 What? --model nothing", "There is no folder 'nothing'"),
        ("export nothing dst --form hf", "No params.yaml here"),
        ("convert nothing dst", "The base model folder 'nothing' does not exist"),
        ("pairs import nothing.csv --form csv", "No params.yaml here"),
    ],
)
def test_what_the_user_can_mend_is_one_message_and_exit_code_1(
    tpo, tmp_path: Path, arguments: str, message: str
) -> None:
    done = tpo(tmp_path, *arguments.split())
    assert done.code == 1
    told = [line for line in done.stderr.splitlines() if not line.endswith(" s")]  # what was waited for
    assert told[0].startswith("tpo: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_where_nothing_is_registered_that_is_said_and_no_database_is_made(tpo, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for arguments in (["registry"], ["registry", "--json"], ["promote", "3", "--dry-run"], ["reproduce", "3"]):
        done = tpo(tmp_path, *arguments)
        assert (done.code, done.stdout) == (1, "")
        assert "No model named 'tpo-demo' is registered yet" in done.stderr
    assert "'tpo-demo' has no champion yet" in tpo(tmp_path, "ask", "clip.mp4", "What?").stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    (tmp_path / "mlflow.db").write_text("no database, though long enough to be taken for one" * 20)
    assert "mlflow.db cannot be read: file is not a database" in tpo(tmp_path, "registry").stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be read" in tpo(tmp_path, "registry").stderr


def test_a_wrong_option_is_exit_code_2_and_a_closed_pipe_is_no_error_of_ours(tpo, tmp_path: Path) -> None:
    wrong = process(tmp_path, "promote", "--nothing")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "No such option: --nothing" in wrong.stderr
    alone = tpo(tmp_path, "review", "--json")
    assert (alone.code, alone.stdout) == (2, "")
    assert "--json: it goes with --summary" in alone.stderr
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)} use | true"
    piped = subprocess.run(["sh", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    assert piped.stderr == ""


def test_ctrl_c_is_exit_code_130_without_a_traceback(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "dvc").mkdir()
    (tmp_path / "dvc/__main__.py").write_text("import time\ntime.sleep(60)\n")  # a large folder to look through
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "status"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == "Stages     none has run yet\n"  # while DVC is still asked
        time.sleep(0.2)
        os.killpg(running.pid, signal.SIGINT)
        _, told = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "tpo/" not in told


def test_a_checkpoint_folder_answers_about_a_real_video(tpo, tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", plan_events(np.random.default_rng(0), 4), 0.0)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    taken = tpo(tmp_path, "export", str(tiny_checkpoint), "clip.mp4/dst", "--form", "hf")
    assert (taken.code, taken.stderr.splitlines()[-1][:5]) == (1, "tpo: ")
    assert "clip.mp4/.dst.partial: Not a directory" in taken.stderr
    asked = ["clip.mp4", "Which color is the star?", "--model", str(tiny_checkpoint)]
    told = json.loads(tpo(tmp_path, "ask", *asked, "--json").stdout)
    assert {"video": "clip.mp4", "model": str(tiny_checkpoint)}.items() <= told.items()
    assert tpo(tmp_path, "ask", *asked).stdout == f"{told['answer']}\n"
    missing = tpo(tmp_path, "ask", "nowhere.mp4", "What?", "--model", str(tiny_checkpoint))
    assert missing.code == 1
    assert "There is no video file 'nowhere.mp4'" in missing.stderr


def test_a_recipe_is_shown_before_it_is_written_and_written_once(tpo, tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    before = (tmp_path / "params.yaml").read_text()
    shown = tpo(tmp_path, "use", "longva", "--dry-run").stdout
    assert "\n-  beta: 0.1\n+  beta: 0.3\n" in shown
    assert shown.endswith("\nNothing was written.\n")
    assert (tmp_path / "params.yaml").read_text() == before
    written = tpo(tmp_path, "use", "longva").stdout
    assert written.startswith(shown.removesuffix("Nothing was written.\n"))
    assert "  beta: 0.3\n" in (tmp_path / "params.yaml").read_text()
    assert tpo(tmp_path, "use", "longva").stdout == "params.yaml says what the recipe longva says already.\n"
    (tmp_path / "params.yaml").write_text(before.replace("seed: 0", "seed: none", 1))
    refused = tpo(tmp_path, "use", "longva")
    assert refused.code == 1
    assert "params.yaml with the recipe longva has 1 problem(s):\n  data.seed: " in refused.stderr
    assert "beta: 0.1\n" in (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_bytes(b"\xff")
    assert "params.yaml is not valid YAML" in tpo(tmp_path, "use", "longva").stderr


def project_with(folder: Path, *, held_out: bool) -> list[Video]:
    """Three videos, two questions about each, and one of the videos held out or none."""
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    root = folder / "data/demo/videos"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "abc":
        write_video(root / f"{name}.mp4", plan_events(rng, 6), 0.0)
    with Prober(folder / ".tpo/frames") as prober:
        videos = [video for name in "abc" if isinstance(video := prober.probe(root, root / f"{name}.mp4"), Video)]
    queries = [
        Query(
            id=f"{video.id[:6]}{number}", video_id=video.id, granularity=Granularity.LOCALIZED,
            question_type=QuestionType.TEMPORAL_REASONING,
            segment=Segment(video_id=video.id, start_s=10.0 * number, end_s=10.0 * number + 8),
            question=f"What comes after number {number}?", reference_answer=f"answer {number}", asker="a person",
        )
        for video in videos
        for number in range(4)
    ]  # fmt: skip
    view = dense(videos[0], 4)
    pair = PreferencePair(
        id="p", video_id=videos[0].id, query_id="q", granularity=Granularity.LOCALIZED, question_type=None,
        question="Why?", chosen="a", rejected="b", view=view, chosen_tokens=1, rejected_tokens=1, chosen_view=view,
        rejected_view=view, segment=None, model_id="m", verdicts=(), judge="rule",
    )  # fmt: skip
    for stage, out, files in (
        ("ingest", "catalog", {"videos.jsonl": videos}),
        ("ask", "queries", {"queries.jsonl": queries}),
        ("mix", "pairs", {"held_out.jsonl": [pair] if held_out else []}),
    ):
        done = Manifest(stage=stage, item="items", items_in=0, items_out=0, set_aside={}, seconds=0)
        publish(folder / "data" / out, files, done)
    return videos


def test_a_needle_test_is_made_of_held_out_videos_alone(tpo, tmp_path: Path) -> None:
    videos = project_with(tmp_path, held_out=True)
    done = tpo(tmp_path, "needles")
    assert done.code == 0, done.stderr
    assert "cut clips: 100%" in done.stderr
    rows = json.loads((tmp_path / "data/demo/benchmarks/needle/needles.json").read_text())
    assert [row["source"] for row in rows] == [videos[0].id] * 4
    assert all((tmp_path / "data/demo/benchmarks/needle/clips" / row["clip"]).is_file() for row in rows)
    again = tpo(tmp_path, "needles")
    assert again.code == 1
    assert "holds a needle test already" in again.stderr
    # Ids are completed from the beginnings of lines; the shell's own way to ask, in a process.
    completed = process(
        tmp_path, _TPO_COMPLETE="complete_bash", COMP_WORDS=f"tpo show {videos[1].id[:6]}", COMP_CWORD="2"
    )
    assert completed.stdout.split() == [f"{videos[1].id[:6]}{number}" for number in range(4)]


def test_without_held_out_videos_no_needle_test_is_made(tpo, tmp_path: Path) -> None:
    project_with(tmp_path, held_out=False)
    done = tpo(tmp_path, "needles")
    assert done.code == 1
    assert "Set mix.held_out_share" in done.stderr
    assert not (tmp_path / "data/demo/benchmarks").exists()
