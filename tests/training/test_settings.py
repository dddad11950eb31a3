"""Settings mean what they say, or are refused."""

import os
from pathlib import Path

import pytest
import yaml
from test_trainer import changed
from torch.distributed.launcher.api import LaunchConfig

from tpo.errors import UserError
from tpo.training.launch import environment
from tpo.training.run import train_on_pairs
from tpo.training.settings import video_dpo_config

CONFIGS = Path(__file__).parents[2] / "configs/accelerate"


def test_a_step_that_processes_cannot_share_evenly_is_refused(world, tmp_path: Path) -> None:
    params = changed(world.params, pairs_per_step=64, pairs_per_device=4)
    assert video_dpo_config(params, tmp_path, "cpu", num_processes=8).gradient_accumulation_steps == 2
    for several in (3, 32):
        with pytest.raises(UserError, match=f"is 64, and {several} processes take {4 * several} pairs at once"):
            video_dpo_config(params, tmp_path, "cpu", num_processes=several)


def test_the_best_checkpoint_is_refused_where_nothing_tells_it(world, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.keep is best, and there is no held-out pair"):
        train_on_pairs(
            world.pairs, world.videos, world.folder, world.base, changed(world.params, keep="best"), tmp_path
        )


@pytest.mark.parametrize(("dtype", "expected"), [("float32", "no"), ("bfloat16", "bf16")])
def test_training_computes_in_the_models_dtype_whatever_the_launcher_says(
    world, tmp_path: Path, monkeypatch, dtype: str, expected: str
) -> None:
    """The reference does; what is rounded otherwise would be a margin before the first step."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if dtype == "float32" else "no")
    assert video_dpo_config(world.params, tmp_path, "cpu", dtype=dtype).mixed_precision == expected


def test_processes_that_are_told_to_end_have_time_for_their_step(monkeypatch) -> None:
    for name, value in environment(os.getpid()).items():
        monkeypatch.setenv(name, value)
    assert LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2).shutdown_timeout == 600


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda one: one.stem)
def test_no_launch_config_says_in_which_dtype_to_compute(config: Path) -> None:
    assert yaml.safe_load(config.read_text())["mixed_precision"] == "no"
