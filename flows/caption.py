"""caption: data/catalog → data/captions. Captions come from the files beside the videos."""

from pathlib import Path

from prefect import task

from flows.stage import CAPTIONS, CATALOG, TASK, Done, Stage, of_kind, run, stage_flow
from tpo.curation.captions import caption_video
from tpo.errors import UserError
from tpo.llm.sidecar import find_sidecar
from tpo.params import load_params
from tpo.records import Caption, Rejection, Video
from tpo.store import digest, read_records


@task(name="caption videos", **TASK)
def caption_videos(videos: list[Video], root: Path) -> Done:
    done: Done = []
    for video in videos:
        captions, rejections = caption_video(video, root)
        done.append((video.id, [*captions, *rejections]))
    return done


@stage_flow("caption")
def caption() -> None:
    params = load_params()
    root = params.data.videos
    videos = read_records(CATALOG / "videos.jsonl", Video)
    sidecars = sorted(path for video in videos if (path := find_sidecar(root / video.path)))
    with Stage("caption", "videos", digest(CATALOG / "videos.jsonl", *sidecars)) as stage:
        found = stage.map(caption_videos, videos, lambda video: video.id, params.runtime.items_per_task, root)
        captions, rejections = of_kind(found, Caption), of_kind(found, Rejection)
        captioned = {caption.video_id for caption in captions}
        without = [rejection for rejection in rejections if rejection.item in {video.id for video in videos}]
        stage.publish(
            CAPTIONS,
            {"captions.jsonl": captions, "rejected.jsonl": rejections},
            items_in=len(videos),
            items_out=len(captioned),
            set_aside=without,
            counts={"captions": len(captions), "single captions set aside": len(rejections) - len(without)},
        )
    if not captions:
        raise UserError(f"No video has captions; {CAPTIONS}/rejected.jsonl says why, the README how to add some.")


if __name__ == "__main__":
    run(caption)
