"""Tuned models handed on: loaded again by the plain library and by ourselves, weights compared one by one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_llava_next import GRID, LONGVA, TOWER, assert_nothing_left, check, converted, read_json, shown, tensors
from tiny import PROCESSORS, load, noise, params, save_tiny
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaOnevisionForConditionalGeneration,
    SiglipVisionConfig,
)
from typer.testing import CliRunner

from tpo.cli import app
from tpo.errors import UserError
from tpo.models import llava_next
from tpo.models.export import convert_back, export
from tpo.models.llava_next import CHAT_TEMPLATE, convert, hub_name
from tpo.models.video_lmm import VideoLMM

ONE_NEWLINE = "siglip.llava.bilinear.one_token"
QUESTION, OPTIONS = "What comes first?", ["red", "a blue moon"]
HF_FAMILIES = ("llava_onevision", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture
def known_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers of these names are as tiny as in tests/models/original, where the authors' code was told the same."""
    tiny = {
        "google/siglip-so400m-patch14-384": SiglipVisionConfig.from_pretrained(TOWER["siglip"]),
        "openai/clip-vit-large-patch14-336": CLIPVisionConfig.from_pretrained(TOWER["clip"]),
    }
    monkeypatch.setattr(llava_next, "TOWERS", tiny)


def tuned(model: VideoLMM, seed: int = 0) -> VideoLMM:
    """The parts that training changes, moved a little."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.model.named_parameters():
            if any(part in name for part in model.family.trained):
                weight += 0.05 * torch.randn_like(weight)
    return model


def adapter(base: Path, folder: Path) -> tuple[Path, list[float]]:
    """An adapter on a base, and what base and adapter together score before they are merged."""
    model = load(base)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=model.family.lora_targets, base_model_name_or_path=str(base), revision=None
    )
    torch.manual_seed(1)
    adapted = get_peft_model(model.model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    adapted.save_pretrained(folder)
    model.model = adapted.eval()
    return folder, scores(model)


def scores(model: VideoLMM) -> list[float]:
    return model.answer_logprobs(noise(), QUESTION, OPTIONS)


def plain(folder: Path, model_class: Any) -> Any:
    """The library's model, after seeing that it found every weight and knew every name."""
    model, loaded = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(loaded.values()), loaded
    return model.eval()


@torch.no_grad()
def logits(model: Any, ours: VideoLMM, variant: str) -> torch.Tensor:
    video = ours.prepare(shown(variant))
    ids = torch.tensor([ours.prompt_ids(video, QUESTION)])
    found: torch.Tensor = model(input_ids=ids, **ours.family.forward_inputs([video])).logits
    return found


def test_as_hf_the_plain_library_computes_the_same(tmp_path: Path) -> None:
    ours = tuned(load(converted(tmp_path, ONE_NEWLINE)))
    ours.save(tmp_path / "tuned")
    export(tmp_path / "tuned", tmp_path / "hf", "hf", params(""))
    model = plain(tmp_path / "hf", LlavaOnevisionForConditionalGeneration)
    assert torch.equal(logits(model, ours, ONE_NEWLINE), logits(ours.model, ours, ONE_NEWLINE))
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template == CHAT_TEMPLATE
    again = load(tmp_path / "hf")
    assert again.family.config.model_type == "llava_onevision"
    video = again.prepare(shown(ONE_NEWLINE))
    assert torch.equal(video.pixels, ours.prepare(shown(ONE_NEWLINE)).pixels)
    assert again.prompt_ids(video, QUESTION) == ours.prompt_ids(video, QUESTION)
    processor = read_json(tmp_path / "hf" / "processor_config.json")
    assert (processor["processor_class"], processor["num_image_tokens"]) == ("LlavaOnevisionProcessor", 27**2)
    assert read_json(tmp_path / "hf" / "preprocessor_config.json")["size"] == {"height": 384, "width": 384}
    assert not (tmp_path / "hf" / "llava_next").exists()


@pytest.mark.parametrize("family", HF_FAMILIES)
def test_as_hf_a_family_of_the_library_is_its_files_alone(family: str, tmp_path: Path) -> None:
    tuned(load(save_tiny(family, tmp_path / "base"))).save(tmp_path / "tuned")
    (tmp_path / "tuned" / "manifest.json").write_text("{}")
    (tmp_path / "tuned" / "optimizer.pt").write_bytes(b"pickle")
    export(tmp_path / "tuned", tmp_path / "hf", "hf", params(""))
    before, after = load(tmp_path / "tuned"), load(tmp_path / "hf")
    plain(tmp_path / "hf", type(after.model))
    assert scores(after) == scores(before)
    assert {path.name for path in (tmp_path / "hf").iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "chat_template.jinja"),
        *("processor_config.json", "tokenizer.json", "tokenizer_config.json"),
    }


def test_as_hf_weights_have_the_names_that_vllm_reads(tmp_path: Path) -> None:
    save_tiny("llava_onevision", tmp_path / "base")
    export(tmp_path / "base", tmp_path / "hf", "hf", params(""))
    names = tensors(tmp_path / "hf").keys()
    for part in ("vision_tower.vision_model.embeddings.patch_embedding.weight", "image_newline"):
        assert part in names
    for part in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        assert part in names


@pytest.mark.parametrize(
    ("in_memory", "in_the_hub"),
    [
        ("lm_head.weight", "language_model.lm_head.weight"),
        ("model.image_newline", "image_newline"),
        ("model.language_model.norm.weight", "language_model.model.norm.weight"),
        ("language_model.norm.weight", "language_model.model.norm.weight"),
        ("model.vision_tower.post_layernorm.bias", "vision_tower.vision_model.post_layernorm.bias"),
        ("model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"),
    ],
)
def test_a_name_in_memory_and_the_name_in_the_hub_are_one_weight(in_memory: str, in_the_hub: str) -> None:
    assert hub_name(in_memory) == hub_name(in_the_hub) == in_the_hub


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl"])
def test_an_adapter_is_merged_into_its_base(family: str, tmp_path: Path) -> None:
    base = save_tiny(family, tmp_path / "base")
    folder, together = adapter(base, tmp_path / "adapter")
    assert scores(load(base)) != pytest.approx(together, abs=1e-2)
    export(folder, tmp_path / "hf", "hf", params("", quantization="4bit"))
    assert scores(load(tmp_path / "hf")) == pytest.approx(together, abs=1e-4)
    assert not any(path.is_dir() for path in (tmp_path / "hf").iterdir())


def test_an_adapter_is_merged_for_the_authors_scripts_too(tmp_path: Path) -> None:
    base = converted(tmp_path)
    folder, together = adapter(base, tmp_path / "adapter")
    assert scores(load(base)) != pytest.approx(together, abs=1e-2)
    export(folder, tmp_path / "out", "llava-next", params(""))
    assert not any(path.is_dir() for path in (tmp_path / "out").iterdir())
    assert tensors(tmp_path / "out").keys() == tensors(tmp_path / "theirs").keys()
    convert(tmp_path / "out", tmp_path / "again", TOWER["siglip"])
    assert scores(load(tmp_path / "again")) == pytest.approx(together, abs=1e-4)


def test_an_adapter_can_be_handed_on_alone(tmp_path: Path) -> None:
    folder, together = adapter(save_tiny("qwen2_5_vl", tmp_path / "base"), tmp_path / "adapter")
    (folder / "training_args.bin").write_bytes(b"pickle")
    export(folder, tmp_path / "out", "adapter", params(""))
    assert_nothing_left(tmp_path / "out", "adapter_config.json", "adapter_model.safetensors")
    assert scores(load(tmp_path / "out")) == pytest.approx(together, abs=1e-4)
    with pytest.raises(UserError, match=r"base holds no adapter .*hf or llava-next"):
        export(tmp_path / "base", tmp_path / "other", "adapter", params(""))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks adapter_model\.safetensors"):
        export(folder, tmp_path / "other", "adapter", params(""))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("variant", [GRID, LONGVA])
def test_as_llava_next_a_tuned_model_differs_from_the_original_where_it_was_trained(
    variant: str, tmp_path: Path
) -> None:
    model = tuned(load(converted(tmp_path, variant)))
    model.save(tmp_path / "tuned")
    export(tmp_path / "tuned", tmp_path / "out", "llava-next", params(""))
    before, after = tensors(tmp_path / "theirs"), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "vision_tower" not in name}
    for name in ("config.json", "tokenizer.json", "vocab.json", "merges.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    convert(tmp_path / "out", tmp_path / "again", TOWER[variant.split(".")[0]])
    assert torch.equal(logits(load(tmp_path / "again").model, model, variant), logits(model.model, model, variant))


@pytest.mark.usefixtures("known_towers")
@pytest.mark.parametrize("variant", [GRID, LONGVA, ONE_NEWLINE])
def test_without_an_original_config_and_tokenizer_are_written_anew(variant: str, tmp_path: Path) -> None:
    ours = converted(tmp_path, variant)
    if variant == ONE_NEWLINE:  # as llava_onevision
        export(ours, tmp_path / "hf", "hf", params(""))
        ours = tmp_path / "hf"
    else:
        shutil.rmtree(ours / "llava_next")
    convert_back(ours, tmp_path / "back")
    before, after = tensors(tmp_path / "theirs"), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    convert(tmp_path / "back", tmp_path / "again")
    check(load(tmp_path / "again"), variant)
    same = ("hidden_size", "rope_theta", "rms_norm_eps", "eos_token_id", "mm_vision_tower", "torch_dtype")
    original, written = read_json(tmp_path / "theirs" / "config.json"), read_json(tmp_path / "back" / "config.json")
    assert {key: written[key] for key in same} == {key: original[key] for key in same}
    vocabulary = read_json(tmp_path / "back" / "tokenizer.json")
    assert [token["content"] for token in vocabulary["added_tokens"]] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert read_json(tmp_path / "back" / "vocab.json") == read_json(tmp_path / "theirs" / "vocab.json")
    assert (tmp_path / "back" / "merges.txt").read_text() == (tmp_path / "theirs" / "merges.txt").read_text()
    assert not (tmp_path / "back" / "chat_template.jinja").exists()


@pytest.mark.usefixtures("known_towers")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projector_hidden_act": "relu"}, r"projector_hidden_act 'relu'; the authors' code can do 'gelu'"),
        ({"vision_feature_layer": -2}, r"vision_feature_layer -2; the authors' code can do -1"),
        ({"image_size": 378}, r"another vision tower than google/siglip-so400m-patch14-384 and openai"),
    ],
)
def test_what_the_authors_code_cannot_do_is_said(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    ours = converted(tmp_path)
    shutil.rmtree(ours / "llava_next")
    content = read_json(ours / "config.json")
    section = content["vision_config"] if "image_size" in change else content
    section.update(change)
    (ours / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        convert_back(ours, tmp_path / "back")
    assert_nothing_left(tmp_path, "ours", "theirs")


def test_a_model_that_is_not_its_configs_is_not_written_back(tmp_path: Path) -> None:
    ours = converted(tmp_path)
    content = read_json(ours / "config.json")

    def refused(message: str, **change: Any) -> None:
        (ours / "config.json").write_text(json.dumps(content | change))
        with pytest.raises(UserError, match=message):
            convert_back(ours, tmp_path / "back")
        assert_nothing_left(tmp_path, "ours", "theirs")

    refused(r"video_newline 'one_token', the original had another", video_newline="one_token")
    refused(r"holds image_newline, which a model of its config\.json has no place for", video_newline="none")
    decoder = content["text_config"] | {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    refused(r"lacks language_model\.model\.layers\.2\.", text_config=decoder)
    (ours / "llava_next" / "config.json").unlink()
    refused(r"llava_next has no config\.json")


def test_a_form_that_a_model_cannot_take_is_refused_with_one_that_it_can(tmp_path: Path) -> None:
    for name, form, message in (
        ("llava_video", "hf", r"average \+ grid \+ siglip.*bilinear \+ one_token \+ siglip.*as llava-next"),
        ("longva", "hf", r"average \+ none \+ clip.*Export it as llava-next"),
        ("qwen3_vl", "llava-next", r"is a qwen3_vl model; the authors' code runs .*Export it as hf"),
    ):
        model = save_tiny(name, tmp_path / name)
        with pytest.raises(UserError, match=message):
            export(model, tmp_path / "out", form, params(""))
    for form in ("hf", "llava-next"):
        with pytest.raises(UserError, match=r"nowhere holds no model"):
            export(tmp_path / "nowhere", tmp_path / "out", form, params(""))
    assert_nothing_left(tmp_path, "llava_video", "longva", "qwen3_vl")


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    model = save_tiny("qwen3_vl", tmp_path / "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"out exists already"):
        export(model, tmp_path / "out", "hf", params(""))
    assert_nothing_left(tmp_path / "out", "notes.txt")


def test_a_merge_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder, _ = adapter(save_tiny("qwen2_5_vl", tmp_path / "base"), tmp_path / "adapter")
    weights = (tmp_path / "base" / "model.safetensors").read_bytes()
    (tmp_path / "base" / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(UserError, match="truncated"):
        export(folder, tmp_path / "out", "hf", params(""))
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(UserError, match=r"base' does not exist or has no config\.json"):
        export(folder, tmp_path / "out", "hf", params(""))
    assert_nothing_left(tmp_path, "adapter")


def test_a_saved_checkpoint_keeps_the_template_that_shows_videos(tmp_path: Path) -> None:
    model = load(save_tiny("llava_onevision", tmp_path / "base"))
    model.tokenizer.chat_template = "text only"  # as in llava-hf's folders, beside the processor's own
    model.save(tmp_path / "saved")
    expected = (PROCESSORS / "llava_onevision" / "chat_template.jinja").read_text(encoding="utf-8")
    assert load(tmp_path / "saved").chat_template == expected


def test_the_command_says_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_tiny("qwen3_vl", tmp_path / "model")
    monkeypatch.chdir(Path(__file__).parents[2])  # where params.yaml is
    done = CliRunner().invoke(app, ["export", str(model), str(tmp_path / "out"), "--form", "hf"])
    assert (done.exit_code, done.output) == (0, f"{tmp_path / 'out'}: {model} in the form hf.\n")
    assert scores(load(tmp_path / "out")) == scores(load(model))
