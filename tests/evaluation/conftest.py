"""What tests of planning and of asking share: the three benchmarks with a video each, and a small model."""

from pathlib import Path

import pytest
from tiny import load, save_tiny

from tpo.demo.benchmarks import write_benchmarks
from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.preflight import check_video, group_by_video
from tpo.models.video_lmm import VideoLMM
from tpo.records import Item, Video
from tpo.video.probe import Prober


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all benchmarks, and `.frames` in it; whoever changes a file puts it back."""
    root = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(root, 3, 3, 4, 5, seed=0)
    return root


@pytest.fixture(scope="session")
def groups(root: Path) -> list[list[Item]]:
    return group_by_video(load_benchmarks(root)[0])


@pytest.fixture(scope="session")
def videos(root: Path, groups: list[list[Item]]) -> list[Video]:
    with Prober(root / ".frames") as prober:
        found = [check_video(root, group, prober) for group in groups]
    return [video for video in found if isinstance(video, Video)]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoLMM:
    return load(save_tiny("qwen2_5_vl", tmp_path_factory.mktemp("tiny") / "model"))
