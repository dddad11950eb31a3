"""Captions of a video, from the file that lies beside it, with times checked against the video.

captions, rejections = caption_video(video, Path("data/videos"))
"""

from pathlib import Path

from tpo.llm.sidecar import SUFFIXES, CaptionFileError, SidecarCaption, find_sidecar, read_sidecar
from tpo.records import Caption, Reason, Rejection, Video, content_id

STAGE = "caption"
_ROUNDING_S = 1.0  # ours: caption files round to whole seconds, and some count the container's length, not the frames'


def caption_video(video: Video, videos_root: Path) -> tuple[list[Caption], list[Rejection]]:
    """The captions of one video in time order, and what was set aside.

    A video without a single usable caption has one rejection of its own, whose `item` is the video's id. A caption
    that was set aside is named by its file and its number in it, `walk.srt#3`. An end up to a second (or a frame) past
    the video's end is rounding and is moved to the video's end.
    """
    sidecar = find_sidecar(videos_root / video.path)
    if sidecar is None:
        names = ", ".join(f"{Path(video.path).stem}{suffix}" for suffix in SUFFIXES)
        return [], [_rejection(video.id, Reason.NO_CAPTIONS, f"{video.path} has none of {names} beside it")]
    name = Path(video.path).with_name(sidecar.name).as_posix()
    try:
        cues = read_sidecar(sidecar)
    except CaptionFileError as error:
        return [], [_rejection(video.id, Reason.BAD_CAPTION_FILE, f"{name}: {error}")]
    captions: dict[str, Caption] = {}
    rejections = []
    for number, cue in enumerate(cues, start=1):
        caption = _checked(cue, video, sidecar.name)
        if isinstance(caption, Caption) and caption.id in captions:
            caption = (Reason.DUPLICATE, "the same caption at the same time occurs before")
        if isinstance(caption, Caption):
            captions[caption.id] = caption
        else:
            rejections.append(_rejection(f"{name}#{number}", *caption))
    if not captions:
        rejections.append(_rejection(video.id, Reason.NO_CAPTIONS, f"{name} has {len(cues)} captions, none usable"))
    return sorted(captions.values(), key=lambda caption: (caption.start_s, caption.end_s)), rejections


def _checked(cue: SidecarCaption, video: Video, source: str) -> Caption | tuple[Reason, str]:
    if not any(character.isalnum() for character in cue.text):  # subtitles have "..." and "♪"
        return Reason.EMPTY_CAPTION, f"no words at {cue.start_s} s: {cue.text[:80]!r}"
    latest_end_s = video.duration_s + max(_ROUNDING_S, 1 / video.fps)
    if not (0 <= cue.start_s < video.duration_s and cue.start_s < cue.end_s <= latest_end_s):
        where = f"{cue.start_s} to {cue.end_s} s in a video of {video.duration_s} s"
        return Reason.CAPTION_OUTSIDE_VIDEO, f"{where}: {cue.text[:80]}"
    end_s = min(cue.end_s, video.duration_s)
    return Caption(
        id=content_id(video.id, cue.start_s, end_s, cue.text),
        video_id=video.id,
        start_s=cue.start_s,
        end_s=end_s,
        text=cue.text,
        source=source,
    )


def _rejection(item: str, reason: Reason, detail: str) -> Rejection:
    return Rejection(stage=STAGE, item=item, reason=reason, detail=detail)
