"""What only a GPU machine can show of training: kernels for shared rows in bf16, memory, 4 bits.

pytest -m gpu
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny import FAMILIES, load, params, save_tiny

from tpo.params import LoraParams
from tpo.training.features import VideoFeatures
from tpo.training.rows import PairRows
from tpo.training.run import train_on_pairs
from tpo.training.scoring import add_row_scoring
from tpo.training.self_check import check_sharing

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(request.param, tmp_path_factory.mktemp("base") / request.param)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shared_rows_score_as_rows_of_their_own(world, base: Path, dtype: str) -> None:
    model = load(base, device="cuda", dtype=dtype)
    add_row_scoring(model.model, model.family)
    rows = PairRows(world.pairs, VideoFeatures(model, world.videos, world.folder), model, "video")
    check_sharing(model, rows, [0, 2, 4])


@pytest.mark.parametrize("lora", [None, LoraParams(r=2, alpha=4)], ids=["full", "lora"])
def test_a_run_in_bfloat16_moves_the_margin(world, base: Path, tmp_path: Path, lora: LoraParams | None) -> None:
    changes = {"pairs_per_step": 6, "pairs_per_device": 3, "lora": lora, "num_epochs": 5}
    on_gpu = params(base, device="cuda", dtype="bfloat16")
    found = train_on_pairs(
        world.pairs, world.videos, world.folder, on_gpu, world.params.model_copy(update=changes), tmp_path
    )
    steps = [entry for entry in found.history if "loss" in entry]
    assert steps[-1]["rewards/margins"] > steps[0]["rewards/margins"]


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_an_adapter_trains_on_four_bits(world, base: Path, tmp_path: Path) -> None:
    on_gpu = params(base, device="cuda", dtype="bfloat16", quantization="4bit")
    settings = world.params.model_copy(update={"lora": LoraParams(r=2, alpha=4)})
    found = train_on_pairs(world.pairs, world.videos, world.folder, on_gpu, settings, tmp_path)
    assert len([entry for entry in found.history if "loss" in entry]) == 6
