"""Prompts: one user turn of a video and a question, as the library's processors make them token ids.

Runs under both releases of transformers; alone, it prints what this release makes: python make_prompts.py
"""

import json
import re
import sys
from itertools import groupby
from typing import Any

import torch
import transformers
from make_processors import FAMILIES, load_processor

QUESTION = "What comes first?"
ANSWER = "The star."
# Frame lists as a decoder reports them: the numbers of the frames in a file of so many frames at that rate.
FRAME_LISTS: dict[str, dict[str, Any]] = {
    "2 fps": {"fps": 30.0, "frames_indices": list(range(0, 120, 15)), "total_num_frames": 120, "duration": 4.0},
    "0.5 fps": {"fps": 25.0, "frames_indices": list(range(0, 300, 50)), "total_num_frames": 300, "duration": 12.0},
    "odd, 1 fps": {"fps": 24.0, "frames_indices": [0, 24, 48, 72, 96], "total_num_frames": 120, "duration": 5.0},
    "uneven": {"fps": 30.0, "frames_indices": [0, 30, 60, 300, 330, 360], "total_num_frames": 390, "duration": 13.0},
    "ntsc": {
        "fps": 30000 / 1001,
        "frames_indices": [0, 20, 40, 60],
        "total_num_frames": 80,
        "duration": 80 * 1001 / 30000,
    },
}
FRAME_SIZE = {"llava_onevision": (384, 384), "qwen2_5_vl": (56, 84), "qwen3_vl": (64, 96)}  # nothing to resize


def make_prompts() -> list[dict[str, Any]]:
    return [prompt(family, name, given) for family in FAMILIES for name, given in FRAME_LISTS.items()]


def prompt(family: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    processor = load_processor(family)
    if family != "llava_onevision" and transformers.__version__ >= "5":
        processor.video_processor.cap_pixels_per_frame = False  # said, so that it does not warn
    frames = torch.zeros(len(given["frames_indices"]), 3, *FRAME_SIZE[family], dtype=torch.uint8)
    metadata = {**given, "frames_indices": list(given["frames_indices"])}  # a copy: 4.57.1 appends to the list
    content = [{"type": "video", "video": frames}, {"type": "text", "text": QUESTION}]
    turn = [{"role": "user", "content": content}]
    output = call(processor, turn, frames, metadata)
    ids = output["input_ids"][0]
    made = {
        "name": f"{family}/{name}",
        "family": family,
        "frames": [len(frames), *FRAME_SIZE[family]],
        "question": QUESTION,
        "metadata": given,
        "timestamps": [round(index / given["fps"], 6) for index in given["frames_indices"]],
        "text": processor.apply_chat_template(turn, add_generation_prompt=True),
        "input_ids": run_lengths(ids),
    }
    if "mm_token_type_ids" in output:
        made["mm_token_type_ids"] = run_lengths(output["mm_token_type_ids"][0])
    if "video_grid_thw" in output:
        made["video_grid_thw"] = torch.as_tensor(output["video_grid_thw"]).tolist()
    if "second_per_grid_ts" in output:
        made["second_per_grid_ts"] = [float(seconds) for seconds in output["second_per_grid_ts"]]
    if family == "qwen3_vl":
        made["seconds"] = re.findall(r"<[\d.]+ seconds>", processor.tokenizer.decode(ids))
    answered = [*turn, {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}]
    made["text_with_answer"] = processor.apply_chat_template(answered)
    return made


def call(processor: Any, turn: list[dict[str, Any]], frames: torch.Tensor, metadata: dict[str, Any]) -> Any:
    options = {"do_sample_frames": False, "video_metadata": [metadata]}
    if transformers.__version__ >= "5":
        options["return_mm_token_type_ids"] = True
        return processor.apply_chat_template(
            turn, add_generation_prompt=True, tokenize=True, return_dict=True, processor_kwargs=options
        )
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    return processor(text=[text], videos=[frames], **options)


def run_lengths(values: list[int]) -> list[list[int]]:
    """[value, how often in a row] pairs."""
    return [[int(value), len(list(run))] for value, run in groupby(values)]


def expand(runs: list[list[int]]) -> list[int]:
    return [value for value, count in runs for _ in range(count)]


if __name__ == "__main__":
    from torchvision_without_ops import allow_torchvision_without_its_operators

    allow_torchvision_without_its_operators()
    json.dump(make_prompts(), sys.stdout)
