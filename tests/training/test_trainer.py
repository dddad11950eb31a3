"""Real training runs of a few steps, checked against formulas worked out by hand; kills are real kills."""

import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid

from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import LoraParams, ModelParams, TrainParams
from tpo.records import PreferencePair
from tpo.training.collator import VideoPairCollator, number_pairs
from tpo.training.run import history_csv, train_on_pairs
from tpo.training.settings import video_dpo_config
from tpo.training.trainer import VideoDPOTrainer

LORA = LoraParams(r=4, alpha=8)


def load(world) -> VideoLMM:
    return load_model(ModelParams(base=world.base.base, dtype="float32", device="cpu"))


def shaken(world, scale: float) -> VideoLMM:
    """The base with noise on its decoder: a policy that has moved away from its reference."""
    model = load(world)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if "language_model" in name:
                parameter += scale * torch.randn_like(parameter)
    return model


def scores(world, model: VideoLMM, pair: PreferencePair) -> tuple[float, float]:
    frames = world.folder.frames(world.videos[pair.video_id].path, pair.view)
    ((chosen, rejected),) = model.option_logprobs(frames, [pair.question], [[pair.chosen, pair.rejected]])
    return chosen, rejected


def margin(world, model: VideoLMM, pair: PreferencePair) -> float:
    chosen, rejected = scores(world, model, pair)
    return chosen - rejected


def loss_by_hand(world, policy: VideoLMM, reference: VideoLMM, pair: PreferencePair, params: TrainParams) -> float:
    """Equations 2 to 4 of arXiv 2501.13919 on one pair, from log-probabilities of answers alone."""
    (chosen, rejected), (ref_chosen, ref_rejected) = (scores(world, m, pair) for m in (policy, reference))
    dpo = -float(logsigmoid(torch.tensor(params.beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))))
    sft = -chosen / len(policy.answer_ids(pair.chosen))
    return params.dpo_weight * dpo + params.sft_alpha * sft


def changed(params: TrainParams, **changes: object) -> TrainParams:
    return TrainParams.model_validate(params.model_dump() | changes)


def steps_of(history: list[dict[str, float]]) -> list[dict[str, float]]:
    clocks = ("tokens_per_second", "device_hours")
    return [{k: v for k, v in entry.items() if k not in clocks} for entry in history if "loss" in entry]


@pytest.mark.parametrize("changes", [{}, {"beta": 0.7, "sft_alpha": 2.0}, {"sft_alpha": 0.0}, {"dpo_weight": 0.0}])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_loss_of_a_pair_is_dpo_plus_alpha_sft(world, tmp_path: Path, noise: float, changes: dict) -> None:
    params = changed(world.params, sharing="none", **changes)
    policy, reference = shaken(world, noise), load(world)
    rows = number_pairs(world.pairs, policy)
    trainer = VideoDPOTrainer(
        policy, ref_model=load(world).model, args=video_dpo_config(params, tmp_path, "cpu"),
        train_dataset=rows, data_collator=VideoPairCollator(world.pairs, world.videos, world.folder, policy),
        processing_class=policy.tokenizer,
    )  # fmt: skip
    for number in (0, 1, 2):
        batch = trainer.data_collator([rows[number]])
        with torch.no_grad():
            loss = float(trainer.compute_loss(policy.model, batch))
        by_hand = loss_by_hand(world, policy, reference, world.pairs[number], params)
        assert loss == pytest.approx(by_hand, abs=2e-4)
        if not noise and not changes:
            chosen, _ = scores(world, reference, world.pairs[number])
            sft = -chosen / len(policy.answer_ids(world.pairs[number].chosen))
            assert loss == pytest.approx(math.log(2) + 0.5 * sft, abs=2e-4)
        if noise:
            assert abs(by_hand - loss_by_hand(world, reference, reference, world.pairs[number], params)) > 1e-3


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_first_logged_loss_of_a_real_run_is_the_mean_over_its_pairs(world, tmp_path: Path, lora) -> None:
    params = changed(world.params, pairs_per_step=6, lora=lora and lora.model_dump())
    _, history, *_ = train_on_pairs(world.pairs, world.videos, world.folder, world.base, params, tmp_path)
    base = load(world)
    by_hand = np.mean([loss_by_hand(world, base, base, pair, params) for pair in world.pairs])
    assert steps_of(history)[0]["loss"] == pytest.approx(by_hand, abs=1e-3)


@pytest.mark.parametrize("first", [0, 3])
def test_pairs_are_taken_in_their_order_where_it_matters(world, tmp_path: Path, first: int) -> None:
    """As from easy to hard: the first step's loss is that of the first pair."""
    pairs = world.pairs[first:] + world.pairs[:first]
    _, history, *_ = train_on_pairs(
        pairs, world.videos, world.folder, world.base, world.params, tmp_path, in_order=True
    )
    base = load(world)
    losses = [loss_by_hand(world, base, base, pair, world.params) for pair in pairs]
    assert steps_of(history)[0]["loss"] == pytest.approx(losses[0], abs=1e-3)
    assert min(abs(loss - losses[0]) for loss in losses[1:]) > 1e-3, "so no other pair was the first"


def test_only_projector_and_decoder_learn(world, tmp_path: Path) -> None:
    tuned, history, *_ = train_on_pairs(world.pairs, world.videos, world.folder, world.base, world.params, tmp_path)
    assert [entry["step"] for entry in steps_of(history)] == [1, 2, 3, 4, 5, 6]
    before, after = load(world).model.state_dict(), tuned.model.state_dict()
    moved = {name for name, weights in after.items() if not torch.equal(weights, before[name])}
    assert not [name for name in moved if "vision_tower" in name]
    assert [name for name in after if "vision_tower" in name]
    for part in ("multi_modal_projector", "language_model.layers.0", "language_model.layers.3", "image_newline"):
        assert [name for name in moved if part in name], part


def test_lora_learns_on_decoder_linears_alone_and_is_saved_as_an_adapter(world, tmp_path: Path) -> None:
    params = changed(world.params, lora=LORA.model_dump())
    tuned, _, *_ = train_on_pairs(world.pairs, world.videos, world.folder, world.base, params, tmp_path / "work")
    tuned.save(tmp_path / "tuned")
    adapter = load_file(tmp_path / "tuned" / "adapter_model.safetensors")
    assert len(adapter) == 4 * 7 * 2  # layers, linears in each, A and B
    assert all("language_model.layers" in name and "lora_" in name for name in adapter)
    assert all(bool(weights.any()) for name, weights in adapter.items() if "lora_B" in name)
    config = json.loads((tmp_path / "tuned" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == world.base.base
    assert not list((tmp_path / "tuned").glob("model*.safetensors"))
    loaded = load_model(ModelParams(base=str(tmp_path / "tuned"), dtype="float32", device="cpu"))
    for pair in world.pairs[:2]:
        assert scores(world, loaded, pair) == pytest.approx(scores(world, tuned, pair), abs=1e-4)
        assert scores(world, loaded, pair) != pytest.approx(scores(world, load(world), pair), abs=1e-3)
    base, merged = load(world).model.state_dict(), loaded.model.state_dict()
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    assert len(moved) == 28
    assert all("language_model.layers" in name for name in moved)


def test_training_moves_the_margin_towards_the_chosen_answer_whichever_it_is(world, tmp_path: Path) -> None:
    pair = world.pairs[3]
    swapped = pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen})
    params = changed(world.params, sft_alpha=0.0, num_epochs=4)
    before = margin(world, load(world), pair)
    for name, direction in (("as is", 1), ("swapped", -1)):
        tuned, history, *_ = train_on_pairs(
            [pair if direction == 1 else swapped], world.videos, world.folder, world.base, params, tmp_path / name
        )
        assert direction * (margin(world, tuned, pair) - before) > 0.5
        assert steps_of(history)[-1]["rewards/margins"] > steps_of(history)[0]["rewards/margins"]
        assert steps_of(history)[-1]["loss"] < steps_of(history)[0]["loss"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_another_order(world, tmp_path: Path) -> None:
    runs = {}
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        params = changed(world.params, seed=seed)
        tuned, history, *_ = train_on_pairs(
            world.pairs, world.videos, world.folder, world.base, params, tmp_path / name
        )
        runs[name] = (tuned.model.state_dict(), [entry["loss"] for entry in steps_of(history)])
    assert runs["a"][1] == runs["again"][1]
    assert all(torch.equal(runs["a"][0][name], weights) for name, weights in runs["again"][0].items())
    assert runs["a"][1] != runs["other"][1]


def start_in_child(world, params: TrainParams, work_dir: Path, folder: Path) -> "subprocess.Popen[bytes]":
    (folder / "world.json").write_text(
        json.dumps(
            {
                "pairs": [pair.model_dump(mode="json") for pair in world.pairs],
                "videos": [video.model_dump(mode="json") for video in world.videos.values()],
                "base": world.base.model_dump(mode="json"),
                "params": params.model_dump(mode="json"),
            }
        )
    )
    program = (
        "import json, sys; from pathlib import Path\n"
        "from tpo.params import ModelParams, TrainParams; from tpo.records import PreferencePair, Video\n"
        "from tpo.training.run import train_on_pairs; from tpo.video.decode import VideoFolder\n"
        "world, root, work = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), Path(sys.argv[3])\n"
        "videos = [Video.model_validate(v) for v in world['videos']]\n"
        "train_on_pairs([PreferencePair.model_validate(p) for p in world['pairs']], {v.id: v for v in videos},\n"
        "    VideoFolder(root, root / '.frames'),"
        "    ModelParams.model_validate(world['base']), TrainParams.model_validate(world['params']), work)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "world.json"), str(world.folder.root), str(work_dir)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr.txt").open("w"),
    )


def test_a_run_never_goes_on_from_a_checkpoint_of_another_base(world, tmp_path: Path) -> None:
    first = train_on_pairs(world.pairs, world.videos, world.folder, world.base, world.params, tmp_path / "work")
    shaken(world, 0.05).save(tmp_path / "other")
    other = world.base.of(tmp_path / "other")
    found = train_on_pairs(world.pairs, world.videos, world.folder, other, world.params, tmp_path / "work")
    alone = train_on_pairs(world.pairs, world.videos, world.folder, other, world.params, tmp_path / "alone")
    assert steps_of(found.history) == steps_of(alone.history) != steps_of(first.history)


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_end(world, tmp_path: Path) -> None:
    params = changed(world.params, num_epochs=10, save_every_steps=5)  # 60 steps
    work = tmp_path / "work"
    child = start_in_child(world, params, work, tmp_path)
    try:
        deadline = time.monotonic() + 100
        while not list(work.glob("*/checkpoint-*/trainer_state.json")):
            assert child.poll() is None, "the run ended by itself"
            assert time.monotonic() < deadline, "no checkpoint in time"
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    reached = max(int(folder.parent.name.split("-")[1]) for folder in work.glob("*/checkpoint-*/trainer_state.json"))
    assert 5 <= reached < 60
    killed_at = {path: path.stat().st_mtime_ns for path in work.glob(f"*/checkpoint-{reached}/*")}
    assert killed_at
    tuned, history, *_ = train_on_pairs(world.pairs, world.videos, world.folder, world.base, params, work)
    assert [entry["step"] for entry in steps_of(history)] == list(range(1, 61))
    whole, whole_history, *_ = train_on_pairs(
        world.pairs, world.videos, world.folder, world.base, params, tmp_path / "uninterrupted"
    )
    assert steps_of(history) == steps_of(whole_history)
    expected = whole.model.state_dict()
    assert all(torch.equal(weights, expected[name]) for name, weights in tuned.model.state_dict().items())


def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(world, tmp_path: Path) -> None:
    train_on_pairs(world.pairs, world.videos, world.folder, world.base, world.params, tmp_path)
    assert [folder.name for folder in tmp_path.glob("*/checkpoint-*")] == ["checkpoint-6"]
    (whole,) = tmp_path.glob("*/checkpoint-6")
    half, nearly = whole.with_name("checkpoint-9"), whole.with_name("checkpoint-10")
    half.mkdir()
    (half / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:5000])
    shutil.copytree(whole, nearly)
    (nearly / "trainer_state.json").write_bytes((whole / "trainer_state.json").read_bytes()[:500])
    twice = changed(world.params, num_epochs=2)
    _, history, *_ = train_on_pairs(world.pairs, world.videos, world.folder, world.base, twice, tmp_path)
    assert [entry["step"] for entry in steps_of(history)] == list(range(1, 13))
    assert [folder.name for folder in tmp_path.glob("*/checkpoint-*")] == ["checkpoint-12"]


def test_a_history_becomes_one_csv_row_a_step() -> None:
    history = [
        {"loss": 0.7, "learning_rate": 1e-3, "step": 1},
        {"loss": 0.5, "learning_rate": 5e-4, "step": 2},
        {"train_runtime": 3.0, "step": 2},
    ]
    rows = list(csv.DictReader(io.StringIO(history_csv(history))))
    assert [(row["step"], float(row["loss"])) for row in rows] == [("1", 0.7), ("2", 0.5)]
    assert list(rows[0]) == ["step", "loss", "learning_rate"]
