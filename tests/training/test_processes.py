"""Two processes (gloo) give what one gives: losses, gradients, weights, evaluation."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import changed, steps_of

from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.params import LoraParams
from tpo.training.launch import LaunchSpec, Outcome, environment, model_folder, read_outcome, train_here

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/cpu2.yaml"),
    "-m", "tpo.training.launch",
]  # fmt: skip


def spec_of(world, folder: Path, **changes: Any) -> LaunchSpec:
    """Four pairs of one video and one of another to train on, so that processes have unequal rows and pairs."""
    return LaunchSpec(
        pairs=[world.pairs[number] for number in (0, 2, 4, 1, 3)],
        held_out=[world.pairs[5]],
        videos=list(world.videos.values()),
        videos_root=world.folder.root,
        index_dir=world.folder.index_dir,
        frame_cache=folder / "frames",
        frame_cache_bytes=10**8,
        base=world.base,
        params=changed(world.params, **changes),
        in_order=False,
        replies=folder / "replies.sqlite",
        features=folder / "features",
        work_dir=folder / "work",
    )


def launch(spec: LaunchSpec, folder: Path) -> Outcome:
    (folder / "spec.json").write_text(spec.model_dump_json())
    done = subprocess.run(
        [*LAUNCH, str(folder / "spec.json"), str(folder / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0 or (folder / "out/error.txt").is_file(), done.stderr
    return read_outcome(folder / "out")


@pytest.mark.parametrize("lora", [None, LoraParams(r=4, alpha=8)], ids=["full", "lora"])
def test_two_processes_give_the_losses_and_weights_of_one(world, tmp_path: Path, lora) -> None:
    changes = {"pairs_per_step": 4, "num_epochs": 2, "lora": lora and lora.model_dump(), "learning_rate": 1e-4}
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    alone = train_here(spec_of(world, one, pairs_per_device=4, **changes), one)
    together = launch(spec_of(world, two, pairs_per_device=2, **changes), two)
    assert (together.num_pairs, together.num_held_out) == (alone.num_pairs, alone.num_held_out) == (5, 1)
    assert (alone.num_processes, together.num_processes) == (1, 2)
    first, second = steps_of(alone.history), steps_of(together.history)
    assert len(first) == len(second) == 4
    assert sum(entry["tokens"] for entry in second) >= sum(entry["tokens"] for entry in first)
    for name in ("loss", "grad_norm", "rewards/margins", "drift/chosen", "loss/sft", "tokens/rejected"):
        found, expected = ([entry[name] for entry in steps] for steps in (second, first))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    evaluated = [[e["eval_loss"] for e in o.history if "eval_loss" in e] for o in (alone, together)]
    assert evaluated[0] == pytest.approx(evaluated[1], abs=1e-4)
    weights = [load_model(world.base.of(model_folder(folder))).model.state_dict() for folder in (one, two / "out")]
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=0, atol=2e-5)
    base = load_model(world.base).model.state_dict()
    assert max(float((weights[0][name] - base[name]).abs().max()) for name in base) > 1e-4


def test_what_is_wrong_in_a_process_is_said_once(world, tmp_path: Path) -> None:
    spec = spec_of(world, tmp_path, pairs_per_step=4, pairs_per_device=2, max_tokens=3)
    with pytest.raises(UserError, match="No pair can be trained on"):
        launch(spec, tmp_path)


def test_processes_end_with_the_one_that_launched_them_and_save_first(world, tmp_path: Path) -> None:
    spec = spec_of(
        world, tmp_path, pairs_per_step=4, pairs_per_device=2, num_epochs=2000, save_every_steps=10, keep="best"
    )
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    launcher = subprocess.Popen(["sleep", "300"])
    arguments = [*LAUNCH, str(tmp_path / "spec.json"), str(tmp_path / "out")]
    told = tmp_path / "stderr.txt"
    variables = environment(launcher.pid)
    with told.open("w") as stderr, subprocess.Popen(arguments, cwd=ROOT, env=variables, stderr=stderr) as processes:
        try:
            deadline = time.monotonic() + 120
            while "steps/s]" not in told.read_text():
                assert processes.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            launcher.kill()
            launcher.wait()
            assert processes.wait(60) != 0
        finally:
            launcher.kill()
            processes.kill()
    saved = [
        json.loads(file.read_text())["global_step"] for file in tmp_path.glob("work/*/checkpoint-*/trainer_state.json")
    ]
    assert saved, "saved because it was told to"
    assert all(step % 1000 for step in saved), saved
