"""Which files become the catalog: find them, and set aside what is too short or there twice."""

from pathlib import Path

from tpo.errors import UserError
from tpo.params import IngestParams
from tpo.records import Reason, Rejection, Video
from tpo.video.probe import STAGE


def find_files(root: Path, params: IngestParams) -> list[Path]:
    """Every file below `root` with a video's extension, in a fixed order.

    Raises:
        UserError: there is no such folder, or no such file in it.
    """
    if not root.is_dir():
        raise UserError(f"data.videos is {root}, and there is no such folder. Set it in params.yaml.")
    wanted = {extension.lower() for extension in params.extensions}
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in wanted and not path.is_dir())
    if not paths:
        raise UserError(f"No video in {root}: no file ends in one of {', '.join(sorted(wanted))}.")
    return paths


def keep(videos: list[Video], params: IngestParams) -> tuple[list[Video], list[Rejection]]:
    """Set aside what is too short, and every copy of a video but the first."""
    kept: dict[str, Video] = {}
    rejections = []
    for video in videos:
        if video.duration_s < params.min_duration_s:
            reason, detail = Reason.TOO_SHORT, f"{video.duration_s} s, at least {params.min_duration_s} s wanted"
        elif video.id in kept:
            reason, detail = Reason.DUPLICATE, f"the same bytes as {kept[video.id].path}"
        else:
            kept[video.id] = video
            continue
        rejections.append(Rejection(stage=STAGE, item=video.path, reason=reason, detail=detail))
    return list(kept.values()), rejections
