"""The tower's output on disk, for towers that cost more than reading: never more than so many bytes of it.

A file holds one view of one video. Its name says everything that it depends on; what is not found under its name is
computed again. The files that were used longest ago go first.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tpo.models.family import VideoInput
from tpo.records import View, content_id

_TOLD = ("grid", "text", "num_features", "timestamps_s", "duration_s")


@dataclass(frozen=True)
class FeatureCache:
    """Features below `folder`, at most `max_bytes` of them. Processes may share it.

    `model_id` stands for the checkpoint's files and the settings that change what it sees (`VideoLMM.id`).
    """

    folder: Path
    max_bytes: int
    model_id: str

    def has(self, view: View) -> bool:
        return self._file(view).is_file()

    def read(self, view: View) -> tuple[VideoInput, list[torch.Tensor]] | None:
        """A video as its family describes it, without pixels, and the tower's output; none if it is not here."""
        file = self._file(view)
        try:
            with safe_open(file, "pt") as stored:
                told = json.loads(stored.metadata()["video"])
                features = [stored.get_tensor(str(number)) for number in range(len(stored.keys()))]
            os.utime(file)
        except (OSError, SafetensorError):  # never written, deleted meanwhile, or broken by a power cut
            return None
        told |= {"grid": tuple(told["grid"]), "timestamps_s": tuple(told["timestamps_s"])}
        return VideoInput(pixels=torch.empty(0), **told), features

    def write(self, view: View, video: VideoInput, features: Sequence[torch.Tensor]) -> None:
        """Keep a video's features, and let go of those used longest ago if they are too many."""
        file = self._file(view)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        told = {name: getattr(video, name) for name in _TOLD}
        tensors = {str(number): one.contiguous() for number, one in enumerate(features)}
        save_file(tensors, partial, {"video": json.dumps(told)})
        partial.replace(file)
        self._make_room()

    def _file(self, view: View) -> Path:
        versions = (f"av{av.__version__}", f"torch{torch.__version__}", f"transformers{transformers.__version__}")
        return self.folder / f"{content_id(self.model_id, view.model_dump(mode='json'), *versions)}.safetensors"

    def _make_room(self) -> None:
        files = []
        for file in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                files.append((status.st_mtime_ns, status.st_size, file))
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if total <= self.max_bytes:
                break
            file.unlink(missing_ok=True)
            total -= size
