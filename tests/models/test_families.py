"""What holds for every family: tiny checkpoints on disk, real decoded frames, against the library's own plain forward.

Prompts, positions and frames are compared with what the library and the models' authors make of the same
(tests/models/reference).
"""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES, PROCESSORS, load, noise, prompter, save_tiny

from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.models import shared_attention
from tpo.models.family import VideoInput
from tpo.models.frames import FrameSpec, read_processor
from tpo.models.load import FAMILIES as SUPPORTED
from tpo.models.prefix import VideoPrefix, batch_positions
from tpo.models.video_lmm import VideoLMM
from tpo.records import Video
from tpo.video.decode import Frames, VideoFolder
from tpo.video.probe import Prober
from tpo.video.sample import dense

sys.path.insert(0, str(PROCESSORS.parent))
import pictures
import read

QUESTIONS = ["What comes first?", "And which color was it, was it red or blue?", "Why"]
OPTIONS = [["red", "a blue moon", "a"], ["a red star"], ["yes", "no, a moon"]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {family: save_tiny(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> VideoLMM:
    return load(folders[request.param])


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """Five frames of a real H.264 file."""
    root = tmp_path_factory.mktemp("video")
    write_video(root / "clip.mp4", plan_events(np.random.default_rng(0), 5), phase=0.0)
    with Prober(root / ".frames") as prober:
        video = prober.probe(root, root / "clip.mp4")
    assert isinstance(video, Video)
    return VideoFolder(root, root / ".frames").frames("clip.mp4", dense(video, 5))


@torch.no_grad()
def plain_logits(model: VideoLMM, video: VideoInput, ids: list[int]) -> torch.Tensor:
    """The library's forward over one whole sequence with pixels: nothing encoded before, nothing shared or padded."""
    row = torch.tensor([ids])
    output = model.model(
        input_ids=row,
        position_ids=batch_positions([model.family.positions(ids, video)]),
        mm_token_type_ids=model.family.token_types(row),
        use_cache=False,
        **model.family.forward_inputs([video]),
    )
    return output.logits[0]


def plain_score(model: VideoLMM, frames: Frames, question: str, answer: str) -> float:
    video = model.prepare(frames)
    prompt, ids = model.prompt_ids(video, question), model.answer_ids(answer)
    logprobs = plain_logits(model, video, prompt + ids).log_softmax(-1)
    return float(sum(logprobs[len(prompt) + n - 1, token] for n, token in enumerate(ids)))


def test_log_probabilities_are_those_of_the_librarys_forward_over_the_whole_sequence(
    model: VideoLMM, frames: Frames
) -> None:
    found = model.option_logprobs(frames, QUESTIONS, OPTIONS)
    expected = [
        [plain_score(model, frames, q, option) for option in row] for q, row in zip(QUESTIONS, OPTIONS, strict=True)
    ]
    for row, expected_row in zip(found, expected, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-5, rel=2e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_questions_that_share_the_video_get_the_answers_that_they_get_alone(
    model: VideoLMM, frames: Frames, batch_size: int
) -> None:
    alone = [model.answer(frames, question, 8) for question in QUESTIONS]
    assert model.generate(frames, QUESTIONS, 8, batch_size) == alone
    together = model.option_logprobs(frames, QUESTIONS, OPTIONS, batch_size)
    for question, options, row in zip(QUESTIONS, OPTIONS, together, strict=True):
        assert row == pytest.approx(model.answer_logprobs(frames, question, options), abs=1e-5, rel=2e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
def test_questions_about_several_videos_are_answered_together_as_they_are_alone(
    model: VideoLMM, batch_size: int
) -> None:
    asked = [
        (noise(0, 6), QUESTIONS),
        (noise(1, 3), []),
        (noise(2, 2), QUESTIONS[:1]),
        (noise(3, 5, 90, 60), QUESTIONS),
    ]
    alone = [[model.answer(shown, question, 8) for question in questions] for shown, questions in asked]
    assert len({text for said in alone for text in said}) > 1
    found = model.generate_many(iter(asked), 8, batch_size)
    assert [[generated.text for generated in said] for said in found] == alone


def test_an_answer_says_how_long_it_is_and_whether_the_model_ended_it(model: VideoLMM, frames: Frames) -> None:
    (long,) = model.generate_many([(frames, QUESTIONS)], 30)
    (short,) = model.generate_many([(frames, QUESTIONS)], 2)
    for whole, cut in zip(long, short, strict=True):
        assert whole.num_tokens == 30 or whole.ended
        assert cut.num_tokens <= 2
        assert cut.ended == (whole.ended and whole.num_tokens < 2), "two tokens leave no room for the one that ends it"


def test_answers_by_chance_depend_on_seed_and_question_and_on_nothing_else(model: VideoLMM, frames: Frames) -> None:
    asked = [QUESTIONS[0]] * 3 + QUESTIONS
    (found,) = model.generate_many([(frames, asked)], 6, 16, temperature=2.0, seed=1)
    (in_threes,) = model.generate_many([(frames, asked)], 6, 3, temperature=2.0, seed=1)
    assert in_threes == found
    (first_two,) = model.generate_many([(frames, asked[:2])], 6, 16, temperature=2.0, seed=1)
    assert first_two == found[:2]
    assert len({generated.text for generated in found[:4]}) > 1, "the same question is answered anew each time"
    (other,) = model.generate_many([(frames, asked)], 6, 16, temperature=2.0, seed=2)
    assert other != found
    (cold,) = model.generate_many([(frames, QUESTIONS)], 6, 16, temperature=1e-4)
    assert [generated.text for generated in cold] == model.generate(frames, QUESTIONS, 6)


def test_frames_that_views_share_run_through_the_tower_once(model: VideoLMM) -> None:
    shown = noise(0, 6)
    named = replace(shown, keys=tuple(f"v:{number}" for number in range(6)))
    part = [4, 1, 1, 3]
    views = [named, replace(named, pixels=shown.pixels[part], keys=tuple(named.keys[n] for n in part),
                            timestamps_s=np.sort(shown.timestamps_s[part]))]  # fmt: skip
    apart = [model.generate(replace(view, keys=()), QUESTIONS, 8) for view in views]
    tower = getattr(model.model.model, "vision_tower", None) or model.model.model.visual
    seen: list[int] = []
    hook = tower.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    try:
        found = model.generate_many([(view, QUESTIONS) for view in views], 8)
    finally:
        hook.remove()
    assert [[generated.text for generated in said] for said in found] == apart
    if model.family.frames_apart:
        assert sum(seen) == 6
    else:
        assert len(seen) == 2, "this tower sees frames together"


def test_a_greedy_answer_is_the_most_probable_token_of_a_plain_forward_each_time(
    model: VideoLMM, frames: Frames
) -> None:
    video = model.prepare(frames)
    prompt, said = model.prompt_ids(video, QUESTIONS[0]), []
    while len(said) < 5 and model.tokenizer.eos_token_id not in said:
        said.append(int(plain_logits(model, video, prompt + said)[-1].argmax()))
    text = model.tokenizer.decode([t for t in said if t != model.tokenizer.eos_token_id], skip_special_tokens=True)
    assert model.answer(frames, QUESTIONS[0], 5) == text.strip()


def test_the_librarys_own_generate_says_the_same(model: VideoLMM, frames: Frames) -> None:
    video = model.prepare(frames)
    ids = model.prompt_ids(video, QUESTIONS[0])
    row, qwen = torch.tensor([ids]), {}
    if "qwen" in model.family.config.model_type:  # Qwen2.5-VL's own positions in the library are others
        positions = batch_positions([model.family.positions(ids, video)])
        qwen = {"mm_token_type_ids": model.family.token_types(row), "position_ids": positions}
    output = model.model.generate(
        input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=6, do_sample=False,
        eos_token_id=model.tokenizer.eos_token_id, pad_token_id=0, **qwen, **model.family.forward_inputs([video]),
    )  # fmt: skip
    text = model.tokenizer.decode(output[0, row.shape[1] :], skip_special_tokens=True).strip()
    assert model.answer(frames, QUESTIONS[0], 6) == text


def test_what_is_shown_and_in_which_order_changes_every_score(model: VideoLMM) -> None:
    shown = noise(count=6)
    (seen,) = model.answer_logprobs(shown, QUESTIONS[0], ["red"])
    one_changed = shown.pixels.copy()
    one_changed[3] = 255
    for pixels in (np.zeros_like(shown.pixels), shown.pixels[::-1], one_changed):
        (score,) = model.answer_logprobs(replace(shown, pixels=pixels), QUESTIONS[0], ["red"])
        assert abs(score - seen) > 1e-4


def test_when_frames_are_shown_counts_for_the_families_that_are_told(model: VideoLMM) -> None:
    shown = noise(count=6)
    slower = replace(shown, timestamps_s=shown.timestamps_s * 3, duration_s=18.0)
    (seen,), (later,) = (model.answer_logprobs(f, QUESTIONS[0], ["red"]) for f in (shown, slower))
    assert (abs(seen - later) > 1e-4) == ("qwen" in model.family.config.model_type)
    told = replace(model, time_instruction=True)
    (seen,), (later,) = (told.answer_logprobs(f, QUESTIONS[0], ["red"]) for f in (shown, slower))
    assert abs(seen - later) > 1e-4


@pytest.mark.parametrize("count", [1, 2, 5])
def test_there_is_one_placeholder_for_every_feature(model: VideoLMM, count: int) -> None:
    video = model.prepare(noise(count=count))
    features = model.family.project(model.model, model.family.encode(model.model, video)).pooler_output
    assert model.prompt_ids(video, "Why").count(model.family.video_token_id) == video.num_features
    assert sum(part.shape[-2] for part in features) == video.num_features


def test_a_prompt_that_does_not_hold_the_whole_video_is_an_error(model: VideoLMM) -> None:
    video = model.prepare(noise())
    ids = model.prompt_ids(video, "Why")
    features = model.family.project(model.model, model.family.encode(model.model, video))
    ids.remove(model.family.video_token_id)
    with pytest.raises(ValueError, match="video tokens, but the video has"):
        VideoPrefix(model.model, model.family, video, features, ids)


@pytest.mark.parametrize(("count", "height_px", "width_px"), [(1, 20, 20), (4, 60, 90), (7, 500, 300)])
def test_what_a_video_takes_at_least_is_known_before_it_is_seen(
    model: VideoLMM, count: int, height_px: int, width_px: int
) -> None:
    video = model.prepare(noise(count=count, height_px=height_px, width_px=width_px))
    assert 0 < model.family.fewest_features(count) <= video.num_features


def test_a_prompt_is_never_cut(model: VideoLMM) -> None:
    short = replace(model, max_tokens=60)
    with pytest.raises(UserError, match=r"6 frames make a prompt of \d+ tokens .* made for 60\. .* at most \d+ frames"):
        short.answer(noise(count=6), "What? " * 20, 4)


def test_an_adapter_goes_on_the_decoder_and_nowhere_else(model: VideoLMM) -> None:
    linears = [name for name, module in model.model.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = [name for name in linears if re.fullmatch(model.family.lora_targets, name)]
    assert len(chosen) == 2 * 7  # layers, linears in each
    assert all("language_model.layers" in name for name in chosen)
    assert not [name for name in chosen if "visual" in name or "vision_tower" in name]
    trained = [n for n, _ in model.model.named_parameters() if any(part in n for part in model.family.trained)]
    assert not [name for name in trained if "visual" in name or "vision_tower" in name]
    assert set(chosen) <= {name.removesuffix(".weight") for name in trained}


def test_a_model_saved_and_loaded_again_says_the_same(model: VideoLMM, frames: Frames, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.generate(frames, QUESTIONS, 6) == model.generate(frames, QUESTIONS, 6)
    assert again.option_logprobs(frames, QUESTIONS, OPTIONS) == model.option_logprobs(frames, QUESTIONS, OPTIONS)
    video = model.prepare(frames)
    assert again.prompt_ids(again.prepare(frames), "Why") == model.prompt_ids(video, "Why")


def test_every_way_to_compute_attention_gives_the_same_numbers(folders: dict[str, Path], frames: Frames) -> None:
    for folder in folders.values():
        sdpa, eager = (load(folder, attention=way) for way in ("sdpa", "eager"))
        for one, other in zip(*(m.option_logprobs(frames, QUESTIONS, OPTIONS) for m in (sdpa, eager)), strict=True):
            assert one == pytest.approx(other, abs=1e-4)
        assert sdpa.id == eager.id


# Against the library's processors and the authors' positions, frozen.


@pytest.mark.parametrize("case", read.prompts(), ids=lambda case: case["name"])
def test_prompts_are_token_for_token_those_of_the_release_in_which_the_authors_wrote_them(case: dict[str, Any]) -> None:
    model = prompter(case["family"])
    pixels = np.zeros((*case["frames"], 3), np.uint8)
    shown = Frames(pixels, np.asarray(case["timestamps"]), case["metadata"]["duration"], "pyav", "18")
    ids = model.prompt_ids(model.prepare(shown), case["question"])
    assert ids == case["4.57.1"]["input_ids"]
    assert model.family.token_types(torch.tensor(ids)).nonzero().flatten().tolist() == [
        place for place, token in enumerate(ids) if token == model.family.video_token_id
    ]


@pytest.mark.parametrize(
    "case",
    [case for case in read.positions() if len(case["video_grid_thw"]) == 1 and not case["name"].endswith("uneven")],
    ids=lambda case: case["name"],
)
def test_positions_are_those_that_the_model_was_trained_with(case: dict[str, Any]) -> None:
    model = prompter(case["family"])
    steps, rows, columns = case["video_grid_thw"][0]
    per_step = (case["second_per_grid_ts"] or [1.0])[0]
    grid = (steps, rows // 2, columns // 2)
    video = VideoInput(
        torch.empty(0), grid, "", int(np.prod(grid)), tuple(np.arange(2 * steps) * per_step / 2), 2.0 * steps
    )
    positions = model.family.positions(case["input_ids"][0].tolist(), video)
    trained = case["authors"] if "authors" in case else case["5.23.0"]
    assert positions.tolist() == trained["table"][:, 0].tolist()


def test_the_text_behind_a_long_video_starts_after_it_and_not_where_the_library_puts_it() -> None:
    (case,) = [case for case in read.positions() if case["name"] == "qwen2_5_vl/48x8x14 at 1 fps"]
    placeholders = (case["input_ids"][0] == prompter("qwen2_5_vl").family.video_token_id).nonzero()
    behind = int(placeholders[-1]) + 1
    first = {
        by: case[by]["table"][0, 0, behind] - case[by]["table"][0, 0, int(placeholders[0])]
        for by in ("authors", "5.23.0")
    }
    assert first["authors"] > first["5.23.0"] + 50


CLIP = {
    "size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336},
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip


@pytest.mark.parametrize("case", read.frames(), ids=lambda case: case["name"])
def test_frames_are_the_librarys_within_one_grey_level(case: dict[str, Any]) -> None:
    pixels = pictures.video(*case["video"])
    if case["family"] == "clip_336":
        spec = FrameSpec.of(CLIP)
        normalisation, made = spec.normalisation, spec.prepare(pixels)
        per_channel = made.shape[-2] * made.shape[-1]
    else:
        processor = read_processor(PROCESSORS / case["family"]) | case["settings"]
        config: Any = SimpleNamespace(
            model_type=case["family"], video_token_id=0, vision_config=SimpleNamespace(image_size=384, patch_size=14)
        )
        family: Any = SUPPORTED[case["family"]](config, processor, None)
        shown = Frames(pixels, np.arange(len(pixels), dtype=float), float(len(pixels)), "pyav", "18")
        made = family.prepare(shown).pixels
        normalisation = family.spec.normalisation if hasattr(family, "spec") else family.normalisation
        per_channel = made.shape[-1] // 3 if made.dim() == 2 else made.shape[-2] * made.shape[-1]
    assert made.numel() == np.prod(case["output_shape"])
    channel = case["at"] // per_channel % 3
    mean, std = (
        torch.tensor(numbers, dtype=torch.float64)[channel] for numbers in (normalisation.mean, normalisation.std)
    )
    levels = (made.flatten()[case["at"]].double() * std + mean) / normalisation.rescale_factor
    assert float((levels - case["values"]).abs().max()) <= 1.001


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_older_processor_files_say_the_same_as_newer_ones(family: str) -> None:
    newer, older = prompter(family), prompter(family, "_hub")
    shown = noise(count=4, height_px=100, width_px=150)
    one, other = newer.prepare(shown), older.prepare(shown)
    assert torch.equal(one.pixels, other.pixels)
    assert older.prompt_ids(other, "What comes first?") == newer.prompt_ids(one, "What comes first?")


def test_fewer_pixels_a_frame_make_a_shorter_prompt_and_only_for_frames_of_any_size(folders: dict[str, Path]) -> None:
    shown = noise(count=4, height_px=240, width_px=320)
    for family in ("qwen2_5_vl", "qwen3_vl"):
        sizes = [load(folders[family], max_frame_pixels=most).prepare(shown).num_features for most in (None, 20_000)]
        assert sizes[1] <= 2 * 20_000 // 28**2 < sizes[0]
    with pytest.raises(UserError, match=r"max_frame_pixels is 20000, but a llava_video model shows every frame at one"):
        load(folders["llava_video"], max_frame_pixels=20_000)


def test_a_template_that_cannot_show_a_video_is_an_error(folders: dict[str, Path]) -> None:
    model = load(folders["qwen2_5_vl"])
    text_only = "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match=r"wrote 0 times '<\|video_pad\|>' for one video; expected once"):
        replace(model, chat_template=text_only).answer(noise(), "Why", 2)


def test_settings_that_change_answers_are_part_of_a_models_id(folders: dict[str, Path]) -> None:
    folder = folders["qwen3_vl"]
    ids = {
        load(folder, **s).id
        for s in ({}, {"time_instruction": True}, {"max_frame_pixels": 5000}, {"dtype": "bfloat16"})
    }
    assert len(ids) == 4
    assert load(folder).id == load(folder, pickled_weights=False, attention="eager").id


def test_the_time_instruction_is_the_authors_sentence(folders: dict[str, Path]) -> None:
    model = load(folders["llava_video"], time_instruction=True)
    text = model.tokenizer.decode(model.prompt_ids(model.prepare(noise(count=3)), "What comes first?"))
    said = (
        "<video>\nThe video lasts for 3.00 seconds, and 3 frames are uniformly sampled from it. These frames are "
        "located at 0.00s,1.00s,2.00s.Please answer the following questions related to this video.\nWhat comes first?"
    )
    assert said in text
    assert json.loads((folders["llava_video"] / "config.json").read_text())["video_newline"] == "grid"


def test_a_memory_for_few_rows_changes_nothing(
    model: VideoLMM, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = model.generate(frames, QUESTIONS, 6), model.option_logprobs(frames, QUESTIONS, OPTIONS)
    monkeypatch.setattr(shared_attention, "_MAX_SCORES", 1)
    said, scored = model.generate(frames, QUESTIONS, 6), model.option_logprobs(frames, QUESTIONS, OPTIONS)
    assert said == at_once[0]
    for row, expected in zip(scored, at_once[1], strict=True):
        assert row == pytest.approx(expected, abs=1e-5, rel=2e-6)


def test_threads_that_share_a_model_do_not_disturb_each_other(model: VideoLMM) -> None:
    shown = [noise(seed, count=4) for seed in range(6)]

    def work(frames: Frames) -> tuple[list[list[float]], list[str]]:
        return model.option_logprobs(frames, QUESTIONS, OPTIONS), model.generate(frames, QUESTIONS, 4)

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(work, shown))
    for (scores, said), frames in zip(together, shown, strict=True):
        alone, said_alone = work(frames)
        assert said == said_alone
        for row, expected in zip(scores, alone, strict=True):
            assert row == pytest.approx(expected, abs=1e-5, rel=2e-6)
