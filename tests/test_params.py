"""What `params.yaml` may say, and what somebody who mistypes is told."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tpo.errors import UserError
from tpo.params import Params, TrainParams, load_params

GOOD = """\
data: {videos: data/videos, benchmarks: data/benchmarks}
model: {base: demo/checkpoint, dtype: float32}
runtime: {workers: 2, items_per_task: 8, frame_cache_gb: 1}
ingest:
  extensions: [.mp4, .mkv]
  probe: {silence_s: 60}
  filters: {duration_s: {min: 1.0}, side_px: {}, num_frames: {}, brightness: {}, change: {}}
  near_duplicates: {min_overlap_s: 10, min_share: 0.5}
  contamination: {min_overlap_s: 10, min_share: 0.1}
caption: {source: sidecar}
ask: {asker: rule, captions_per_segment: 3, localized_per_video: 4, comprehensive_per_video: 4, contamination_words: 13}
answer:
  full_frames: 32
  segment_frames: 8
  dispreferred: {localized: [{view: without_segment}], comprehensive: [{view: sparse, strength: 0.5}]}
  max_new_tokens: 24
  batch_size: 4
judge: {judge: rule}
mix: {max_pairs: null, localized_share: 0.5}
validate: {min_pairs: 10, max_length_ratio: 1.5}
train:
  beta: 0.3
  sft_alpha: 0.5
  learning_rate: 4e-6
  num_epochs: 1
  pairs_per_step: 64
  pairs_per_device: 4
  warmup_ratio: 0.1
  lora: {r: 8, alpha: 16}
  save_every_steps: 10
  seed: 0
evaluate: {num_frames: 32, prompts: question, confidence: 0.95, bootstrap_samples: 1000}
register: {name: demo-tpo, experiment: demo, min_gain: 0}
demo: {num_train_videos: 4, num_eval_videos: 3, questions_per_eval_video: 2, min_events: 4, max_events: 8,
  num_needles: 4, num_haystacks: 2, seed: 0}
"""


def load(folder: Path, content: str | bytes) -> Params:
    path = folder / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_params(path)


def told(folder: Path, content: str | bytes) -> str:
    """The message that a broken file gives."""
    with pytest.raises(UserError) as caught:
        load(folder, content)
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_good_file_is_read_with_types_and_defaults(tmp_path: Path) -> None:
    params = load(tmp_path, GOOD)
    assert params.data.videos == Path("data/videos")
    assert params.ingest.extensions == (".mp4", ".mkv")
    assert params.train.learning_rate == 4e-6, "YAML reads 4e-6 as text"
    assert params.train.lora is not None
    assert params.train.lora.r == 8
    assert (params.validate_.min_pairs, params.register_.name) == (10, "demo-tpo")
    assert (params.model.device, params.model.revision, params.data.seed, params.train.dpo_weight) == (
        "auto",
        None,
        0,
        1,
    )
    assert load(tmp_path, changed("lora: {r: 8, alpha: 16}", "lora: null")).train.lora is None


def test_params_cannot_be_changed_after_reading(tmp_path: Path) -> None:
    params = load(tmp_path, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        params.judge.judge = "rule"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "beta: 0.3",
            "bta: 0.3",
            "train.bta: unknown key. Allowed here: beta, dpo_weight, evaluate_every_steps",
        ),
        ("beta: 0.3", "bta: 0.3", "train.beta: missing"),
        (
            "judge: {",
            "jugde: {",
            "jugde: unknown key. Allowed here: answer, ask, caption, data, demo, evaluate, ingest",
        ),
        ("{r: 8,", "{rank: 8,", "train.lora.rank: unknown key. Allowed here: alpha, r"),
        (
            "{min_pairs: 10",
            "{min_pair: 10",
            "validate.min_pair: unknown key. Allowed here: max_length_ratio, min_pairs, min_pairs_per_type",
        ),
        ("workers: 2", "workers: many", "runtime.workers: Input should be a valid integer"),
        ("workers: 2", "workers: 2.5", "runtime.workers: Input should be a valid integer"),
        ("[.mp4, .mkv]", ".mp4", "ingest.extensions: Input should be a valid tuple, got '.mp4'"),
        ("{r: 8, alpha: 16}", "8", "train.lora: Input should be a valid dictionary"),
        ("workers: 2", "workers: 0", "runtime.workers: Input should be greater than or equal to 1, got 0"),
        ("strength: 0.5", "strength: 2", "comprehensive.0.strength: Input should be less than or equal to 1, got 2"),
        ("sparse, strength: 0.5", "masked", "every view but without_segment needs one"),
        ("view: sparse", "view: dense", "dense takes nothing away; expected one of without_segment, sparse, shuf"),
        ("view: sparse", "view: needle", "needle takes nothing away; expected one of without_segment, sparse, shuf"),
        ("sparse, strength: 0.5", "without_segment", "a comprehensive question has no segment, so it has no view"),
        (
            ", comprehensive: [{view: sparse, strength: 0.5}]",
            "",
            "answer: Value error, dispreferred.comprehensive names no view; expected some of without_segment, sparse",
        ),
        ("batch_size: 4", "batch_size: 4\n  samples: 3", "samples above 1 need a temperature above 0"),
        ("{judge: rule}", "{judge: {url: x, modle: y}}", "judge.judge.modle: unknown key. Allowed here: api_key_env"),
        ("{judge: rule}", "{judge: {url: x}}", "judge.judge.model: missing"),
        ("{judge: rule}", "{judge: {model: x}}", "judge.judge.checkpoint: missing"),
        ("{asker: rule,", "{asker: rule, blind_samples: 2,", "a rule cannot be asked anything"),
        ("beta: 0.3", "beta: .inf", "train.beta: Input should be a finite number, got inf"),
        (
            "min_gain: 0",
            "max_loss: 2, min_gain: 0",
            "register.max_loss: Input should be less than or equal to 1, got 2",
        ),
        (
            "min_gain: 0",
            "promotion: cron, min_gain: 0",
            "register.promotion: Input should be 'gate' or 'person', got 'c",
        ),
        ("min_gain: 0", "min_gain: -.inf", "register.min_gain: Input should be a finite number, got -inf"),
        ("float32", "float8", "model.dtype: Input should be 'float32', 'bfloat16' or 'float16', got 'float8'"),
        (
            "sidecar",
            "whisper",
            "caption.source: Input should be 'sidecar', or a model: {url: …, model: …} or {checkpoint: …}, got 'whis",
        ),
        ("min_events: 4", "min_events: 9", "demo: Value error, min_events (9) must not be above max_events (8)"),
        ("demo-tpo", "Demo TPO", "register.name: String should match pattern"),
    ],
)
def test_a_mistake_is_named_by_its_place_with_what_is_allowed(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert message in told(tmp_path, changed(old, new))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = told(tmp_path, changed("workers: 2", "workers: 0").replace("beta: 0.3", "beta: 0"))
    assert "params.yaml has 2 problem(s):" in text
    assert "runtime.workers" in text
    assert "train.beta" in text


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    content = yaml.safe_load(GOOD)
    del content["mix"]
    assert "  mix: missing" in told(tmp_path, yaml.safe_dump(content))


def test_a_missing_file_says_where_to_run_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"No params.yaml here \({tmp_path}\). Run from the project's root folder."):
        load_params()


def test_what_is_not_yaml_is_refused_with_its_place(tmp_path: Path) -> None:
    assert "is not valid YAML: while parsing" in told(tmp_path, "data: {videos: [")
    assert "line 2, column" in told(tmp_path, "data:\n\tvideos: x")
    assert "is not valid YAML: 'utf-8' codec can't decode byte 0xff" in told(tmp_path, b"\xff\xfed")
    assert "is not valid YAML: could not determine a constructor" in told(
        tmp_path, "data: !!python/object:os.system {}"
    )


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words"])
def test_a_file_without_sections_is_refused(tmp_path: Path, content: str) -> None:
    assert "the file: Input should be a valid dictionary" in told(tmp_path, content)


def test_quantized_weights_are_not_trained_themselves(tmp_path: Path) -> None:
    content = yaml.safe_load(GOOD)
    content["model"]["quantization"], content["train"]["lora"] = "4bit", None
    assert "model.quantization is 4bit: only adapters train on it, set train.lora" in told(
        tmp_path, yaml.safe_dump(content)
    )


def test_a_step_that_is_no_whole_number_of_micro_batches_is_refused() -> None:
    wanted = {"beta": 0.1, "sft_alpha": 0.5, "learning_rate": 1e-4, "num_epochs": 1, "warmup_ratio": 0.1, "lora": None}
    with pytest.raises(ValidationError, match=r"pairs_per_step \(6\) must be a multiple of pairs_per_device \(4\)"):
        TrainParams(**wanted, pairs_per_step=6, pairs_per_device=4, save_every_steps=5, seed=0)


def test_the_best_checkpoint_is_one_that_was_evaluated() -> None:
    settings = yaml.safe_load(GOOD)["train"] | {"keep": "best", "save_every_steps": 10}
    assert TrainParams.model_validate(settings).evaluate_every_steps is None
    with pytest.raises(ValidationError, match="only a checkpoint that was evaluated can be the best"):
        TrainParams.model_validate(settings | {"evaluate_every_steps": 3})


@pytest.mark.parametrize(
    ("needle", "most"),
    [("null", 32), ("{modes: [after_sampling], num_frames: [16, 512]", 512), ("{modes: [in_video], minutes: [9]", 32)],
)
def test_a_model_must_be_able_to_take_the_longest_haystack_too(tmp_path: Path, needle: str, most: int) -> None:
    rest = "" if needle == "null" else ", depths: [0.5], needle_frames: 4, per_cell: 2}"
    settings = changed("prompts: question,", f"prompts: question, needle: {needle}{rest},")
    assert load(tmp_path, settings).evaluate.most_frames == most
