"""What is wrong with a checkpoint is said before its weights are read, with what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import load, noise, params, save_tiny
from transformers import Qwen2Config, Qwen2ForCausalLM

from tpo.errors import UserError
from tpo.models import checkpoint
from tpo.models import load as load_module
from tpo.models.load import load_model

SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llava_video", tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def no_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were about to be read")

    monkeypatch.setattr(load_module, "_load_weights", refuse)


def shard(folder: Path) -> None:
    """Cut the weights of a folder into two files and an index."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], SHARD: names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    places = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "model.safetensors").unlink()


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_sharded_checkpoint_is_the_same_model(whole: Path, folder: Path) -> None:
    shard(folder)
    assert load(folder).answer_logprobs(noise(), "Why", ["a"]) == load(whole).answer_logprobs(noise(), "Why", ["a"])


@pytest.mark.usefixtures("no_weights_are_read")
class TestBeforeAnyWeightIsRead:
    def test_what_is_no_checkpoint_is_said_with_what_to_set(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for nothing in (tmp_path / "nowhere", tmp_path / "empty"):
            with pytest.raises(UserError, match=r"does not exist or has no config\.json\. Give a checkpoint folder"):
                load(nothing)
        with pytest.raises(UserError, match="'somebody/nothing' is neither a checkpoint folder nor a reachable hub id"):
            load("somebody/nothing")

    def test_a_model_of_another_family_names_those_that_are_supported(self, folder: Path) -> None:
        edit_config(folder, model_type="internvl")
        with pytest.raises(
            UserError, match=r"is a 'internvl' model; supported are: llava_onevision, llava_video, qwen"
        ):
            load(folder)

    def test_a_text_only_model_cannot_see(self, tmp_path: Path) -> None:
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
        Qwen2ForCausalLM(Qwen2Config(vocab_size=9, intermediate_size=8, **sizes)).save_pretrained(tmp_path / "text")
        with pytest.raises(UserError, match=r"is a 'qwen2' model; it has no vision tower, so it cannot see a video"):
            load(tmp_path / "text")

    def test_the_authors_layout_is_pointed_to_its_conversion(self) -> None:
        with pytest.raises(UserError, match=r"that is the LLaVA-NeXT layout. Convert it first: `tpo convert SRC DST`"):
            load(Path(__file__).parent / "original" / "siglip")

    def test_remote_code_is_never_run(self, folder: Path) -> None:
        (folder / "modeling_mine.py").write_text("raise SystemExit('run!')")
        edit_config(folder, model_type="mine", auto_map={"AutoModel": "modeling_mine.Mine"})
        with pytest.raises(UserError, match="needs code from its own repository, which is never run"):
            load(folder)

    def test_a_decoder_that_cannot_share_a_prefix_exactly_is_refused(self, folder: Path) -> None:
        text = json.loads((folder / "config.json").read_text())["text_config"]
        edit_config(folder, text_config=text | {"layer_types": ["full_attention", "sliding_attention"]})
        with pytest.raises(UserError, match="decoder with sliding_attention layers; supported: full_attention"):
            load(folder)

    @pytest.mark.parametrize("content", ["{", '{"model_type": "llava_video", "text_config": 7}'])
    def test_a_broken_config_is_named(self, folder: Path, content: str) -> None:
        (folder / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json is not"):
            load(folder)

    def test_a_missing_shard_is_named(self, folder: Path) -> None:
        shard(folder)
        (folder / SHARD).unlink()
        with pytest.raises(UserError, match=rf"{SHARD} is missing\. Download"):
            load(folder)

    @pytest.mark.parametrize("keep", [0, 5, 100, 5000, -1])
    def test_a_truncated_shard_is_named_with_its_size(self, folder: Path, keep: int) -> None:
        shard(folder)
        content = (folder / SHARD).read_bytes()[:keep]
        (folder / SHARD).write_bytes(content)
        with pytest.raises(UserError, match=rf"{SHARD} .*{len(content)} bytes.* Download it again"):
            load(folder)

    def test_a_shard_that_lacks_what_the_index_promises_is_named(self, folder: Path) -> None:
        shard(folder)
        tensors = load_file(folder / SHARD)
        gone = sorted(tensors)[3]
        del tensors[gone]
        save_file(tensors, folder / SHARD)
        with pytest.raises(UserError, match=rf"{SHARD} lacks {gone} \(1 in all\)"):
            load(folder)

    def test_a_folder_without_weights_is_incomplete(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"has a config but no weights \(model\.safetensors or"):
            load(folder)

    def test_pickled_weights_are_refused(self, folder: Path) -> None:
        pickle_weights(folder)
        with pytest.raises(UserError, match=r"as a pickle \(pytorch_model\.bin\).*set model\.pickled_weights to true"):
            load(folder)

    def test_more_frames_than_the_decoder_can_take_are_too_many(self, folder: Path) -> None:
        with pytest.raises(
            UserError, match=r"900 frames take 5400 tokens at least, but .* was made for 4096\. Show it"
        ):
            load_model(params(folder), num_frames=900)
        with pytest.raises(AssertionError, match="weights were about to be read"):
            load_model(params(folder, max_tokens=6000), num_frames=900)

    @pytest.mark.parametrize("gone", ["processor_config.json", "chat_template.jinja"])
    def test_a_file_that_says_how_to_show_a_video_is_missed(self, folder: Path, gone: str) -> None:
        (folder / gone).unlink()
        with pytest.raises(UserError, match="Is the checkpoint folder complete"):
            load(folder)


def pickle_weights(folder: Path, **more: object) -> None:
    torch.save(load_file(folder / "model.safetensors") | more, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pickled_weights_asked_for_by_name_are_read(whole: Path, folder: Path) -> None:
    pickle_weights(folder)
    loaded = load(folder, pickled_weights=True)
    assert loaded.answer_logprobs(noise(), "Why", ["a"]) == load(whole).answer_logprobs(noise(), "Why", ["a"])


class _Harmful:
    """What a pickle can do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was run",)


def test_and_still_no_code_in_them_is_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pickle_weights(folder, extra=_Harmful())
    with pytest.raises(Exception, match=r"(?i)weights.?only"):
        load(folder, pickled_weights=True)
    assert "code was run" not in capsys.readouterr().out


def test_weights_that_the_config_describes_and_the_files_lack_are_not_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "mlp.up_proj" in name and "language_model" in name)
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"does not hold the weights .*mlp\.up_proj.* is missing or has another shape \(1"
    ):
        load(folder)


def test_a_config_of_another_size_than_the_weights_is_an_error(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_config(folder, text_config=text | {"intermediate_size": 64})
    with pytest.raises(UserError, match=r"does not hold the weights that its config\.json describes"):
        load(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_this_machine_lacks_is_said(folder: Path) -> None:
    with pytest.raises(UserError, match=r"model\.device is cuda, but no GPU is visible here"):
        load(folder, device="cuda")
    with pytest.raises(UserError, match=r"model\.attention is 'flash_attention_2', but"):
        load(folder, attention="flash_attention_2")
    with pytest.raises(UserError, match=r"quantization is 4bit, which needs bitsandbytes: `pip install"):
        load(folder, quantization="4bit")


def test_headers_are_read_without_the_weights(whole: Path) -> None:
    header = checkpoint.read_header(whole / "model.safetensors")
    assert header.keys() == load_file(whole / "model.safetensors").keys()
    assert all(tensor["dtype"] == "F32" for tensor in header.values())
