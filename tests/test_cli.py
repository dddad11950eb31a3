"""The command line as a person meets it: real processes, readable errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events, write_video

ROOT = Path(__file__).resolve().parents[1]


def tpo(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "tpo.cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_names_the_commands_and_loads_nothing_heavy(tmp_path: Path):
    done = tpo(tmp_path, "--help")
    assert done.returncode == 0
    for command in ("summary", "ask", "registry"):
        assert command in done.stdout
    code = "import sys, tpo.cli; print([m for m in ('torch', 'mlflow', 'transformers', 'pandas') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_what_the_user_can_fix_is_one_message_and_exit_code_1(tmp_path: Path):
    for arguments, message in (
        (["summary"], "No stage has run"),
        (["registry"], "No params.yaml here"),
        (["ask", "clip.mp4", "What?"], "No params.yaml here"),
        (["ask", "clip.mp4", "What?", "--model", "nothing"], "There is no folder 'nothing'"),
    ):
        done = tpo(tmp_path, *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("tpo: ")
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_a_checkpoint_folder_answers_about_a_real_video(tmp_path: Path):
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 0), tokenizer, tmp_path / "checkpoint")
    write_video(tmp_path / "clip.mp4", plan_events(np.random.default_rng(0), 4), 0.0)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = tpo(tmp_path, "ask", "clip.mp4", "Which color is the star?", "--model", "checkpoint")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    missing = tpo(tmp_path, "ask", "nowhere.mp4", "What?", "--model", "checkpoint")
    assert missing.returncode == 1
    assert "There is no video file 'nowhere.mp4'" in missing.stderr
