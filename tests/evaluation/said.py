"""Predictions as tests of statistics need them: who was right about what."""

import numpy as np

from tpo.records import Prediction, PredictionStatus, Role

BOOTSTRAP = {"confidence": 0.95, "samples": 2000, "seed": 0}


def prediction(item: str, role: Role, right: float, video: str = "v.mp4", **other: object) -> Prediction:
    fields = {
        "item_id": item,
        "benchmark": "mlvu",
        "video": video,
        "duration_group": "<5min",
        "category": "order",
        "model": role,
        "status": PredictionStatus.OK,
        "option_logprobs": (-1.0, -2.0),
        "predicted": 0 if right else 1,
        "gold": 0,
        "score": float(right),
        "correct": right >= 0.5,
    }
    return Prediction.model_validate(fields | other)


def answers(role: Role, table: np.ndarray, **other: object) -> list[Prediction]:
    """`table` is bool or score [videos, questions]."""
    return [
        prediction(f"{video}-{question}", role, right, f"{video}.mp4", **other)
        for video, row in enumerate(table)
        for question, right in enumerate(row)
    ]
