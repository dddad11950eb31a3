"""Make the reference values again, from the library itself (README.md says what they are).

    python make.py --older PYTHON

Run it with transformers 5.23.0, torch, torchvision, pillow and safetensors installed. PYTHON is an interpreter with
transformers 4.57.1, torch, torchvision and pillow, asked for its prompts and positions. torchvision's compiled
operators may be missing from either. Takes three minutes on two cores and 3 GB of memory.
"""

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from make_frames import make_frames
from make_positions import (
    IMAGE_PAD,
    PAD,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    authors_positions,
    positions,
    run_steps,
    synthetic_cases,
)
from make_processors import load_processor, make_processors
from make_prompts import make_prompts
from torchvision_without_ops import allow_torchvision_without_its_operators

HERE = Path(__file__).parent
RELEASE, OLDER = "5.23.0", "4.57.1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--older", required=True, help=f"a Python interpreter with transformers {OLDER}")
    older = parser.parse_args().older
    allow_torchvision_without_its_operators()
    check_releases(older)
    make_processors()
    check_tokens()
    make_frames()
    prompts, older_prompts = make_prompts(), ask(older, "make_prompts.py")
    write("prompts.json", [with_older(new, old) for new, old in zip(prompts, older_prompts, strict=True)])
    cases = [*prompt_cases(prompts, older_prompts), *synthetic_cases()]
    tables = {RELEASE: [positions(case) for case in cases], OLDER: ask(older, "make_positions.py", cases)}
    write("positions.json", [with_tables(case, tables, number) for number, case in enumerate(cases)])
    packages = ("transformers", "torch", "torchvision", "tokenizers", "pillow", "numpy")
    write("versions.json", [{**{name: version(name) for name in packages}, "older transformers": OLDER}])


def check_releases(older: str) -> None:
    command = [older, "-c", "import transformers; print(transformers.__version__)"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if (version("transformers"), found) != (RELEASE, OLDER):
        sys.exit(f"needs transformers {RELEASE} and {OLDER}, found {version('transformers')} and {found}")


def check_tokens() -> None:
    """The ids that make_positions.py writes down are the tokenizer's."""
    tokenizer = load_processor("qwen2_5_vl").tokenizer
    names = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>", "<|endoftext|>")
    ids = (VISION_START, VISION_END, VIDEO_PAD, IMAGE_PAD, PAD)
    assert tuple(tokenizer.convert_tokens_to_ids(names)) == ids, "the tokenizer has other ids"


def ask(python: str, script: str, given: Any = None) -> Any:
    """What a script of this folder prints under another interpreter."""
    command = [python, str(HERE / script)]
    return json.loads(subprocess.run(command, input=json.dumps(given), text=True, stdout=-1, check=True).stdout)


def with_older(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    return {**new, OLDER: {key: old[key] for key in ("input_ids", "second_per_grid_ts") if key in old}}


def prompt_cases(prompts: list[dict[str, Any]], older_prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The prompts of both Qwen families as cases for positions; Qwen3-VL's as either release writes them."""
    cases = []
    for new, old in zip(prompts, older_prompts, strict=True):
        if new["family"] == "llava_onevision":
            continue
        case = {
            "name": new["name"],
            "family": new["family"],
            "input_ids": [new["input_ids"]],
            "video_grid_thw": new["video_grid_thw"],
            "second_per_grid_ts": new.get("second_per_grid_ts"),
        }
        cases.append(case)
        if old["input_ids"] != new["input_ids"]:
            cases.append({**case, "name": f"{new['name']}, prompt of {OLDER}", "input_ids": [old["input_ids"]]})
    return cases


def with_tables(case: dict[str, Any], tables: dict[str, list[Any]], number: int) -> dict[str, Any]:
    found = {**case, **{release: made[number] for release, made in tables.items()}}
    if case["family"] == "qwen2_5_vl":
        found["authors"] = {"table": [[run_steps(axis) for axis in row] for row in authors_positions(case)]}
    return found


def write(name: str, entries: list[Any]) -> None:
    """One entry a line."""
    (HERE / name).write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
