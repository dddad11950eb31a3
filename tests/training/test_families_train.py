"""Every family trains: one optimizer step on real pairs, from and to folders on disk."""

from pathlib import Path

import pytest
import torch
from tiny import FAMILIES, load, params, save_tiny

from tpo.params import LoraParams
from tpo.training.collator import VideoPairCollator, number_pairs
from tpo.training.run import train_on_pairs


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(request.param, tmp_path_factory.mktemp("base") / request.param)


def test_the_batch_that_is_trained_on_scores_as_evaluation_does(world, base: Path) -> None:
    model = load(base)
    rows = number_pairs(world.pairs, model)
    batch = VideoPairCollator(world.pairs, world.videos, world.folder, model)([rows[0], rows[1], rows[2]])
    completion = batch.pop("completion_mask")[:, 1:]
    with torch.no_grad():
        logprobs = model.model(**batch).logits[:, :-1].log_softmax(-1)
    found = (logprobs.gather(-1, batch["input_ids"][:, 1:, None])[..., 0] * completion).sum(dim=1)
    expected = [
        model.answer_logprobs(
            world.folder.frames(world.videos[pair.video_id].path, pair.view), pair.question, [getattr(pair, side)]
        )[0]
        for side in ("chosen", "rejected")
        for pair in world.pairs[:3]
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("lora", [None, LoraParams(r=2, alpha=4)])
def test_a_step_of_training_moves_the_decoder_and_never_the_tower(
    world, base: Path, tmp_path: Path, lora: LoraParams | None
) -> None:
    settings = world.params.model_copy(update={"pairs_per_step": 6, "pairs_per_device": 3, "lora": lora})
    tuned, history, *_ = train_on_pairs(
        world.pairs, world.videos, world.folder, params(base), settings, tmp_path / "work"
    )
    assert history[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    tuned.save(tmp_path / "tuned")
    before, after = load(base), load(tmp_path / "tuned")
    weights = before.model.state_dict()
    moved = {n for n, w in after.model.state_dict().items() if not torch.equal(w, weights[n])}
    assert [name for name in moved if "language_model.layers.1." in name]
    assert not [name for name in moved if "vision_tower" in name or "visual" in name]
    if lora is not None:
        assert all("lora_" in name for name, weight in tuned.model.named_parameters() if weight.requires_grad)
        assert all("language_model.layers" in name for name in moved)
    frames = world.folder.frames(world.videos[world.pairs[0].video_id].path, world.pairs[0].view)
    scores = [m.answer_logprobs(frames, "What comes first?", ["a red star"]) for m in (before, after)]
    assert scores[0] != scores[1]


@pytest.mark.parametrize("lora", [None, LoraParams(r=2, alpha=4)], ids=["full", "lora"])
def test_in_bfloat16_what_is_trained_is_float32_and_saved_as_the_base_is(
    world, base: Path, tmp_path: Path, lora: LoraParams | None
) -> None:
    """A step of 4e-6 is less than bfloat16 can add to most weights."""
    changes = {"pairs_per_step": 6, "pairs_per_device": 3, "lora": lora, "num_epochs": 4, "learning_rate": 3e-3}
    settings = world.params.model_copy(update=changes)
    found = train_on_pairs(
        world.pairs, world.videos, world.folder, params(base, dtype="bfloat16"), settings, tmp_path / "work"
    )
    moments = [state["exp_avg"].dtype for state in found.trainer.optimizer.state.values()]
    assert set(moments) == {torch.float32}
    steps = [entry for entry in found.history if "loss" in entry]
    assert steps[0]["drift/chosen"] == pytest.approx(0, abs=1e-2), "the reference rounds as training does"
    assert steps[-1]["rewards/margins"] > steps[0]["rewards/margins"] + 0.01
    found.save(tmp_path / "tuned")
    saved = load(tmp_path / "tuned", dtype="bfloat16").model.state_dict()
    before = load(base, dtype="bfloat16").model.state_dict()
    assert {weights.dtype for weights in found.model.bare.state_dict().values()} <= {torch.bfloat16, torch.float32}
    assert any(not torch.equal(saved[name], before[name]) for name in before if "language_model.layers" in name)
    assert all(torch.equal(saved[name], before[name]) for name in before if "vision_tower" in name or "visual" in name)
