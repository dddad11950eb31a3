"""torchvision beside a torch that it was not compiled for: resizing and cropping need none of its own operators."""

import sys

import torch

_library: torch.library.Library | None = None


def allow_torchvision_without_its_operators() -> None:
    """Declare the operators whose absence makes `import torchvision` fail, where its compiled part did not load."""
    global _library  # the declarations live as long as this object
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        pass
    else:
        return
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
