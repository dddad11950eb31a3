"""What a long run needs: what cannot be trained on is counted, and what goes wrong is found early or survived."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from test_trainer import changed, load, start_in_child, steps_of
from transformers import Qwen2Config
from transformers.models.siglip import SiglipVisionConfig

from tpo.errors import UserError
from tpo.models.llava_video import LlavaVideo, LlavaVideoConfig, LlavaVideoForConditionalGeneration
from tpo.models.video_lmm import VideoLMM
from tpo.params import LoraParams, TrainParams
from tpo.records import Reason
from tpo.training.features import VideoFeatures
from tpo.training.fitting import count_tokens, fit_pairs
from tpo.training.memory import estimate_memory
from tpo.training.probe import make_probe
from tpo.training.rows import PairRows
from tpo.training.run import Trained, train_on_pairs
from tpo.training.trainer import VideoDPOTrainer
from tpo.video.decode import VideoFolder


@pytest.fixture
def copied(world, tmp_path: Path) -> Any:
    """The same videos in a folder that may be damaged."""
    root = tmp_path / "videos"
    shutil.copytree(world.folder.root, root, ignore=shutil.ignore_patterns(".frames"))
    return world.__class__(**vars(world) | {"folder": VideoFolder(root, world.folder.index_dir)})


def train(world, folder: Path, params: TrainParams, **settings: Any) -> Trained:
    return train_on_pairs(world.pairs, world.videos, world.folder, world.base, params, folder, **settings)


def damage_content(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))


@pytest.mark.parametrize(
    ("damage", "reason"), [(Path.unlink, Reason.VIDEO_MISSING), (damage_content, Reason.VIDEO_CHANGED)]
)
def test_pairs_of_a_video_that_is_gone_or_another_are_set_aside_and_counted(
    copied, tmp_path: Path, damage: Callable[[Path], Any], reason: Reason
) -> None:
    lost = copied.videos[copied.pairs[1].video_id]
    damage(copied.folder.root / lost.path)
    found = train(copied, tmp_path / "work", copied.params)
    assert [pair.id for pair in found.fitted.pairs] == ["pair0", "pair2", "pair4"]
    assert [(one.stage, one.item, one.reason) for one in found.fitted.set_aside] == [
        ("train", f"pair{number}", reason) for number in (1, 3, 5)
    ]
    assert all(lost.path in one.detail for one in found.fitted.set_aside)
    assert len(steps_of(found.history)) == 3


def test_nothing_to_train_on_is_an_error_with_the_reasons(copied, tmp_path: Path) -> None:
    for video in copied.videos.values():
        (copied.folder.root / video.path).unlink()
    with pytest.raises(UserError, match=r"No pair can be trained on: .*'video_missing': 6.* First: "):
        train(copied, tmp_path / "work", copied.params)


def test_a_video_that_vanishes_during_training_is_named_and_training_goes_on_when_it_is_back(
    copied, tmp_path: Path, monkeypatch
) -> None:
    params = changed(copied.params, save_every_steps=1)
    path = copied.folder.root / copied.videos[copied.pairs[1].video_id].path
    away, usual = path.with_name("away"), VideoDPOTrainer.training_step

    def step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == 2 and path.exists():
            path.rename(away)
            trainer._rows.features._kept.clear()
        return usual(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(VideoDPOTrainer, "training_step", step)
        with pytest.raises(UserError, match=r"of pair pair[135] can no longer be decoded: 1\.mp4: .*Put it back"):
            train(copied, tmp_path / "work", params)
    away.rename(path)
    found = train(copied, tmp_path / "work", params)
    assert [entry["step"] for entry in steps_of(found.history)] == [1, 2, 3, 4, 5, 6]


def test_what_is_too_long_is_shown_fewer_frames_or_set_aside_by_rule(world) -> None:
    model, view = load(world), world.pairs[0].view
    video = world.videos[view.video_id]
    whole = count_tokens(model, video, view, world.pairs)
    prepared = model.prepare(world.folder.frames(video.path, view))
    assert whole == len(model.prompt_ids(prepared, world.pairs[0].question)) + 9
    params = changed(world.params, max_tokens=whole - 1)

    fitted = fit_pairs(world.pairs, world.videos, world.folder, model, params)
    assert (len(fitted.pairs), fitted.set_aside, fitted.num_shortened) == (6, [], 6)
    shown = fitted.pairs[0].view
    assert 0 < len(shown.timestamps_s) < len(view.timestamps_s)
    assert set(shown.timestamps_s) <= set(view.timestamps_s)
    rows = PairRows(fitted.pairs, VideoFeatures(model, world.videos, world.folder), model, "pair")
    assert rows.row([0], torch.device("cpu"))[0].num_tokens < whole + 9
    fits = fit_pairs(world.pairs, world.videos, world.folder, model, changed(params, max_tokens=whole))
    assert (fits.pairs, fits.num_shortened) == (world.pairs, 0)

    fitted = fit_pairs(world.pairs, world.videos, world.folder, model, changed(params, too_long="set_aside"))
    assert (fitted.pairs, [one.reason for one in fitted.set_aside]) == ([], [Reason.TOO_LONG] * 6)
    assert f"6 frames and text make {whole} tokens, and {whole - 1} are allowed" in fitted.set_aside[0].detail
    nothing = fit_pairs(world.pairs, world.videos, world.folder, model, changed(params, max_tokens=5))
    assert "not even one frame fits" in nothing.set_aside[0].detail


def test_the_longest_question_is_the_one_of_most_tokens(world) -> None:
    model, view = load(world), world.pairs[0].view
    video = world.videos[view.video_id]
    asked = ["What comes right after the moon and the star ?", "x" * 200]
    pairs = [world.pairs[0].model_copy(update={"question": question}) for question in asked]
    each = [count_tokens(model, video, view, [pair]) for pair in pairs]
    assert each[0] > each[1]
    assert count_tokens(model, video, view, pairs) == max(each)


def test_held_out_pairs_and_a_probe_of_them_are_evaluated_also_at_the_end(world, tmp_path: Path) -> None:
    params = changed(world.params, evaluate_every_steps=3, learning_rate=1e-3)
    found = train_on_pairs(
        world.pairs[:4], world.videos, world.folder, world.base, params, tmp_path, held_out=world.pairs[4:]
    )
    evaluated = [entry for entry in found.history if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluated] == [3, 4]
    for entry in evaluated:
        terms = entry["eval_loss/preference"] + params.sft_alpha * entry["eval_loss/sft"]
        assert entry["eval_loss"] == pytest.approx(terms, abs=1e-5)
        assert entry["eval_probe_accuracy"] in (0, 0.5, 1)
        assert {"eval_rewards/margins", "eval_drift/chosen", "eval_comprehensive/accuracies"} <= entry.keys()
    assert len(steps_of(found.history)) == 4


def test_curves_are_in_mlflow_while_it_trains_and_whole_after_a_stop(world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(None)
    params = changed(world.params, save_every_steps=2)
    seen: list[int] = []
    usual = VideoDPOTrainer.training_step

    def train_in(run_id: str) -> Trained:
        return train(world, tmp_path / "work", params, held_out=world.pairs[:1], mlflow_run_id=run_id)

    def curve(run_id: str, name: str) -> list[tuple[int, float]]:
        return sorted((point.step, point.value) for point in mlflow.MlflowClient().get_metric_history(run_id, name))

    first, second = (mlflow.MlflowClient().create_run("0").info.run_id for _ in range(2))

    def step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(curve(first, "loss")))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return usual(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(VideoDPOTrainer, "training_step", step)
        with pytest.raises(KeyboardInterrupt):
            train_in(first)
    assert seen == [0, 1, 2, 3]
    found = train_in(second)
    for name in ("loss", "rewards/margins", "comprehensive/margins", "tokens_per_second", "device_hours"):
        expected = {entry["step"]: entry[name] for entry in found.history if name in entry}
        assert dict(curve(second, name)) == pytest.approx(expected), name
        assert len(expected) == 6
    hours = [value for _, value in curve(second, "device_hours")]
    assert hours == sorted(hours)
    assert [step for step, _ in curve(second, "eval_loss")] == [2, 4, 6]
    assert [step for step, _ in curve(second, "eval_probe_accuracy")] == [2, 4, 6]


def test_an_mlflow_server_that_is_away_does_not_stop_training(world, tmp_path: Path, monkeypatch, caplog) -> None:
    mlflow.set_tracking_uri(None)  # first: it clears the environment's too, if an earlier test had set one
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = train(world, tmp_path, world.params, mlflow_run_id="0" * 32)
    assert caplog.text.count("MLflow takes no curves for now, and gets them later") == 1
    assert len(steps_of(found.history)) == 6


def test_an_mlflow_server_that_is_away_is_waited_for_a_tenth_of_the_time_at_most(
    world, tmp_path: Path, monkeypatch
) -> None:
    tried: list[int] = []

    def log_batch(_: Any, run_id: str, metrics: Any) -> None:
        tried.append(len({point.step for point in metrics}))
        time.sleep(3)
        raise mlflow.exceptions.MlflowException("away")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    train(world, tmp_path, world.params, mlflow_run_id="0" * 32)
    assert tried == [1, 6], "at the first step, and all of them at the end"


def test_a_probe_asks_for_the_chosen_answer_among_others(world) -> None:
    probe = make_probe(world.pairs, 4, world.videos, world.folder)
    assert probe is not None
    assert [pair.id for pair, _ in probe.questions] == ["pair0", "pair1", "pair2", "pair3"]
    for pair, options in probe.questions:
        assert options[:2] == (pair.chosen, pair.rejected)
        assert len(set(options)) == 4

    class Knows:
        """Says that chosen answers are probable, if it is right, or those of other pairs."""

        def __init__(self, right: int) -> None:
            self.right = right

        def answer_ids(self, text: str) -> list[str]:
            return text.split()

        def answer_logprobs(self, _: Any, __: str, options: Any) -> list[float]:
            return [len(o.split()) * (-1.0 if place == self.right else -2.0) for place, o in enumerate(options)]

    assert [probe.accuracy(Knows(right)) for right in (0, 1)] == [1, 0]
    gone = make_probe(world.pairs, 4, world.videos, VideoFolder(world.folder.root / "gone", world.folder.index_dir))
    assert gone is not None
    with pytest.raises(UserError, match=r"The video of pair pair0 can no longer be decoded: 0\.mp4: "):
        gone.accuracy(Knows(0))
    assert make_probe([], 4, world.videos, world.folder) is None


def test_the_checkpoint_with_the_least_loss_on_held_out_pairs_is_kept(world, tmp_path: Path) -> None:
    """Held out: the training pairs turned around, so that training makes their loss worse."""
    turned = ({"id": f"x{p.id}", "chosen": p.rejected, "rejected": p.chosen} for p in world.pairs)
    held_out = [p.model_copy(update=changes) for p, changes in zip(world.pairs, turned, strict=True)]
    params = changed(world.params, sft_alpha=0, save_every_steps=2, keep="best", num_epochs=2)
    best = train(world, tmp_path / "best", params, held_out=held_out)
    last = train(world, tmp_path / "last", changed(params, keep="last"), held_out=held_out)
    losses = {entry["step"]: entry["eval_loss"] for entry in best.history if "eval_loss" in entry}
    saved = min(losses, key=losses.__getitem__)
    assert saved < 12
    (folder,) = (tmp_path / "best").glob(f"*/checkpoint-{saved}")
    expected = LlavaOf(folder).state_dict()
    found = best.model.model.state_dict()
    assert all(torch.equal(found[name], weights) for name, weights in expected.items())
    assert any(not torch.equal(weights, found[name]) for name, weights in last.model.model.state_dict().items())


def LlavaOf(folder: Path) -> Any:  # noqa: N802
    from transformers import LlavaOnevisionForConditionalGeneration

    return LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def test_training_stops_when_chosen_answers_get_improbable(world, tmp_path: Path) -> None:
    params = changed(world.params, sft_alpha=0, learning_rate=3e-2, num_epochs=4, max_chosen_drop=0.5)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError, match=r"stopped at step \d+: chosen answers have lost \d\.\d\d nats a token"):
        train(world, tmp_path, params)
    assert signal.getsignal(signal.SIGTERM) is before, "nobody would end at SIGTERM who waits for a step's end"


@pytest.mark.slow
def test_on_sigterm_a_run_saves_and_goes_on_later_to_the_very_same_weights(world, tmp_path: Path) -> None:
    params = changed(world.params, num_epochs=5, save_every_steps=1000)
    work = tmp_path / "work"
    child = start_in_child(world, params, work, tmp_path)
    try:
        deadline = time.monotonic() + 100
        while "steps/s]" not in (tmp_path / "stderr.txt").read_text():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == -signal.SIGTERM
    finally:
        child.kill()
    saved = [int(folder.name.split("-")[1]) for folder in work.glob("*/checkpoint-*")]
    assert len(saved) == 1
    assert 0 < saved[0] < 30
    found = train(world, work, params)
    whole = train(world, tmp_path / "whole", params)
    assert steps_of(found.history) == steps_of(whole.history)
    expected = whole.model.model.state_dict()
    assert all(torch.equal(weights, expected[name]) for name, weights in found.model.model.state_dict().items())


def test_out_of_memory_names_the_pairs_and_what_takes_less(world, tmp_path: Path, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore.")

    monkeypatch.setattr("tpo.training.trainer.VideoDPOTrainer._trl_loss", full)
    with pytest.raises(UserError, match=r"Out of memory with the row of pairs? .*pair\d.* 20 GiB\. Show fewer frames"):
        train(world, tmp_path, world.params)


def test_out_of_memory_before_the_first_row_says_what_takes_less_too(world, tmp_path: Path, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore.")

    monkeypatch.setattr("tpo.training.run.reference_scores", full)
    with pytest.raises(UserError, match=r"Out of memory before or between training rows: .* 20 GiB\. Show fewer"):
        train(world, tmp_path, world.params)


def test_an_adapter_that_hits_the_tower_is_refused(world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tpo.models.llava_onevision.LlavaOnevision.lora_targets", ["q_proj"])
    params = changed(world.params, lora=LoraParams(r=2, alpha=4).model_dump())
    with pytest.raises(UserError, match=r"The vision tower would be trained: .*vision_tower.*q_proj\.lora_A"):
        train(world, tmp_path, params)


def test_the_longest_row_is_tried_first_and_changes_nothing(world, tmp_path: Path, capsys) -> None:
    train(world, tmp_path, changed(world.params, pairs_per_step=3, pairs_per_device=3))
    model = load(world)
    rows = PairRows(world.pairs, VideoFeatures(model, world.videos, world.folder), model, "video")
    longest = max(rows.row(numbers, torch.device("cpu"))[0].num_tokens for numbers in ([0, 2, 4], [1, 3, 5]))
    assert f"train: the longest row has {longest} tokens; by arithmetic" in capsys.readouterr().out


def test_memory_of_a_7b_with_an_adapter_is_estimated_as_by_hand(tmp_path: Path) -> None:
    """96 frames, LoRA r 64, checkpointing: about 30 GB, facts of LLaVA-Video-7B's shape."""
    from peft import LoraConfig, get_peft_model

    config = LlavaVideoConfig(
        vision_config=SiglipVisionConfig(
            image_size=384, patch_size=14, vision_use_head=False, hidden_size=1152, intermediate_size=4304,
            num_hidden_layers=26, num_attention_heads=16,
        ),
        text_config=Qwen2Config(
            vocab_size=152_064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
            num_attention_heads=28, num_key_value_heads=4,
        ),
    )  # fmt: skip
    with torch.device("meta"):
        model = LlavaVideoForConditionalGeneration(config).bfloat16()
        adapted = get_peft_model(model, LoraConfig(r=64, target_modules=LlavaVideo.lora_targets))
    policy = VideoLMM("", tmp_path, adapted, None, None, "", time_instruction=False, max_tokens=0)  # type: ignore[arg-type]
    found = estimate_memory(policy, 96 * 210 + 200, torch.bfloat16, checkpointing=True)
    assert found.weights / 1e9 == pytest.approx(16.5, abs=0.8)
    assert found.activations / 1e9 == pytest.approx(10, abs=2)
    assert 26e9 < found.total < 40e9
    assert "GB (weights 16, training" in str(found) or "GB (weights 17, training" in str(found)
    assert estimate_memory(policy, 96 * 210 + 200, torch.bfloat16, checkpointing=False).total > 80e9
    # All weights of the decoder in float32, computed in bfloat16: 122 GB of weights, gradients and moments, and copies.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision_tower" not in name and "lora_" not in name)
    policy.model = model.float()
    full = estimate_memory(policy, 96 * 210 + 200, torch.bfloat16, checkpointing=True)
    assert (full.weights + full.training) / 1e9 == pytest.approx(122 + 15, abs=3)
    assert full.activations < 2 * found.activations
