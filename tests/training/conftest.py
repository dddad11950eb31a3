"""Two real videos, six pairs about them, and settings for a training run of seconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tpo.demo.world import plan_events, write_video
from tpo.params import ModelParams, TrainParams
from tpo.records import Granularity, PreferencePair, QuestionType, Video
from tpo.video.decode import VideoFolder
from tpo.video.probe import Prober
from tpo.video.sample import dense, sparse

ANSWERS = [
    ("a red star", "a blue moon"),
    ("red", "a green ring, then a white heart"),
    ("a red star, then a yellow plus", "blue"),
    ("a purple arrow", "a cyan fence"),
    ("orange", "white"),
    ("a red star", "a red moon"),
]


@dataclass(frozen=True)
class World:
    """Everything that training takes."""

    folder: VideoFolder
    videos: dict[str, Video]
    pairs: list[PreferencePair]
    base: ModelParams
    params: TrainParams


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> World:
    root = tmp_path_factory.mktemp("videos")
    videos = []
    with Prober(root / ".frames") as prober:
        for number in range(2):
            write_video(root / f"{number}.mp4", plan_events(np.random.default_rng(number), 3), float(number))
            video = prober.probe(root, root / f"{number}.mp4")
            assert isinstance(video, Video)
            videos.append(video)
    pairs = []
    for number, (chosen, rejected) in enumerate(ANSWERS):
        full = dense(videos[number % 2], 6)
        fields = {
            "id": f"pair{number}", "video_id": full.video_id, "query_id": f"q{number}", "view": full,
            "granularity": Granularity.COMPREHENSIVE, "question_type": QuestionType.TEMPORAL_REASONING,
            "question": "What comes right after the moon ?", "chosen": chosen, "rejected": rejected,
            "chosen_tokens": len(chosen.split()), "rejected_tokens": len(rejected.split()),
            "chosen_view": full, "rejected_view": sparse(full, 0.5, 0), "segment": None, "model_id": "m",
            "verdicts": (), "judge": "rule",
        }  # fmt: skip
        pairs.append(PreferencePair.model_validate(fields))
    return World(
        folder=VideoFolder(root, root / ".frames"),
        videos={video.id: video for video in videos},
        pairs=pairs,
        base=ModelParams(base=str(tiny_checkpoint), revision=None, dtype="float32", device="cpu"),
        params=TrainParams(
            beta=0.2, sft_alpha=0.5, learning_rate=1e-3, num_epochs=1, pairs_per_step=1, pairs_per_device=1,
            warmup_ratio=0.0, lora=None, save_every_steps=100, seed=0,
        ),
    )  # fmt: skip
