"""Which files become the catalog: find them, and keep one of those that show the same."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tpo.errors import UserError
from tpo.params import CopyParams
from tpo.records import Reason, Rejection, Video
from tpo.video.copies import Copy, find_copies
from tpo.video.fingerprint import Fingerprint
from tpo.video.probe import STAGE


def find_files(root: Path, extensions: Collection[str]) -> list[Path]:
    """Every file below `root` with one of these extensions, in a fixed order; none if there is no such folder.

    Links to folders, which are not followed, are among them: what lies behind one must not go unnoticed.

    Raises:
        UserError: a folder cannot be read.
    """
    wanted = {extension.lower() for extension in extensions}
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root, onerror=_refuse) if root.is_dir() else ():
        found += [Path(folder, name) for name in names if Path(name).suffix.lower() in wanted]
        found += [Path(folder, name) for name in subfolders if Path(folder, name).is_symlink()]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise UserError(f"The folder {error.filename} cannot be read ({error.strerror}), so nobody knows what is in it.")


def find_videos(root: Path, extensions: Collection[str]) -> list[Path]:
    """`find_files` of a folder that must have some.

    Raises:
        UserError: there is no such folder, or no such file in it.
    """
    if not root.is_dir():
        raise UserError(f"data.videos is {root}, and there is no such folder. Set it in params.yaml.")
    paths = find_files(root, extensions)
    if not paths:
        raise UserError(f"No video in {root}: no file ends in one of {', '.join(sorted(map(str.lower, extensions)))}.")
    return paths


def drop_same_bytes(videos: Sequence[Video]) -> tuple[list[Video], list[Rejection]]:
    """Keep the first of the files with the same bytes."""
    kept: dict[str, Video] = {}
    rejections = []
    for video in videos:
        first = kept.setdefault(video.id, video)
        if first is not video:
            detail = f"the same bytes as {first.path}"
            rejections.append(Rejection(stage=STAGE, item=video.path, reason=Reason.DUPLICATE, detail=detail))
    return list(kept.values()), rejections


def find_near_duplicates(
    videos: Sequence[Video], fingerprints: Mapping[str, Fingerprint], params: CopyParams
) -> list[Rejection]:
    """The videos to set aside because a better one shows the same: a longer one, then one with more pixels, then bytes.

    Only copies of a video that is kept are set aside, so something of everything remains.
    """
    better_first = sorted(videos, key=lambda v: (-round(v.duration_s), -v.width * v.height, -v.size_bytes, v.path))
    by_id = {video.id: video for video in better_first}
    ordered = {video.id: fingerprints[video.id] for video in better_first}
    set_aside: dict[str, Rejection] = {}
    for copy in find_copies(ordered, limits=params):
        if copy.of not in set_aside:
            set_aside.setdefault(copy.video, _near_duplicate(by_id[copy.video], by_id[copy.of], copy))
    return [set_aside[video.id] for video in videos if video.id in set_aside]


def _near_duplicate(video: Video, kept: Video, copy: Copy) -> Rejection:
    detail = f"shows {copy.overlap_s:g} s of {kept.path}, which is {_why_better(kept, video)}"
    return Rejection(stage=STAGE, item=video.path, reason=Reason.NEAR_DUPLICATE, detail=detail)


def _why_better(kept: Video, other: Video) -> str:
    if round(kept.duration_s) != round(other.duration_s):
        return f"longer ({kept.duration_s:g} s, not {other.duration_s:g} s)"
    if kept.width * kept.height != other.width * other.height:
        return f"larger ({kept.width}x{kept.height}, not {other.width}x{other.height})"
    if kept.size_bytes != other.size_bytes:
        return f"less compressed ({kept.size_bytes} bytes, not {other.size_bytes})"
    return "first by name"
