"""Rows that share a video's prefix against rows of their own, in float64: what sharing must not change is nothing."""

import random
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from tiny import FAMILIES, load, save_tiny
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tpo.errors import UserError
from tpo.models.video_lmm import VideoLMM
from tpo.params import LoraParams
from tpo.records import PreferencePair
from tpo.training.branches import Branches, branching, check_can_branch
from tpo.training.collator import VideoPairCollator
from tpo.training.features import VideoFeatures
from tpo.training.rows import PairRows, build_row
from tpo.training.scoring import add_row_scoring, score_tokens
from tpo.training.self_check import check_sharing
from tpo.training.settings import lora_config

ASKED = [
    ("What comes right after the moon ?", "a red star", "a blue moon"),
    ("What comes first ?", "red", "a green ring, then a white heart"),
    ("What comes right after the moon and the star and the heart ?", "a red star, then a yellow plus", "blue"),
    ("How many ?", "a red star", "a red moon"),
]


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(request.param, tmp_path_factory.mktemp("base") / request.param)


@pytest.fixture(scope="module")
def one_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llava_onevision", tmp_path_factory.mktemp("base") / "llava_onevision")


def pairs_of(world, count: int) -> list[PreferencePair]:
    """Pairs about one video, with questions and answers of unequal lengths."""
    return [
        world.pairs[0].model_copy(update={"id": f"p{n}", "question": question, "chosen": chosen, "rejected": rejected})
        for n, (question, chosen, rejected) in enumerate(ASKED[:count])
    ]


def policy(base: Path, *, lora: bool, checkpointing: bool) -> VideoLMM:
    """Everything that TPO trains is trainable; an adapter has weights that change what is said."""
    model = load(base)
    model.model.double()
    add_row_scoring(model.model, model.family)
    if lora:
        config = lora_config(model, TrainBase, TrainLora)
        torch.manual_seed(0)
        model.model = get_peft_model(model.model, config)
        for name, parameter in model.model.named_parameters():
            if "lora_" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
        model.model.enable_input_require_grads()
    else:
        for name, parameter in model.model.named_parameters():
            parameter.requires_grad_(any(part in name for part in model.family.trained))
    if checkpointing:
        model.bare.activation_checkpointing_enable({"use_reentrant": False})
    model.model.train()
    return model


class TrainBase:
    base, revision = "", None


class TrainLora:
    lora = LoraParams(r=2, alpha=4)


def rows_of(world, model: VideoLMM, pairs: list[PreferencePair]) -> PairRows:
    return PairRows(pairs, VideoFeatures(model, world.videos, world.folder), model, "video")


def shared_answers(rows: PairRows, model: VideoLMM, numbers: list[int]) -> list[torch.Tensor]:
    """Log-probabilities of each answer's tokens: the chosen ones, then the rejected ones."""
    row, encoded = rows.row(numbers, torch.device("cpu"))
    with branching(model.bare):
        return list(model.model(row=row, encoded=encoded).log_probs.split(row.lengths))


def plain_answers(world, model: VideoLMM, pairs: list[PreferencePair]) -> list[torch.Tensor]:
    """The same by the library alone: pixels in, two padded rows for each pair, logits of everything out."""
    batch = VideoPairCollator(pairs, world.videos, world.folder, model)([{"pair": n} for n in range(len(pairs))])
    mask = batch.pop("completion_mask")[:, 1:].bool()
    batch["pixel_values_videos"] = batch["pixel_values_videos"].double()
    log_probs = model.model(**batch, use_cache=False).logits[:, :-1].log_softmax(-1)
    log_probs = log_probs.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return [row[of] for row, of in zip(log_probs, mask, strict=True)]


def gradients(model: VideoLMM, answers: list[torch.Tensor], weights: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    model.model.zero_grad()
    sum((answer * weight).sum() for answer, weight in zip(answers, weights, strict=True)).backward()
    return {n: p.grad.clone() for n, p in model.model.named_parameters() if p.requires_grad and p.grad is not None}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["stored", "checkpointed"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_shared_and_separate_rows_have_the_same_log_probabilities_and_gradients(
    world, base: Path, lora: bool, checkpointing: bool, count: int
) -> None:
    model, pairs = policy(base, lora=lora, checkpointing=checkpointing), pairs_of(world, count)
    torch.manual_seed(1)
    shared = shared_answers(rows_of(world, model, pairs), model, list(range(count)))
    plain = plain_answers(world, model, pairs)
    weights = [torch.randn_like(answer) for answer in plain]
    for one, other in zip(shared, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    with branching(model.bare):
        found = gradients(model, shared, weights)
    expected = gradients(model, plain, weights)
    assert found.keys() == expected.keys()
    assert any("language_model.layers.0" in name for name in found)
    if not lora and "qwen" not in base.name:
        assert any("multi_modal_projector" in name for name in found)
    for name, gradient in expected.items():
        off = float((found[name] - gradient).norm() / gradient.norm().clamp_min(1e-12))
        assert off < 1e-6, (name, off)
        assert float(gradient.norm()) > 0, name


def test_no_pair_depends_on_its_neighbours_in_the_row(world, base: Path) -> None:
    model, pairs = policy(base, lora=False, checkpointing=False), pairs_of(world, 4)
    rows = rows_of(world, model, pairs)
    alone = [shared_answers(rows, model, [number]) for number in range(4)]
    for order in random.Random(0).sample(list(permutations(range(4))), 6):
        answers = shared_answers(rows, model, list(order))
        for place, number in enumerate(order):
            torch.testing.assert_close(answers[place], alone[number][0], rtol=0, atol=1e-9)
            torch.testing.assert_close(answers[place + 4], alone[number][1], rtol=0, atol=1e-9)


def test_a_blind_row_scores_otherwise(world, base: Path) -> None:
    model, pairs = policy(base, lora=False, checkpointing=False), pairs_of(world, 2)
    rows = rows_of(world, model, pairs)
    row, encoded = rows.row([0, 1], torch.device("cpu"))
    with branching(model.bare):
        seen = model.model(row=row, encoded=encoded).log_probs
        blind = model.model(row=row, encoded=[torch.zeros_like(one) for one in encoded]).log_probs
    assert float((seen - blind).abs().mean()) > 1e-3


def test_the_self_check_passes_on_every_family(world, base: Path) -> None:
    model = policy(base, lora=False, checkpointing=False)
    check_sharing(model, rows_of(world, model, pairs_of(world, 4)), [0, 1, 2, 3])


def positions_that_go_on(model: VideoLMM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hazard 2: branches counted on behind each other instead of each from the prefix's end."""

    def wrong(*args: Any) -> Any:
        row = build_row(*args)
        return row.__class__(**vars(row) | {"positions": torch.arange(row.num_tokens)[None]})

    monkeypatch.setattr("tpo.training.rows.build_row", wrong)


def branches_that_see_each_other(model: VideoLMM, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_causal_row(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        del kwargs["branches"]
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    AttentionInterface.register("test_one_causal_row", one_causal_row)
    monkeypatch.setattr("tpo.training.branches._NAME", "test_one_causal_row")


def packed_documents(model: VideoLMM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hazard 1: the library's own attention takes positions that begin again for another document."""
    monkeypatch.setattr("tpo.training.branches._NAME", "sdpa")


def no_video(model: VideoLMM, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = model.family.project
    monkeypatch.setattr(model.family, "project", lambda bare, encoded: usual(bare, [0 * one for one in encoded]))


@pytest.mark.parametrize("break_it", [positions_that_go_on, branches_that_see_each_other, packed_documents, no_video])
def test_the_self_check_refuses_what_is_silently_wrong(world, one_base: Path, monkeypatch, break_it) -> None:
    model = policy(one_base, lora=False, checkpointing=False)
    rows = rows_of(world, model, pairs_of(world, 4))
    break_it(model, monkeypatch)
    wanted = "do not reach the decoder" if break_it is no_video else "do not score as rows of their own"
    with pytest.raises(UserError, match=wanted):
        check_sharing(model, rows, [0, 1, 2, 3])


def test_branches_start_one_after_the_other() -> None:
    assert Branches(10, (3, 4, 5)).starts == [10, 13, 17]


@pytest.mark.parametrize(
    "changes", [{"layer_types": ["full_attention", "sliding_attention"]}, {"model_type": "gemma3_text"}]
)
def test_decoders_that_cannot_share_are_refused(one_base: Path, changes: dict[str, Any]) -> None:
    config = load(one_base).model.config
    check_can_branch(config)
    for name, value in changes.items():
        setattr(config.text_config, name, value)
    with pytest.raises(ValueError, match="cannot share a prefix: exact for qwen2,"):
        check_can_branch(config)


def test_log_probabilities_are_the_same_in_chunks_and_in_float32_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(8, 50), torch.randn(23, 8, requires_grad=True)
    tokens = torch.randint(50, (23,))
    expected = torch.log_softmax(head(hidden), -1)[torch.arange(23), tokens]
    monkeypatch.setattr("tpo.training.scoring._TOKENS_AT_ONCE", 5)
    found = score_tokens(head, hidden, tokens)
    torch.testing.assert_close(found.log_probs, expected)
    (gradient,) = torch.autograd.grad(found.log_probs.sum(), hidden)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), hidden)[0])
    assert found.is_top1.tolist() == (head(hidden).argmax(-1) == tokens).tolist()
    assert score_tokens(head.bfloat16(), hidden.bfloat16(), tokens).log_probs.dtype is torch.float32
