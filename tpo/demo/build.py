"""Build the demo world: `python -m tpo.demo.build` (the first stage of `dvc repro`, see `demo/dvc.yaml`).

Writes a folder of long videos to train on, with captions beside them and a few damaged files among them, because real
folders have some; and unseen videos to evaluate on, in the three benchmarks' official layouts.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from tpo.demo.benchmarks import write_benchmarks
from tpo.demo.needles import MAX_HAYSTACK_EVENTS, write_needles
from tpo.demo.world import Event, plan_events, write_video
from tpo.params import DemoParams, load_params
from tpo.progress import progress, waiting

VIDEOS = Path("data/demo/videos")
BENCHMARKS = Path("data/demo/benchmarks")
_TRAINING_VIDEOS = 1  # apart from the evaluation videos' seeds, see `tpo.demo.benchmarks`


def write_json(path: Path, events: Sequence[Event]) -> None:
    captions = [{"start_s": event.start_s, "end_s": event.end_s, "text": event.caption} for event in events]
    path.with_suffix(".captions.json").write_text(json.dumps({"captions": captions}, indent=1) + "\n")


def write_srt(path: Path, events: Sequence[Event]) -> None:
    cues = [
        f"{number}\n{_clock(event.start_s, ',')} --> {_clock(event.end_s, ',')}\n{event.caption}\n"
        for number, event in enumerate(events, start=1)
    ]
    path.with_suffix(".srt").write_text("\n".join(cues))


def write_vtt(path: Path, events: Sequence[Event]) -> None:
    cues = [f"{_clock(e.start_s, '.')} --> {_clock(e.end_s, '.')}\n{e.caption}\n" for e in events]
    path.with_suffix(".vtt").write_text("WEBVTT\n\n" + "\n".join(cues))


def _clock(time_s: float, point: str) -> str:
    whole, milliseconds = divmod(round(time_s * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"


def build_videos(folder: Path, params: DemoParams) -> None:
    """Write the training pool: sound videos with captions in three formats, and the damaged ones."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([params.seed, _TRAINING_VIDEOS])
    writers = (write_json, write_srt, write_vtt)
    with progress(params.num_train_videos, "demo world", "videos") as bar:
        for number in range(params.num_train_videos):
            events = plan_events(rng, int(rng.integers(params.min_events, params.max_events, endpoint=True)))
            path = folder / f"walk_{number:04}.mp4"
            write_video(path, events, phase=float(rng.uniform(0, 6.28)))
            writers[number % 3](path, events)
            bar.update()
    _write_damaged(folder, rng)


def _write_damaged(folder: Path, rng: np.random.Generator) -> None:
    """What real folders have: an upload cut short, an empty file, a page saved as a video, sound only, a copy, …"""
    sound = (folder / "walk_0000.mp4").read_bytes()
    (folder / "cut_short.mp4").write_bytes(sound[: len(sound) // 3])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "login_page.mp4").write_text("<html><body>Please log in to download this video.</body></html>")
    (folder / "walk_0000_copy.mp4").write_bytes(sound)
    with av.open(str(folder / "sound_only.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode()])
    for name in ("no_captions.mp4", "bad_captions.mp4"):
        write_video(folder / name, plan_events(rng, 8), phase=float(rng.uniform(0, 6.28)))
    (folder / "bad_captions.srt").write_text("1\n00:00:00,000 -> half past nine\na red star\n")


def build_benchmarks(folder: Path, params: DemoParams) -> None:
    """Write unseen videos to evaluate on: three benchmarks, and needles with their haystacks."""
    with waiting("demo world, benchmarks"):
        write_benchmarks(
            folder,
            params.num_eval_videos,
            params.questions_per_eval_video,
            params.min_events,
            params.max_events,
            params.seed,
        )
        write_needles(folder, params.num_needles, params.num_haystacks, MAX_HAYSTACK_EVENTS, params.seed)


def main() -> None:
    params = load_params().demo
    for folder in (VIDEOS, BENCHMARKS):
        shutil.rmtree(folder, ignore_errors=True)
    build_videos(VIDEOS, params)
    build_benchmarks(BENCHMARKS, params)


if __name__ == "__main__":
    main()
