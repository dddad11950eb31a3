"""M-RoPE positions, as transformers computes them and as Qwen2.5-VL's authors trained with them.

Runs under both releases of transformers; alone, it reads cases and prints what this release makes of them:
python make_positions.py < cases.json
"""

import json
import sys
from typing import Any

import torch
import transformers
from make_prompts import expand, run_lengths

TEXT, VISION_START, VISION_END, VIDEO_PAD, IMAGE_PAD, PAD = 40, 270, 271, 274, 273, 268  # of the tiny tokenizer
TOKENS_PER_SECOND = 2  # of Qwen2.5-VL's checkpoints; the configuration class says 4
MERGE = 2


def synthetic_cases() -> list[dict[str, Any]]:
    """Layouts without a prompt's words. Grids are named by what remains after 2×2 patches are merged into one."""
    return [
        *(bulk(f"48x8x14 at {fps} fps", [(48, 8, 14)], [2 / fps], 11, 21) for fps in (2, 1, 0.25)),
        bulk("2x4x6 at 2 fps", [(2, 4, 6)], [1.0], 5, 7),
        bulk("1x2x2 at 2 fps", [(1, 2, 2)], [1.0], 1, 3),
        bulk("6x4x6 at 4 fps", [(6, 4, 6)], [0.5], 5, 7),
        bulk("6x4x6 at 1.5 fps", [(6, 4, 6)], [2 / 1.5], 5, 7),
        bulk("24x2x3 at 0.3 fps", [(24, 2, 3)], [2 / 0.3], 5, 7),
        bulk("two videos", [(2, 4, 6), (3, 2, 2)], [1.0, 4.0], 5, 7),
        batch("left-padded batch", [bulk("", [(2, 4, 6)], [2.0], 5, 7), bulk("", [(3, 2, 2)], [1.0], 3, 4)]),
        framed("48x8x14", (48, 8, 14), 11, 21),
        framed("2x4x6", (2, 4, 6), 5, 7),
        framed("1x2x2", (1, 2, 2), 1, 3),
        batch("left-padded batch", [framed("", (2, 4, 6), 5, 7), framed("", (3, 2, 2), 3, 4)]),
    ]


def bulk(name: str, grids: list[tuple[int, int, int]], seconds: list[float], before: int, after: int) -> dict[str, Any]:
    """Qwen2.5-VL: text, the first video's start among it; each video as one block; text, the last one's end first."""
    ids = [TEXT] * (before - 1)
    for t, h, w in grids:
        ids += [VISION_START] + [VIDEO_PAD] * (t * h * w) + [VISION_END]
    ids += [TEXT] * (after - 1)
    return one("qwen2_5_vl", name, ids, [(t, h * MERGE, w * MERGE) for t, h, w in grids], seconds)


def framed(name: str, grid: tuple[int, int, int], before: int, after: int) -> dict[str, Any]:
    """Qwen3-VL as 5.23.0 writes it: each merged frame after five tokens of time, all between one more start and end."""
    t, h, w = grid
    frame = [TEXT] * 5 + [VISION_START] + [VIDEO_PAD] * (h * w) + [VISION_END]
    ids = [TEXT] * (before - 1) + [VISION_START] + frame * t + [VISION_END] + [TEXT] * (after - 1)
    return one("qwen3_vl", name, ids, [(t, h * MERGE, w * MERGE)], None)


def one(
    family: str, name: str, ids: list[int], grids: list[tuple[int, int, int]], seconds: list[float] | None
) -> dict[str, Any]:
    return {
        "name": f"{family}/{name}",
        "family": family,
        "input_ids": [run_lengths(ids)],
        "video_grid_thw": [list(grid) for grid in grids],
        "second_per_grid_ts": seconds,
    }


def batch(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ids = [expand(row["input_ids"][0]) for row in rows]
    longest = max(map(len, ids))
    seconds = [row["second_per_grid_ts"] for row in rows]
    return {
        "name": f"{rows[0]['family']}/{name}",
        "family": rows[0]["family"],
        "input_ids": [run_lengths([PAD] * (longest - len(row)) + row) for row in ids],
        "video_grid_thw": [grid for row in rows for grid in row["video_grid_thw"]],
        "second_per_grid_ts": [s for row in seconds for s in row] if seconds[0] else None,
    }


def positions(case: dict[str, Any]) -> dict[str, Any]:
    """This release's table and deltas, and where it puts the next token: in a longer row, and when it generates."""
    model = build_model(case["family"])
    inputs = model_inputs(case)
    table, deltas = model.model.get_rope_index(**inputs)
    one_more = {"input_ids": TEXT, "attention_mask": 1, "mm_token_type_ids": 0}
    longer = {
        name: torch.cat([inputs[name], inputs[name].new_full((len(table[0]), 1), value)], dim=1)
        for name, value in one_more.items()
        if name in inputs
    }
    trained, _ = model.model.get_rope_index(**{**inputs, **longer})
    return {
        "table": [[run_steps(axis) for axis in row] for row in table.transpose(0, 1).tolist()],
        "rope_deltas": deltas.flatten().tolist(),
        "next_in_training": trained[:, :, -1].T.tolist(),
        **positions_received(model, inputs, sum(t * h * w for t, h, w in case["video_grid_thw"])),
    }


def model_inputs(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([expand(row) for row in case["input_ids"]])
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "video_grid_thw": torch.tensor(case["video_grid_thw"]),
    }
    if case["second_per_grid_ts"]:
        inputs["second_per_grid_ts"] = torch.tensor(case["second_per_grid_ts"])
    if transformers.__version__ >= "5":
        inputs["mm_token_type_ids"] = (ids == VIDEO_PAD).int() * 2
    return inputs


def positions_received(model: Any, inputs: dict[str, torch.Tensor], num_patches: int) -> dict[str, Any]:
    """The positions that the decoder receives for the first token after the prompt: in one call of generate(), and
    in a second call of the model upon the cache of the first (unpadded rows only)."""
    received = []

    def note(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        received.append(kwargs["position_ids"][-3:, :, -1].expand(3, -1).T.tolist())

    handle = model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    patch = model.config.vision_config.patch_size
    prompt = {**inputs, "pixel_values_videos": torch.zeros(num_patches, 3 * 2 * patch * patch)}
    answer = {"min_new_tokens": 2, "max_new_tokens": 2, "do_sample": False}
    found: dict[str, Any] = {"next_in_generate": None, "next_upon_cache": None}
    with torch.no_grad():
        model.generate(**prompt, **answer)
        found["next_in_generate"] = received[-1]
        if bool(inputs["attention_mask"].all()):
            cache = model(**prompt, use_cache=True).past_key_values
            length = inputs["input_ids"].shape[1]
            # Without a mask: with one, 5.23.0 hands on the positions of the whole row and fails.
            model(input_ids=torch.tensor([[TEXT]]), past_key_values=cache, cache_position=torch.tensor([length]))
            found["next_upon_cache"] = received[-1]
    handle.remove()
    return found


def build_model(family: str) -> Any:
    """Random weights, as small as they go: only the positions matter."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    text = {
        "vocab_size": 280,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "rope_parameters" if transformers.__version__ >= "5" else "rope_scaling": rope,
        "pad_token_id": PAD,
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    vision |= {"patch_size": 2, "spatial_merge_size": MERGE, "temporal_patch_size": 2}
    tokens = {"image_token_id": IMAGE_PAD, "video_token_id": VIDEO_PAD, "vision_start_token_id": VISION_START}
    tokens |= {"vision_end_token_id": VISION_END}
    if family == "qwen2_5_vl":
        vision |= {"tokens_per_second": TOKENS_PER_SECOND, "window_size": 8, "fullatt_block_indexes": [0]}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
        return Qwen2_5_VLForConditionalGeneration(config).eval()
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **tokens)).eval()


def authors_positions(case: dict[str, Any]) -> list[list[list[int]]]:
    """Qwen2.5-VL by its authors' rule, one [3, length] table a row; padding is left at 1.

    Text goes on after the greatest position so far, on whatever axis. A video's frame pairs lie `seconds × 2` apart,
    rounded down after multiplying, not before.
    """
    grids = iter(zip(case["video_grid_thw"], case["second_per_grid_ts"], strict=True))
    tables = []
    for row in case["input_ids"]:
        blocks, start = [], 0
        for value, count in row:
            if value == PAD:
                blocks.append(torch.ones(3, count, dtype=torch.long))
                continue
            if value == VIDEO_PAD:
                (t, h, w), seconds = next(grids)
                times = (torch.arange(t) * torch.tensor(seconds) * TOKENS_PER_SECOND).long()
                axes = torch.meshgrid(times, torch.arange(h // MERGE), torch.arange(w // MERGE), indexing="ij")
                block = torch.stack(axes).flatten(1)
            else:
                block = torch.arange(count).expand(3, -1)
            blocks.append(block + start)
            start = int(blocks[-1].max()) + 1
        tables.append(torch.cat(blocks, dim=1).tolist())
    return tables


def run_steps(values: list[int]) -> list[list[int]]:
    """[first, step, count] runs: what a row of positions is made of."""
    runs: list[list[int]] = []
    for value in values:
        if runs and runs[-1][2] == 1:
            runs[-1] = [runs[-1][0], value - runs[-1][0], 2]
        elif runs and value == runs[-1][0] + runs[-1][1] * runs[-1][2]:
            runs[-1][2] += 1
        else:
            runs.append([value, 0, 1])
    return runs


if __name__ == "__main__":
    from torchvision_without_ops import allow_torchvision_without_its_operators

    allow_torchvision_without_its_operators()
    json.dump([positions(case) for case in json.load(sys.stdin)], sys.stdout)
