"""mix: data/judged and data/review → data/pairs. Which pairs are trained on, in which order, and which are held out."""

from collections.abc import Sequence

from prefect import task
from prefect.utilities.annotations import quote

from flows.stage import JUDGED, PAIRS, TASK, Stage, run, stage_flow
from tpo.curation.mix import Mixed, mix_pairs
from tpo.curation.reviews import REVIEWS, read_reviews
from tpo.errors import UserError
from tpo.params import Params, load_params
from tpo.records import Granularity, PreferencePair, Review
from tpo.store import digest, read_records


@task(name="mix pairs", **TASK)
def mix_judged(params: Params, reviews: Sequence[Review]) -> Mixed:
    """Reads the pairs itself: Prefect looks into all that a task is handed."""
    return mix_pairs(read_records(JUDGED / "pairs.jsonl", PreferencePair), params.mix, params.data.seed, reviews)


@stage_flow("mix")
def mix() -> None:
    params = load_params()
    REVIEWS.parent.mkdir(parents=True, exist_ok=True)
    REVIEWS.touch()  # dvc.yaml names it, and nobody may have reviewed a pair yet
    reviews = read_reviews(REVIEWS)
    said = [review.model_dump(mode="json") for review in reviews]
    key = (digest(JUDGED / "pairs.jsonl"), params.mix.model_dump(mode="json"), params.data.seed, said)
    with Stage("mix", "pairs", *key) as stage:
        mixed = mix_judged(params, quote(reviews))
        train, report = mixed.trained_on, mixed.report
        stage.publish(
            PAIRS,
            {
                "pairs.jsonl": train,
                "held_out.jsonl": mixed.held_out,
                "rejected.jsonl": mixed.rejections,
                "reviews.jsonl": reviews,
                "mix.json": report.model_dump_json(indent=2) + "\n",
            },
            items_in=report.pairs_in,
            items_out=len(train) + len(mixed.held_out),
            set_aside=mixed.rejections,
            seed=params.data.seed,
            counts={"training pairs": len(train), "held-out pairs": len(mixed.held_out)}
            | {f"{kind} training pairs": report.trained_on.get(kind, 0) for kind in Granularity}
            | {f"reviewed: {verdict}": count for verdict, count in report.reviewed.items()},
            facts={"shortfalls": report.shortfalls, "lengths": report.lengths.model_dump()},
        )
    print(f"mix: {len(train)} pairs to train on")
    for shortfall in report.shortfalls:
        print(f"mix: {shortfall}")
    if not train:
        raise UserError(f"No pair is left to train on; {PAIRS}/rejected.jsonl and mix.json say why.")


if __name__ == "__main__":
    run(mix)
