"""The trainer that shares prefixes against TRL's own two rows for each pair: the same losses, the same steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tpo.training.trainer
from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import LoraParams, TrainParams
from tpo.records import Granularity
from tpo.replies import ReplyCache
from tpo.training.branches import branching
from tpo.training.collator import VideoPairCollator, number_pairs
from tpo.training.features import VideoFeatures
from tpo.training.reference import reference_scores
from tpo.training.rows import PairRows
from tpo.training.run import history_csv, train_on_pairs
from tpo.training.scoring import add_row_scoring
from tpo.training.settings import lora_config, video_dpo_config
from tpo.training.trainer import VideoDPOTrainer

CPU = torch.device("cpu")
LORA = LoraParams(r=4, alpha=8)


def changed(params: TrainParams, **changes: Any) -> TrainParams:
    return TrainParams.model_validate(params.model_dump() | changes)


def shaken(world) -> VideoLMM:
    """In float64, and moved away from its reference."""
    model = load_model(world.base)
    model.model.double()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            parameter.requires_grad_("vision_tower" not in name)
            if "language_model" in name:
                parameter += 0.05 * torch.randn_like(parameter)
    return model


def base_of(world) -> VideoLMM:
    model = load_model(world.base)
    model.model.double()
    return model


def shared_trainer(world, folder: Path, params: TrainParams, **settings: Any) -> VideoDPOTrainer:
    reference, policy = base_of(world), shaken(world)
    rows = PairRows(world.pairs, VideoFeatures(policy, world.videos, world.folder), policy, params.sharing)
    add_row_scoring(reference.model, reference.family)
    with branching(reference.model):
        scores = reference_scores(reference, rows, ReplyCache(folder / "reference.sqlite"), CPU)
    args = video_dpo_config(params, folder, "cpu")
    for name, value in settings.items():
        setattr(args, name, value)
    trainer = VideoDPOTrainer(
        policy, rows=rows, args=args, train_dataset=number_pairs(world.pairs, policy), data_collator=rows.collate,
        processing_class=policy.tokenizer,
    )  # fmt: skip
    trainer.use_reference(scores)
    return trainer


def plain_trainer(world, folder: Path, params: TrainParams, **settings: Any) -> VideoDPOTrainer:
    policy = shaken(world)
    args = video_dpo_config(changed(params, sharing="none"), folder, "cpu")
    for name, value in settings.items():
        setattr(args, name, value)
    return VideoDPOTrainer(
        policy, ref_model=base_of(world).model, args=args, train_dataset=number_pairs(world.pairs, policy),
        data_collator=in_double(VideoPairCollator(world.pairs, world.videos, world.folder, policy)),
        processing_class=policy.tokenizer,
    )  # fmt: skip


def in_double(collate: Callable[[list[Any]], dict[str, torch.Tensor]]) -> Callable[[list[Any]], dict[str, Any]]:
    def collated(rows: list[Any]) -> dict[str, Any]:
        batch = collate(rows)
        return batch | {"pixel_values_videos": batch["pixel_values_videos"].double()}

    return collated


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def loss_and_gradients(trainer: VideoDPOTrainer, numbers: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
    """Of one batch, as the trainer makes them."""
    trainer.model.train()
    trainer.model.zero_grad()
    batch = trainer.data_collator([trainer.train_dataset[number] for number in numbers])
    with trainer._branching():  # as in `train`
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
    return float(loss.detach()), gradients(trainer.model)


@pytest.mark.parametrize("number", range(3))
def test_loss_and_gradients_of_a_pair_are_those_of_trls_sigmoid_and_sft(world, tmp_path: Path, number: int) -> None:
    params = changed(world.params, beta=0.3, sft_alpha=0.7)
    loss, found = loss_and_gradients(shared_trainer(world, tmp_path, params), [number])
    plain = plain_trainer(world, tmp_path, params)
    assert plain.loss_types == ["sigmoid", "sft"]
    plain_loss, expected = loss_and_gradients(plain, [number])
    assert loss == pytest.approx(plain_loss, abs=1e-6)  # TRL's log-softmax is in float32
    trained = [name for name in expected if name in found and "vision_tower" not in name]
    assert len(trained) > 40
    for name in trained:
        off = (found[name] - expected[name]).norm() / expected[name].norm().clamp_min(1e-9)
        assert float(off) < 1e-5, name
    assert not [name for name in found if "vision_tower" in name]


TRL_LOSSES = [
    {"loss_type": "hinge"},
    {"loss_type": "ipo"},
    {"loss_type": "exo_pair", "label_smoothing": 1e-3},
    {"loss_type": "nca_pair"},
    {"loss_type": "robust", "label_smoothing": 0.1},
    {"loss_type": "bco_pair"},
    {"loss_type": "sppo_hard"},
    {"loss_type": "aot"},
    {"loss_type": "apo_zero"},
    {"loss_type": "apo_down"},
    {"loss_type": "discopop"},
    {"loss_type": "sigmoid_norm"},
    {"loss_type": "sigmoid", "ld_alpha": 0.5},
    {"loss_type": "sigmoid", "use_weighting": True},
    {"loss_type": "sigmoid", "f_divergence_type": "js_divergence"},
]


@pytest.mark.parametrize("settings", TRL_LOSSES, ids=lambda one: "-".join(map(str, one.values())))
def test_every_other_loss_of_trls_is_the_same(world, tmp_path: Path, settings: dict[str, Any]) -> None:
    wanted = settings | {"loss_type": [settings["loss_type"]], "loss_weights": [1.0]}
    params = changed(world.params, sft_alpha=0.0)
    together = [0, 2, 4]  # one video's, so that they are one row
    loss, found = loss_and_gradients(shared_trainer(world, tmp_path, params, **wanted), together)
    plain_loss, expected = loss_and_gradients(plain_trainer(world, tmp_path, params, **wanted), together)
    assert loss == pytest.approx(plain_loss, rel=1e-6)
    name = next(name for name in found if "layers.0.self_attn.q_proj.weight" in name and "language" in name)
    assert float((found[name] - expected[name]).norm() / expected[name].norm()) < 1e-5


def test_sft_is_a_mean_over_pairs_of_means_over_tokens(world, tmp_path: Path) -> None:
    """Where TRL's own would weigh long answers more."""
    params = changed(world.params, dpo_weight=0.0, sft_alpha=1.0)
    trainer = shared_trainer(world, tmp_path, params)
    together, _ = loss_and_gradients(trainer, [0, 1, 2, 3])
    apart = [loss_and_gradients(trainer, [number])[0] for number in range(4)]
    assert together == pytest.approx(sum(apart) / 4, abs=1e-9)
    assert loss_and_gradients(plain_trainer(world, tmp_path, params), [0, 1, 2, 3])[0] != pytest.approx(
        together, abs=1e-3
    )


def test_swapping_chosen_and_rejected_turns_the_margin_around(world, tmp_path: Path) -> None:
    pairs = [p.model_copy(update={"chosen": p.rejected, "rejected": p.chosen}) for p in world.pairs]
    other = world.__class__(**vars(world) | {"pairs": pairs})
    margins = []
    for place, one in enumerate((world, other)):
        trainer = shared_trainer(one, tmp_path / str(place), changed(world.params, sft_alpha=0.0))
        loss_and_gradients(trainer, [0, 1, 2])
        margins.append(trainer._means["train"].take()["rewards/margins"])
    assert margins[0] == pytest.approx(-margins[1], abs=1e-9)
    assert abs(margins[0]) > 1e-3


def one_step(world, folder: Path, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """The gradient of one optimizer step over all six pairs, and the loss that is logged for it."""
    params = changed(world.params, pairs_per_step=6, **changes)
    trainer = shared_trainer(world, folder, params)
    kept: dict[str, torch.Tensor] = {}
    trainer.args.max_grad_norm = 0
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(lambda *_: kept.update(gradients(trainer.model)))
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry), kept


def test_an_optimizer_step_is_the_same_however_its_pairs_are_split(world, tmp_path: Path) -> None:
    expected_loss, expected = one_step(world, tmp_path / "whole", pairs_per_device=6)
    splits = [
        {"pairs_per_device": 1},
        {"pairs_per_device": 2},
        {"pairs_per_device": 3, "pairs_per_video": 2},
        {"pairs_per_device": 6, "sharing": "pair"},
        {"pairs_per_device": 6, "gradient_checkpointing": True},
    ]
    for place, split in enumerate(splits):
        loss, found = one_step(world, tmp_path / str(place), **split)
        assert loss == pytest.approx(expected_loss, abs=1e-6), split  # summed up in float32
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            off = (found[name] - gradient).norm() / gradient.norm().clamp_min(1e-9)
            assert float(off) < 1e-6, (split, name)


def test_terms_drift_and_lengths_are_logged_over_all_pairs_and_by_granularity(world, tmp_path: Path) -> None:
    of = [Granularity.LOCALIZED, None, *[Granularity.COMPREHENSIVE] * 4]  # None: pairs from elsewhere
    pairs = [p.model_copy(update={"granularity": one}) for p, one in zip(world.pairs, of, strict=True)]
    params = changed(world.params, pairs_per_step=3, pairs_per_device=3, learning_rate=1e-3)
    _, history, *_ = train_on_pairs(pairs, world.videos, world.folder, world.base, params, tmp_path)
    first, second = [entry for entry in history if "loss" in entry]
    assert first["loss"] == pytest.approx(first["loss/preference"] + params.sft_alpha * first["loss/sft"], abs=1e-6)
    assert first["drift/chosen"] == pytest.approx(0, abs=1e-4)
    assert second["drift/chosen"] > 0
    both = [
        f"{of}/{what}" for of in ("localized", "comprehensive") for what in ("margins", "accuracies", "drift/chosen")
    ]
    assert {*both, "tokens/chosen", "tokens/rejected", "rewards/margins", "logps/chosen", "grad_norm"} <= {
        *first,
        *second,
    }
    header = history_csv(history).splitlines()[0].split(",")
    assert {"loss/preference", "loss/sft", "localized/margins", "comprehensive/margins"} <= set(header)
    assert not [name for name in (*first, *second) if "None" in name]
    assert first["tokens"] > 0
    assert "train_loss" in history[-1]
    assert "tokens" not in history[-1], "it is no step"


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_pairs(world, tmp_path: Path) -> None:
    params = changed(world.params, learning_rate=1e30, pairs_per_step=1)
    with pytest.raises(UserError, match=r"The loss of pair pair\d is not finite, at step [1-5]\. Lower"):
        train_on_pairs(world.pairs, world.videos, world.folder, world.base, params, tmp_path)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_in_a_checkpoint(
    world, tmp_path: Path, monkeypatch
) -> None:
    usual = VideoDPOTrainer._trl_loss

    def steep(trainer: Any, scores: Any, *args: Any) -> Any:
        loss, metrics = usual(trainer, scores, *args)
        total = scores.log_probs.sum()
        return loss + (total - total.detach()).sqrt(), metrics  # nothing, with an infinite slope

    monkeypatch.setattr(VideoDPOTrainer, "_trl_loss", steep)
    params = changed(world.params, save_every_steps=1)
    with pytest.raises(UserError, match=r"The gradient of step 1 is not finite, though its loss was\. Lower"):
        train_on_pairs(world.pairs, world.videos, world.folder, world.base, params, tmp_path)
    assert not list(tmp_path.glob("*/checkpoint-*"))


def test_a_dry_step_leaves_nothing_behind(world, tmp_path: Path) -> None:
    trainer = shared_trainer(world, tmp_path, world.params)
    before = {name: weights.clone() for name, weights in trainer.model.state_dict().items()}
    trainer.dry_step([0, 2, 4])
    assert all(torch.equal(weights, before[name]) for name, weights in trainer.model.state_dict().items())
    assert not gradients(trainer.model)
    assert (trainer._means["train"].take(), trainer._num_tokens) == ({}, 0)


def test_adapters_on_four_bits_are_trained_in_float32(world, tmp_path: Path) -> None:
    """TRL makes them bfloat16, to which a step of 2e-5 adds nothing where weights are larger than 0.01."""
    policy = load_model(world.base)
    policy.model.is_loaded_in_4bit = True
    params = changed(world.params, lora=LORA.model_dump())
    rows = PairRows(world.pairs, VideoFeatures(policy, world.videos, world.folder), policy, "video")
    trainer = VideoDPOTrainer(
        policy, rows=rows, args=video_dpo_config(params, tmp_path, "cpu"), data_collator=rows.collate,
        train_dataset=number_pairs(world.pairs, policy), processing_class=policy.tokenizer,
        peft_config=lora_config(policy, world.base, params),
    )  # fmt: skip
    trained = {name: weights.dtype for name, weights in trainer.model.named_parameters() if weights.requires_grad}
    assert all("lora_" in name for name in trained)
    assert set(trained.values()) == {torch.float32}


def test_processes_run_as_many_rows_in_evaluation_too(world, tmp_path: Path, monkeypatch) -> None:
    """Where weights are in parts, all run a row together: one that runs a row more waits for the others forever."""
    trainer = shared_trainer(world, tmp_path, world.params)
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[number] for number in (0, 2)])

    def loss() -> float:
        with torch.no_grad(), trainer._branching():
            return float(trainer.compute_loss(trainer.model, batch))

    alone = loss()
    counted = Counted(monkeypatch)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
    monkeypatch.setattr(trainer.accelerator, "gather", lambda rows: torch.cat([rows, rows + 2]))
    assert loss() == alone
    assert counted.rows == 3


def test_weights_in_parts_are_loaded_by_the_library(world, tmp_path: Path, monkeypatch) -> None:
    trainer, asked = shared_trainer(world, tmp_path, world.params), []
    monkeypatch.setattr("transformers.Trainer._load_from_checkpoint", lambda _, *args: asked.append(args))
    trainer.is_fsdp_enabled = True
    trainer._load_from_checkpoint("checkpoint-1", "wrapped")
    assert asked == [("checkpoint-1", "wrapped")]


def test_sharing_with_context_parallelism_is_refused_with_the_reason(world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(VideoDPOTrainer, "get_cp_size", lambda _: 2)
    with pytest.raises(UserError, match="an answer would see the others"):
        shared_trainer(world, tmp_path, world.params)


def test_a_decoder_that_cannot_share_is_refused_with_what_to_set(world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tpo.training.branches._CAN_BRANCH", ("llama",))
    with pytest.raises(UserError, match="cannot share a prefix: exact for llama with full"):
        shared_trainer(world, tmp_path, world.params)


def test_no_dropout_makes_noise_that_branches_would_share(world, tmp_path: Path) -> None:
    trainer = shared_trainer(world, tmp_path, world.params)
    trainer.model.config.get_text_config().attention_dropout = 0.9
    for module in trainer.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.9
    first, second = (loss_and_gradients(trainer, [0, 2])[0] for _ in range(2))
    assert first == second
    config = lora_config(load_model(world.base), world.base, changed(world.params, lora=LORA.model_dump()))
    assert config.lora_dropout == 0


def test_trls_own_way_trains_on_every_pair_once_and_evaluates(world, tmp_path: Path) -> None:
    params = changed(world.params, sharing="none", pairs_per_step=2, pairs_per_device=2)
    found = train_on_pairs(
        world.pairs[:4], world.videos, world.folder, world.base, params, tmp_path, held_out=world.pairs[4:]
    )
    assert [entry["step"] for entry in found.history if "loss" in entry] == [1, 2]
    assert [entry["step"] for entry in found.history if "eval_loss" in entry] == [2]


@pytest.mark.parametrize(
    ("sharing", "most", "expected"), [("video", 2, [2, 1, 2, 1]), ("video", 9, [3, 3]), ("pair", 9, [1] * 6)]
)
def test_a_row_holds_no_more_pairs_of_a_video_than_allowed(world, sharing: Any, most: int, expected: list[int]) -> None:
    model = base_of(world)
    rows = PairRows(world.pairs, VideoFeatures(model, world.videos, world.folder), model, sharing, most)
    groups = rows.groups(range(6))
    assert [len(group) for group in groups] == expected
    assert sorted(number for group in groups for number in group) == list(range(6))


class Counted:
    """How often a model's row was scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows, usual = 0, PairRows.row

        def row(*args: Any) -> Any:
            self.rows += 1
            return usual(*args)

        monkeypatch.setattr(PairRows, "row", row)


def curves(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """What was logged for each step, but for how long it took."""
    clocks = ("tokens_per_second", "device_hours")
    return [{k: v for k, v in entry.items() if k not in clocks} for entry in history if "loss" in entry]


def stopped_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, done = tpo.training.trainer.VideoDPOTrainer.training_step, [0]

    def step(*args: Any, **kwargs: Any) -> Any:
        if done[0] == steps:
            raise KeyboardInterrupt
        done[0] += 1
        return usual(*args, **kwargs)

    monkeypatch.setattr(tpo.training.trainer.VideoDPOTrainer, "training_step", step)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_run_that_was_stopped_goes_on_to_the_very_same_weights(world, tmp_path: Path, lora, monkeypatch) -> None:
    params = changed(world.params, save_every_steps=1, num_epochs=2, lora=lora and lora.model_dump())

    def train(folder: str) -> tuple[VideoLMM, list[dict[str, float]]]:
        return train_on_pairs(world.pairs, world.videos, world.folder, world.base, params, tmp_path / folder)[:2]

    whole, whole_history = train("whole")
    with monkeypatch.context() as patch:
        stopped_after(8, patch)
        with pytest.raises(KeyboardInterrupt):
            train("work")
    assert [folder.name for folder in (tmp_path / "work").glob("*/checkpoint-*")] == ["checkpoint-8"]
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        tuned, history = train("work")
        assert counted.rows == 3 + 4, "self-check, dry step, and the steps left; nothing skipped is read again"
    for one, other in zip(curves(history), curves(whole_history), strict=True):
        assert one == other
    expected = whole.model.state_dict()
    assert all(torch.equal(weights, expected[name]) for name, weights in tuned.model.state_dict().items())
