from pathlib import Path

import pytest
import torch

from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import ModelParams
from tpo.training.collator import VideoPairCollator, number_pairs
from tpo.video.decode import VideoFolder


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> VideoLMM:
    return load_model(ModelParams(base=str(tiny_checkpoint), dtype="float32", device="cpu"))


def prompt_of(world, model: VideoLMM, number: int) -> list[int]:
    pair = world.pairs[number]
    frames = world.folder.frames(world.videos[pair.video_id].path, pair.view)
    return model.prompt_ids(model.prepare(frames), pair.question)


def test_a_pair_becomes_its_number(world, model: VideoLMM) -> None:
    assert list(number_pairs(world.pairs, model)) == [{"pair": number, "counts": 1} for number in range(6)]
    held_out = number_pairs(world.pairs[:2], model, first=6, num_repeats=3)
    assert list(held_out) == [{"pair": p, "counts": c} for p, c in [(6, 1), (7, 1), (6, 0), (7, 0), (6, 0)]]


def test_a_batch_is_all_chosen_rows_then_all_rejected_rows(world, model: VideoLMM) -> None:
    rows = number_pairs(world.pairs, model)
    batch = VideoPairCollator(world.pairs, world.videos, world.folder, model)([rows[1], rows[2]])
    ids = {word: model.tokenizer.convert_tokens_to_ids(word) for word in model.tokenizer.get_vocab()}
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    prompt = prompt_of(world, model, 1)
    answers = ["red", "a red star , then a yellow plus", "a green ring , then a white heart", "blue"]
    longest = 1 + max(len(answer.split()) for answer in answers)
    expected, completion, attention = [], [], []
    for answer in answers:
        tokens = [*(ids[word] for word in answer.split()), end]
        padding = longest - len(tokens)
        expected.append(prompt + tokens + [pad] * padding)
        attention.append([1] * (len(prompt) + len(tokens)) + [0] * padding)
        completion.append([0] * len(prompt) + [1] * len(tokens) + [0] * padding)
    assert batch["input_ids"].tolist() == expected
    assert batch["completion_mask"].tolist() == completion
    assert batch["attention_mask"].tolist() == attention
    assert batch["position_ids"].tolist()[1] == list(range(len(prompt) + longest))
    assert (batch["mm_token_type_ids"] == 2).sum(dim=1).tolist() == [prompt.count(model.family.video_token_id)] * 4


def test_both_answers_of_a_pair_come_with_the_frames_of_its_full_view(world, model: VideoLMM) -> None:
    rows = number_pairs(world.pairs, model)
    pixels = VideoPairCollator(world.pairs, world.videos, world.folder, model)([rows[1], rows[2]])[
        "pixel_values_videos"
    ]
    assert pixels.shape == (4, 6, 3, 32, 32)
    for row, pair in enumerate([world.pairs[1], world.pairs[2]]):
        frames = world.folder.frames(world.videos[pair.video_id].path, pair.view)
        assert torch.equal(pixels[row], model.prepare(frames).pixels)
        assert torch.equal(pixels[row], pixels[row + 2])
    assert not torch.equal(pixels[0], pixels[1])


def test_a_batch_is_what_the_model_takes(world, model: VideoLMM) -> None:
    rows = number_pairs(world.pairs, model)
    batch = VideoPairCollator(world.pairs, world.videos, world.folder, model)([rows[0], rows[1]])
    completion = batch.pop("completion_mask")
    with torch.no_grad():
        logprobs = model.model(**batch).logits[:, :-1].log_softmax(-1)
    logprobs = logprobs.gather(-1, batch["input_ids"][:, 1:, None])[..., 0] * completion[:, 1:]
    for row, (pair, side) in enumerate((pair, side) for side in ("chosen", "rejected") for pair in world.pairs[:2]):
        frames = world.folder.frames(world.videos[pair.video_id].path, pair.view)
        ((score,),) = model.option_logprobs(frames, [pair.question], [[getattr(pair, side)]])
        assert float(logprobs[row].sum()) == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [("", "red"), ("red", ""), ("  ", "red"), ("red", "red"), ("a red star", "a  red star "), ("zebra", "giraffe")],
)
def test_answers_that_teach_nothing_are_refused_by_the_name_of_the_pair(
    world, model: VideoLMM, chosen: str, rejected: str
) -> None:
    bad = world.pairs[3].model_copy(update={"chosen": chosen, "rejected": rejected})
    with pytest.raises(UserError, match=r"Pair pair3 cannot be trained on: chosen .*must be non-empty and different"):
        number_pairs([*world.pairs[:3], bad], model)


def test_a_video_that_broke_since_it_was_ingested_is_named_with_its_pair(
    world, model: VideoLMM, tmp_path: Path
) -> None:
    for video in world.videos.values():
        (tmp_path / video.path).write_bytes((world.folder.root / video.path).read_bytes()[:1500])
    collator = VideoPairCollator(world.pairs, world.videos, VideoFolder(tmp_path, tmp_path), model)
    rows = number_pairs(world.pairs, model)
    with pytest.raises(UserError, match=r"The video of pair pair1 can no longer be decoded: 1\.mp4: .*`dvc repro`"):
        collator([rows[1]])
