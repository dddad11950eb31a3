"""caption: data/catalog → data/captions. Captions come from the files beside the videos, or from a model that sees."""

from pathlib import Path
from typing import Any

from flows.chat import chat_with, watched
from flows.frames import video_folder
from flows.stage import CAPTIONS, CATALOG, Done, Stage, of_kind, run, stage_flow, stage_task
from tpo.curation.captions import caption_video
from tpo.curation.model_captions import caption_videos
from tpo.errors import UserError
from tpo.llm.sidecar import find_sidecar
from tpo.params import CaptionParams, Params, load_params
from tpo.records import Caption, Record, Rejection, Video
from tpo.store import digest, read_records
from tpo.video.decode import VideoFolder


@stage_task("caption from files")
def caption_from_files(videos: list[Video], root: Path) -> Done:
    done: Done = []
    for video in videos:
        captions, rejections = caption_video(video, root)
        done.append((video.id, [*captions, *rejections]))
    return done


@stage_task("caption by model")
def caption_by_model(videos: list[Video], folder: VideoFolder, params: CaptionParams) -> Done:
    assert params.source != "sidecar"
    return caption_videos(chat_with(params.source), videos, folder, params)


@stage_flow("caption")
def caption() -> None:
    params = load_params()
    root = params.data.videos
    videos = read_records(CATALOG / "videos.jsonl", Video)
    sidecars = sorted(path for video in videos if (path := find_sidecar(root / video.path)))
    key = (digest(CATALOG / "videos.jsonl", *sidecars), params.caption.model_dump(mode="json"))
    with Stage("caption", "videos", *key) as stage:
        found, facts = _captions(stage, videos, params)
        captions, rejections = of_kind(found, Caption), of_kind(found, Rejection)
        ids = {video.id for video in videos}
        without = [rejection for rejection in rejections if rejection.item in ids]
        stage.publish(
            CAPTIONS,
            {"captions.jsonl": captions, "rejected.jsonl": rejections},
            items_in=len(videos),
            items_out=len({caption.video_id for caption in captions}),
            set_aside=without,
            counts={"captions": len(captions), "single captions set aside": len(rejections) - len(without)},
            facts=facts,
        )
    if not captions:
        raise UserError(f"No video has captions; {CAPTIONS}/rejected.jsonl says why, the README how to add some.")


def _captions(stage: Stage, videos: list[Video], params: Params) -> tuple[list[Record], dict[str, Any]]:
    """What the source gives, and what it cost."""
    source, per_task = params.caption.source, params.runtime.items_per_task
    if source == "sidecar":
        return stage.map(caption_from_files, videos, _id, per_task, params.data.videos), {}
    chat = watched(source, stage)
    folder = video_folder(params.data.videos, params.runtime)
    found = stage.map(caption_by_model, videos, _id, per_task, folder, params.caption)
    return found, {"model": chat.id, "usage": chat.usage.model_dump()}


def _id(video: Video) -> str:
    return video.id


if __name__ == "__main__":
    run(caption)
