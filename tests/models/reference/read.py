"""The reference values as tensors and lists, for tests. Needs torch and safetensors, not the library."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent


def frames() -> list[dict[str, Any]]:
    """Every case with `at`, the flat indices into the library's output, and `values`, the grey levels there.

    `values` is what the library makes on a CPU; `values_float` what its float32 path makes (not for `clip_336`).
    """
    levels = load_file(HERE / "frames.safetensors")
    cases = json.loads((HERE / "frames.json").read_text())
    for case in cases:
        case["at"] = case["first"] + case["step"] * torch.arange(case["count"])
        case["values"] = levels[case["name"]]
        case["values_float"] = levels.get(f"{case['name']}@float")
    return cases


def prompts() -> list[dict[str, Any]]:
    """Every prompt, token ids and types written out."""
    entries = json.loads((HERE / "prompts.json").read_text())
    for entry in entries:
        for made in (entry, entry["4.57.1"]):
            for key in ("input_ids", "mm_token_type_ids"):
                if key in made:
                    made[key] = runs(made[key])
    return entries


def positions() -> list[dict[str, Any]]:
    """Every case: `input_ids` [rows, length] and a `table` [3, rows, length] by each release and the authors' rule."""
    cases = json.loads((HERE / "positions.json").read_text())
    for case in cases:
        case["input_ids"] = torch.tensor([runs(row) for row in case["input_ids"]])
        for by in ("5.23.0", "4.57.1", "authors"):
            if by in case:
                rows = [[steps(axis) for axis in row] for row in case[by]["table"]]
                case[by]["table"] = torch.tensor(rows).transpose(0, 1)
    return cases


def runs(pairs: list[list[int]]) -> list[int]:
    """[value, count] pairs written out."""
    return [value for value, count in pairs for _ in range(count)]


def steps(pieces: list[list[int]]) -> list[int]:
    """[first, step, count] pieces written out."""
    return [first + step * i for first, step, count in pieces for i in range(count)]
