"""Converted checkpoints against what the authors' own code computed on them (tests/models/original), and back again."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original.frames import video
from safetensors.torch import load_file, save_file
from tiny import load
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel
from typer.testing import CliRunner

from tpo.cli import app
from tpo.errors import UserError
from tpo.models.export import convert_back
from tpo.models.frames import FrameSpec, read_processor
from tpo.models.llava_next import convert, hub_name
from tpo.models.video_lmm import VideoLMM
from tpo.video.decode import Frames

ORIGINAL = Path(__file__).parent / "original"
TOLD = json.loads((ORIGINAL / "expected.json").read_text())
EXPECTED = load_file(ORIGINAL / "expected.safetensors")
GRID, NO_TOKEN, LONGVA = "siglip.llava.bilinear.grid", "siglip.llava.bilinear.no_token", "clip.longva.average"
TOWER = {"siglip": ORIGINAL / "siglip" / "vision_tower", "clip": ORIGINAL / "clip" / "vision_tower"}
QUESTION, ANSWER = "What comes first?", "A red star"
# README.md there: today's library is up to 5e-5 away, the smallest mistake 3e-4.
CLOSE = {"rtol": 0.0, "atol": 1e-4}


def read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a checkpoint, which then has one shard."""
    content = tensors(folder)
    change(content)
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
        file.unlink()
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})


def source(folder: Path, variant: str = GRID, **settings: Any) -> Path:
    """The authors' checkpoint of a variant, with other settings if any."""
    told = TOLD["variants"][variant]
    shutil.copytree(ORIGINAL / told["checkpoint"], folder, ignore=shutil.ignore_patterns("vision_tower", "newline.*"))
    config = read_json(folder / "config.json") | told["config"] | settings
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))
    if told["checkpoint"] == "clip" and told["package"] == "llava":
        rewrite(folder, lambda content: content.update(load_file(ORIGINAL / "clip" / "newline.safetensors")))
    return folder


def converted(folder: Path, variant: str = GRID, **settings: Any) -> Path:
    convert(source(folder / "theirs", variant, **settings), folder / "ours", TOWER[variant.split(".")[0]])
    return folder / "ours"


def shown(variant: str) -> Frames:
    side_px = 384 if variant.startswith("siglip") else 336
    return Frames(video(TOLD["num_frames"], side_px), np.arange(3.0), 3.0, "pyav", "18")


def their_ids(model: VideoLMM, ids: list[int], num_features: int) -> list[int]:
    """As the authors' `tokenizer_image_token` makes them, with our placeholders in place of its −200."""
    at = ids.index(-200)
    return [*ids[:at], *[model.family.video_token_id] * num_features, *ids[at + 1 :]]


@torch.no_grad()
def check(model: VideoLMM, variant: str) -> None:
    """See that prompt, features and logits are those of the authors' code."""
    prepared = model.prepare(shown(variant))
    assert prepared.num_features == TOLD["variants"][variant]["num_visual_tokens"]
    ids = [*model.prompt_ids(prepared, QUESTION), *model.answer_ids(ANSWER), *model.tokenizer("\n").input_ids]
    assert ids == their_ids(model, TOLD["input_ids"], prepared.num_features)
    features = model.family.project(model.model, model.family.encode(model.model, prepared)).pooler_output[0]
    positions = EXPECTED[f"{variant}.positions"]
    torch.testing.assert_close(features[positions], EXPECTED[f"{variant}.features"], **CLOSE)
    output = model.model(
        input_ids=torch.tensor([ids]),
        position_ids=model.family.positions(ids, prepared),
        **model.family.forward_inputs([prepared]),
    )
    expected = EXPECTED[f"{variant}.logits"]
    torch.testing.assert_close(output.logits[0, -len(expected) :], expected, **CLOSE)


def assert_nothing_left(folder: Path, *kept: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


@pytest.mark.parametrize("variant", TOLD["variants"])
def test_a_converted_checkpoint_computes_what_the_authors_code_computes(variant: str, tmp_path: Path) -> None:
    check(load(converted(tmp_path, variant)), variant)


@pytest.mark.parametrize("variant", TOLD["generation"])
def test_a_converted_checkpoint_says_what_the_authors_code_says(variant: str, tmp_path: Path) -> None:
    model, told = load(converted(tmp_path, variant)), TOLD["generation"][variant]
    prepared = model.prepare(shown(variant))
    assert model.prompt_ids(prepared, QUESTION) == their_ids(model, told["input_ids"], prepared.num_features)
    (answer,) = model.generate(shown(variant), [QUESTION], max_new_tokens=len(told["new_tokens"]))
    assert answer == model.tokenizer.decode(told["new_tokens"]).strip()


def test_the_pooling_can_be_chosen(tmp_path: Path) -> None:
    src = source(tmp_path / "theirs", GRID)
    convert(src, tmp_path / "ours", TOWER["siglip"], pool="average")
    check(load(tmp_path / "ours"), "siglip.llava.average.grid")
    convert_back(tmp_path / "ours", tmp_path / "back")
    before, after = read_json(src / "config.json"), read_json(tmp_path / "back" / "config.json")
    assert after == before | {"mm_spatial_pool_mode": "average"}


@pytest.mark.parametrize("variant", [GRID, NO_TOKEN, LONGVA])
def test_there_and_back_every_weight_and_every_small_file_is_what_it_was(variant: str, tmp_path: Path) -> None:
    ours = converted(tmp_path, variant)
    convert_back(ours, tmp_path / "back")
    before, after = tensors(tmp_path / "theirs"), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    small = [file.name for file in (tmp_path / "theirs").iterdir() if file.suffix != ".safetensors"]
    for name in set(small) - {"model.safetensors.index.json"}:
        assert (tmp_path / "theirs" / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
    convert(tmp_path / "back", tmp_path / "again", TOWER[variant.split(".")[0]])
    once, twice = tensors(ours), tensors(tmp_path / "again")
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert read_json(ours / "config.json") == read_json(tmp_path / "again" / "config.json")


def test_weights_that_no_video_needs_are_set_aside_and_come_back(tmp_path: Path) -> None:
    src, tower = source(tmp_path / "theirs"), "model.vision_tower.vision_tower.vision_model."
    extra = {
        f"{tower}head.probe": torch.ones(1, 1, 16),
        f"{tower}encoder.layers.2.mlp.fc1.bias": torch.ones(24),
        f"{tower}embeddings.position_ids": torch.arange(729)[None],
        "model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    rewrite(src, lambda content: content.update(extra))
    convert(src, tmp_path / "ours", TOWER["siglip"])
    check(load(tmp_path / "ours"), GRID)
    convert_back(tmp_path / "ours", tmp_path / "back")
    before, after = tensors(src), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_dtypes_stay_as_they_are(tmp_path: Path) -> None:
    src = source(tmp_path / "theirs", torch_dtype="bfloat16")
    rewrite(src, lambda content: content.update({name: tensor.bfloat16() for name, tensor in content.items()}))
    convert(src, tmp_path / "ours", TOWER["siglip"])
    assert {tensor.dtype for tensor in tensors(tmp_path / "ours").values()} == {torch.bfloat16}
    assert load(tmp_path / "ours", dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_head_that_is_the_embedding_need_not_be_in_the_checkpoint(tmp_path: Path) -> None:
    src = source(tmp_path / "theirs", tie_word_embeddings=True)
    rewrite(src, lambda content: content.pop("lm_head.weight"))
    convert(src, tmp_path / "ours", TOWER["siglip"])
    model = load(tmp_path / "ours").model
    assert torch.equal(model.lm_head.weight, tensors(src)["model.embed_tokens.weight"])
    convert_back(tmp_path / "ours", tmp_path / "back")
    assert tensors(tmp_path / "back").keys() == tensors(src).keys()


@pytest.mark.parametrize("variant", [GRID, LONGVA])
def test_a_tower_that_was_not_trained_comes_from_where_it_was_published(variant: str, tmp_path: Path) -> None:
    src, published, kind = source(tmp_path / "theirs", variant), tmp_path / "published", variant.split(".")[0]
    towers = {"siglip": (SiglipVisionModel, SiglipVisionConfig), "clip": (CLIPVisionModel, CLIPVisionConfig)}
    shutil.copytree(TOWER[kind], published)
    prefix = "model.vision_tower.vision_tower."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors(src).items() if name.startswith(prefix)}
    model, config = towers[kind]
    whole: Any = model(config.from_pretrained(published))
    rest = {hub_name(f"vision_tower.{name}").removeprefix("vision_tower."): t for name, t in whole.state_dict().items()}
    other_half = {"text_model.final_layer_norm.bias": torch.ones(4), "logit_scale": torch.ones(1)}
    save_file(rest | own | other_half, published / "model.safetensors")

    rewrite(src, lambda content: [content.pop(prefix + name) for name in own])
    with pytest.raises(UserError, match=r"no weights of its vision tower, .*Download the tower .*--vision-tower"):
        convert(src, tmp_path / "ours", TOWER[kind])
    convert(src, tmp_path / "ours", published)
    check(load(tmp_path / "ours"), variant)
    convert_back(tmp_path / "ours", tmp_path / "back")
    assert tensors(tmp_path / "back").keys() == tensors(src).keys()


def test_the_chat_template_is_the_authors_conversation(tmp_path: Path) -> None:
    tokenizer = load(converted(tmp_path)).tokenizer
    ask = {"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "video"}]}
    turns = [ask, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Sure?"}]
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    asked = "<|im_start|>user\n<video>\nWhy?<|im_end|>\n"
    rest = "<|im_start|>assistant\nSo.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == system + asked + rest
    prompt = tokenizer.apply_chat_template([ask], tokenize=False, add_generation_prompt=True)
    assert prompt == system + asked + "<|im_start|>assistant\n"
    own = tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}, ask], tokenize=False)
    assert own == "<|im_start|>system\nBe brief.<|im_end|>\n" + asked


def test_frames_are_prepared_as_the_tower_was_trained(tmp_path: Path) -> None:
    siglip = FrameSpec.of(read_processor(converted(tmp_path / "siglip")))
    assert (siglip.height_px, siglip.width_px, siglip.shortest_edge_px) == (384, 384, None)
    assert (siglip.normalisation.mean, siglip.normalisation.std) == ((0.5,) * 3, (0.5,) * 3)
    clip = FrameSpec.of(read_processor(converted(tmp_path / "clip", LONGVA)))
    assert (clip.height_px, clip.width_px, clip.shortest_edge_px) == (336, 336, 336)
    assert clip.normalisation.mean == (0.48145466, 0.4578275, 0.40821073)
    assert clip.normalisation.std == (0.26862954, 0.26130258, 0.27577711)
    assert {spec.normalisation.interpolation for spec in (siglip, clip)} == {"bicubic"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "llava_llama"}, r"is a 'llava_llama' model; only 'llava_qwen'"),
        ({"mm_newline_position": "frame"}, r'mm_newline_position: "frame"; supported: no_token, one_token, grid'),
        ({"mm_patch_merge_type": "spatial"}, r'mm_newline_position: "grid"; supported: no_token, one_token where'),
        ({"mm_patch_merge_type": "avgpool"}, r'mm_patch_merge_type: "avgpool"; supported: flat, unires, spatial'),
        ({"mm_spatial_pool_mode": "max"}, r'mm_spatial_pool_mode: "max"; supported: bilinear, average'),
        ({"mm_spatial_pool_mode": "absent"}, r"has no mm_spatial_pool_mode\. Give --pool"),
        ({"mm_patch_merge_type": None}, r"mm_patch_merge_type: null; supported: flat"),
        ({"mm_spatial_pool_stride": 4}, r"mm_spatial_pool_stride: 4; supported: 2"),
        ({"mm_projector_type": "linear"}, r'mm_projector_type: "linear"; supported: "mlp2x_gelu"'),
        ({"mm_projector_type": "absent"}, r'mm_projector_type: "linear"; supported: "mlp2x_gelu"'),
        ({"mm_resampler_type": "perceiver"}, r'mm_resampler_type: "perceiver"; supported: null, "spatial_pool"'),
        ({"add_faster_video": True}, r"add_faster_video: true; supported: false"),
        ({"use_sliding_window": True}, r"use_sliding_window: true; supported: false"),
        ({"rope_theta": "absent"}, r"config\.json lacks rope_theta"),
        ({"hidden_size": 40}, r"holds .* with shape .*by config\.json it should be"),
        ({"num_hidden_layers": 3}, r"lacks model\.layers\.2\..*such weights"),
        ({"num_hidden_layers": 1}, r"holds model\.layers\.1\..*has no place for"),
    ],
)
def test_a_config_that_our_class_cannot_follow_names_the_key(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    src = source(tmp_path / "theirs", **settings)
    with pytest.raises(UserError, match=message):
        convert(src, tmp_path / "ours", TOWER["siglip"])
    assert_nothing_left(tmp_path, "theirs")


def test_the_published_towers_are_known_and_others_need_a_folder(tmp_path: Path) -> None:
    src = source(tmp_path / "theirs")  # tiny, where the published tower is not
    with pytest.raises(UserError, match=r"vision_tower.*with shape \[16.*it should be \[1152"):
        convert(src, tmp_path / "ours")
    other = source(tmp_path / "other", mm_vision_tower="google/siglip-base-patch16-224")
    with pytest.raises(UserError, match=r"mm_vision_tower: .*supported: google/siglip-so400m.*--vision-tower"):
        convert(other, tmp_path / "ours")
    with pytest.raises(UserError, match=r"no config\.json of a SigLIP or CLIP tower"):
        convert(other, tmp_path / "ours", tmp_path)
    convert(other, tmp_path / "ours", TOWER["siglip"])
    longva = source(tmp_path / "longva", LONGVA, mm_vision_select_layer=-1)
    with pytest.raises(UserError, match=r"mm_vision_select_layer: -1; supported: -2"):
        convert(longva, tmp_path / "clip", TOWER["clip"])


def test_a_checkpoint_that_is_not_whole_leaves_nothing(tmp_path: Path) -> None:
    src, first = source(tmp_path / "theirs"), "model-00001-of-00002.safetensors"
    norm = "model.norm.weight"

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            convert(src, tmp_path / "ours", TOWER["siglip"])
        assert_nothing_left(tmp_path, "theirs")

    whole = (src / first).read_bytes()
    (src / first).write_bytes(whole[:-1000])
    refused(r"00001-of-00002\.safetensors has .* bytes, its header says .*truncated")
    (src / first).unlink()
    refused(r"00001-of-00002\.safetensors is missing")
    (src / first).write_bytes(whole)
    twice = load_file(src / "model-00002-of-00002.safetensors") | {norm: torch.ones(32)}
    save_file(twice, src / "model-00002-of-00002.safetensors")
    refused(r"model\.norm\.weight is in .*00001.* and in .*00002")
    rewrite(src, lambda content: content.update({norm: torch.ones(31)}))
    refused(r"holds model\.norm\.weight with shape \[31\]; .*should be \[32\]")
    rewrite(src, lambda content: content.pop(norm))
    refused(r"lacks model\.norm\.weight \(1 such weights\)")
    rewrite(src, lambda content: content.update({norm: torch.ones(32), "model.faster_token": torch.ones(32)}))
    refused(r"holds model\.faster_token, which a model of its config\.json has no place for")
    (src / "model.safetensors").rename(src / "pytorch_model.bin")
    refused(r"as a pickle")
    (src / "config.json").unlink()
    refused(r"has no config\.json")


def test_placeholders_need_two_rows_that_the_embedding_has_to_spare(tmp_path: Path) -> None:
    src = source(tmp_path / "theirs", vocab_size=301)
    ends = ("model.embed_tokens.weight", "lm_head.weight")
    rewrite(src, lambda content: content.update({name: content[name][:301].clone() for name in ends}))
    with pytest.raises(UserError, match=r"would be tokens \[300, 301\] .*the embedding has only 301 rows"):
        convert(src, tmp_path / "ours", TOWER["siglip"])
    assert_nothing_left(tmp_path, "theirs")


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    src, dst = source(tmp_path / "theirs"), tmp_path / "ours"
    dst.mkdir()
    (dst / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"ours exists already"):
        convert(src, dst, TOWER["siglip"])
    assert (dst / "notes.txt").read_text() == "mine"
    (dst / "notes.txt").unlink()
    convert(src, dst, TOWER["siglip"])
    assert (dst / "config.json").is_file()


def test_a_kill_in_the_middle_leaves_no_checkpoint_and_the_next_run_makes_it(tmp_path: Path) -> None:
    src = source(tmp_path / "theirs")
    code = """
import os, signal, sys
from pathlib import Path
from tpo.models import llava_next
save, written = llava_next.save_file, []
def save_then_die(*arguments, **options):
    if written:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(save(*arguments, **options))
llava_next.save_file = save_then_die
llava_next.convert(*map(Path, sys.argv[1:]))
"""
    arguments = [str(src), str(tmp_path / "ours"), str(TOWER["siglip"])]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True)
    assert done.returncode == -9
    assert_nothing_left(tmp_path, "theirs", ".ours.partial")
    assert (tmp_path / ".ours.partial" / "model-00001-of-00002.safetensors").is_file()
    convert(src, tmp_path / "ours", TOWER["siglip"])
    assert_nothing_left(tmp_path, "theirs", "ours")
    check(load(tmp_path / "ours"), GRID)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    src = source(tmp_path / "theirs")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"No space left to write .*ours"):
            convert(src, tmp_path / "ours", TOWER["siglip"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_nothing_left(tmp_path, "theirs")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of a process's memory")
def test_memory_holds_about_one_shard(tmp_path: Path) -> None:
    width, layers = 65_536, 12
    src = source(tmp_path / "theirs", intermediate_size=width, num_hidden_layers=layers, max_window_layers=layers)
    content = tensors(src)
    layer = {name: tensor for name, tensor in content.items() if name.startswith("model.layers.0.")}
    layer |= {name: torch.zeros(width, 32) for name in layer if "gate_proj" in name or "up_proj" in name}
    layer |= {name: torch.zeros(32, width) for name in layer if "down_proj" in name}
    for file in src.glob("model*"):
        file.unlink()
    shards = {"rest": {name: tensor for name, tensor in content.items() if not name.startswith("model.layers.")}}
    for number in range(layers):
        shards[str(number)] = {name.replace(".0.", f".{number}."): tensor for name, tensor in layer.items()}
    for name, shard in shards.items():
        save_file(shard, src / f"{name}.safetensors")
    places = {name: f"{file}.safetensors" for file, shard in shards.items() for name in shard}
    (src / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    def resident_mb(key: str) -> float:
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
        return int(line.split()[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = resident_mb("VmRSS")
    convert(src, tmp_path / "ours", TOWER["siglip"])
    shard_mb = 3 * 4 * 32 * width / 2**20
    assert resident_mb("VmHWM") - before < 2 * shard_mb < layers * shard_mb / 5


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    arguments = [str(source(tmp_path / "theirs")), str(tmp_path / "ours"), "--vision-tower", str(TOWER["siglip"])]
    done = CliRunner().invoke(app, ["convert", *arguments, "--pool", "average"])
    assert done.exit_code == 0
    assert done.output.count("\n") == 1
    assert "as a llava_video checkpoint. Set model.base in params.yaml to it." in done.output
    assert load(tmp_path / "ours").family.layout == ("average", "grid")
