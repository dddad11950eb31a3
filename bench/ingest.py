"""What cataloging a folder costs: on one core and on two, and as the folder grows.

    python bench/ingest.py            # 100, 500 and 2,000 files
    python bench/ingest.py --quick    # 50 and 200 files

Runs `python -m flows.ingest` on folders of different 10-second clips (160x90, H.264, a moving pattern of its own in
each). Seconds are those of the stage, from its manifest: without the start of Python and of Prefect's server.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
FPS, SECONDS = 12, 10
HEIGHT_PX, WIDTH_PX = 90, 160


def write_clip(path: Path, number: int) -> None:
    """Blocks of grey that glide over each other, others in each clip and from one second to the next."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(16, 235, (SECONDS, HEIGHT_PX // 10, WIDTH_PX // 10), np.uint8)
    scenes = coarse.repeat(10, axis=1).repeat(10, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.thread_count = 1
        for tick in range(SECONDS * FPS):
            picture = np.roll(scenes[tick // FPS], tick % FPS * 3, axis=1)
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts, frame.time_base = tick, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def catalog(clips: list[Path], workers: int, folder: Path) -> tuple[float, int]:
    """Seconds of the ingest stage in a fresh project with these clips, and how many videos it kept."""
    project = folder / f"project_{len(clips)}_{workers}"
    (project / "videos").mkdir(parents=True)
    (project / "benchmarks").mkdir()
    for clip in clips:
        os.link(clip, project / "videos" / clip.name)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["data"] |= {"videos": "videos", "benchmarks": "benchmarks"}
    settings["runtime"]["workers"] = workers
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "prefect")}
    subprocess.run(
        [sys.executable, "-m", "flows.ingest"], cwd=project, env=environment, check=True, capture_output=True
    )
    manifest = json.loads((project / "data/catalog/manifest.json").read_text())
    shutil.rmtree(project)
    return manifest["seconds"], manifest["items_out"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 and 200 files")
    args = parser.parse_args()
    sizes = [50, 200] if args.quick else [100, 500, 2000]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = [folder / f"clip_{number:05}.mp4" for number in range(sizes[-1])]
        for number, clip in enumerate(clips):
            write_clip(clip, number)
        print(f"{'files':>6} {'workers':>8} {'seconds':>9} {'ms a file':>10} {'videos kept':>12}")
        seconds: dict[tuple[int, int], float] = {}
        for count, workers in [(sizes[1], 1), *((size, 2) for size in sizes)]:
            seconds[count, workers], kept = catalog(clips[:count], workers, folder)
            per_file_ms = 1000 * seconds[count, workers] / count
            print(f"{count:6} {workers:8} {seconds[count, workers]:9.1f} {per_file_ms:10.1f} {kept:12}", flush=True)
    per_file = {size: seconds[size, 2] / size for size in sizes}
    print(
        json.dumps(
            {
                "speedup_2_workers": round(seconds[sizes[1], 1] / seconds[sizes[1], 2], 2),
                "files_per_second": {size: round(1 / cost, 1) for size, cost in per_file.items()},
                f"cost_per_file_{sizes[-1]}_over_{sizes[0]}": round(per_file[sizes[-1]] / per_file[sizes[0]], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
