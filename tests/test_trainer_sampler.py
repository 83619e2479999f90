"""Repeated augmentation: which photos each process sees at each step."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.sampler import BatchPlan, SamplerError

sizes = st.fixed_dictionaries(
    {
        "num_photos": st.integers(1, 40),
        "num_views": st.integers(1, 4),
        "photos_per_process": st.integers(1, 7),
        "num_processes": st.integers(1, 4),
        "seed": st.integers(0, 1000),
    }
)


def plan_of(size: dict[str, int], num_processes: int | None = None) -> BatchPlan:
    photos_per_step = size["photos_per_process"] * size["num_processes"]
    return BatchPlan(
        num_photos=size["num_photos"],
        batch_size=photos_per_step * size["num_views"],
        num_views=size["num_views"],
        num_processes=num_processes or size["num_processes"],
        seed=size["seed"],
    )


def whole_step(plan: BatchPlan, step: int, num_processes: int) -> list[tuple[int, int]]:
    return [draw for rank in range(num_processes) for draw in plan.photos_of(step, rank)]


@given(sizes)
def test_each_pass_holds_every_photo_once(size: dict[str, int]) -> None:
    """Nothing is padded or lost, wherever a pass begins and ends."""
    plan = plan_of(size)
    num_steps = -(-3 * size["num_photos"] // plan.photos_per_step)
    draws = [d for step in range(num_steps) for d in whole_step(plan, step, size["num_processes"])]
    for epoch in range(3):
        seen = sorted(draw.photo_id for draw in draws if draw.epoch == epoch)
        assert seen == list(range(size["num_photos"]))


@given(sizes)
def test_one_process_sees_the_batches_of_several(size: dict[str, int]) -> None:
    """The global batch does not depend on how many processes share it."""
    several, single = plan_of(size), plan_of(size, num_processes=1)
    for step in range(4):
        assert whole_step(several, step, size["num_processes"]) == whole_step(single, step, 1)


@given(sizes, st.integers(0, 9))
def test_a_resumed_plan_goes_on_exactly(size: dict[str, int], start: int) -> None:
    """Steps from the middle equal those of a run from the beginning."""
    whole = list(plan_of(size).steps(0, start=0, stop=12))
    assert list(plan_of(size).steps(0, start=start, stop=12)) == whole[start:]


@given(sizes)
def test_no_photo_occurs_more_often_than_said(size: dict[str, int]) -> None:
    """`most_occurrences` bounds every step, also where passes meet, and is reached or nearly."""
    plan = plan_of(size)
    for step in range(12):
        draws = whole_step(plan, step, size["num_processes"])
        counts = Counter(draw.photo_id for draw in draws)
        assert max(counts.values()) <= plan.most_occurrences


def test_two_passes_have_different_orders() -> None:
    """The second pass is another permutation."""
    plan = BatchPlan(num_photos=50, batch_size=50, num_views=1, num_processes=1, seed=3)
    assert plan.photos_of(0, 0) != [draw._replace(epoch=0) for draw in plan.photos_of(1, 0)]


@pytest.mark.parametrize(
    ("batch_size", "num_views", "num_processes", "advice"),
    [(512, 3, 1, "513"), (6, 3, 4, "12"), (9, 3, 2, "12")],
)
def test_a_batch_that_views_do_not_divide_is_refused(
    batch_size: int, num_views: int, num_processes: int, advice: str
) -> None:
    """The message names the nearest batch size that works."""
    with pytest.raises(SamplerError, match=f"take {advice}"):
        BatchPlan(
            num_photos=9,
            batch_size=batch_size,
            num_views=num_views,
            num_processes=num_processes,
            seed=0,
        )
