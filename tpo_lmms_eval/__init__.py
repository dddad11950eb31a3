"""Our checkpoints as a model of lmms-eval, for any of its tasks about one video.

    lmms-eval --model tpo --model_args pretrained=models/tuned,num_frames=64 --tasks videomme --batch_size 8

lmms-eval finds it by the entry point `lmms_eval.models`. `tpo` imports neither this package nor lmms-eval, whose own
score counts here (`tpo.evaluation.compatible` gives it for our runs, without lmms-eval).
"""

from typing import Any


def manifest() -> Any:
    """What lmms-eval's registry wants to know of a model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="tpo", simple_class_path="tpo_lmms_eval.model.Tpo")
