"""What the tower makes of videos: computed once, decoded ahead, and the same from disk."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_long_run import train
from test_trainer import changed, load, steps_of

from tpo.models.video_lmm import VideoLMM
from tpo.training.feature_cache import FeatureCache
from tpo.training.features import VideoFeatures
from tpo.training.run import Kept
from tpo.video.decode import VideoFolder


class Tower:
    """Counts how often a model's tower runs."""

    def __init__(self, model: VideoLMM) -> None:
        self.runs = 0
        model.model.model.vision_tower.register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.runs += 1


def test_what_is_announced_is_decoded_ahead_and_once(world, monkeypatch) -> None:
    model, decoded, usual = load(world), [], VideoFolder.frames

    def frames(folder: VideoFolder, path: str, view: Any) -> Any:
        decoded.append(view)
        return usual(folder, path, view)

    monkeypatch.setattr(VideoFolder, "frames", frames)
    full = world.pairs[0].view
    views = [full.model_copy(update={"timestamps_s": (float(number), 7.0)}) for number in range(12)]
    features = VideoFeatures(model, world.videos, world.folder)
    features.announce(views)
    deadline = time.monotonic() + 20
    while len(decoded) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(view.timestamps_s for view in decoded) == sorted(view.timestamps_s for view in views[:4])
    for view in views[::-1]:  # in another order than announced: nothing gets stuck
        assert features.encoded(view).video.timestamps_s[0] == pytest.approx(view.timestamps_s[0], abs=0.6)
    for view in views:
        features.encoded(view)
    assert {view.timestamps_s for view in decoded} == {view.timestamps_s for view in views}


def test_features_on_disk_save_the_tower(world, tmp_path: Path) -> None:
    views = [world.pairs[0].view, world.pairs[1].view]

    def features(model_id: str = "m") -> tuple[VideoFeatures, Tower]:
        model = load(world)
        tower = Tower(model)
        cache = FeatureCache(tmp_path / "features", 10**9, model_id)
        return VideoFeatures(model, world.videos, world.folder, cache), tower

    first, tower = features()
    expected = [first.encoded(view) for view in views]
    assert [first.encoded(view) for view in views] == expected
    assert tower.runs == 2
    again, tower = features()
    again.announce(views)
    for view, before in zip(views, expected, strict=True):
        found = again.encoded(view)
        assert vars(found.video) | {"pixels": None} == vars(before.video) | {"pixels": None}
        assert all(torch.equal(one, other) for one, other in zip(found.features, before.features, strict=True))
    assert tower.runs == 0
    other, tower = features("another")
    other.encoded(views[0])
    assert tower.runs == 1
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(b"half")
    broken, tower = features()
    assert torch.equal(broken.encoded(views[0]).features[0], expected[0].features[0])
    assert tower.runs == 1


def test_training_from_features_on_disk_is_the_same_training(world, tmp_path: Path, monkeypatch) -> None:
    params = changed(world.params, feature_cache_gb=1)
    kept = Kept(features=tmp_path / "features")
    first = train(world, tmp_path / "first", params, kept=kept)
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(VideoLMM, "encode_video", None)  # nothing is encoded again
        again = train(world, tmp_path / "again", params, kept=kept)
    without = train(world, tmp_path / "without", world.params)
    assert steps_of(first.history) == steps_of(again.history) == steps_of(without.history)


def test_features_on_disk_stay_within_their_bytes(world, tmp_path: Path) -> None:
    model = load(world)
    found = VideoFeatures(model, world.videos, world.folder).encoded(world.pairs[0].view)
    cache = FeatureCache(tmp_path, 3 * found.num_bytes, "m")
    for number in range(6):
        view = world.pairs[0].view.model_copy(update={"timestamps_s": (float(number),)})
        cache.write(view, found.video, found.features)
    kept = list(tmp_path.iterdir())
    assert 1 <= len(kept) <= 3
    assert cache.has(view)
