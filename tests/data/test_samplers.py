"""Images with rare classes come more often."""

import itertools
from collections import Counter

import pytest
from detectron2.data.samplers import RepeatFactorTrainingSampler

from gfocal.data import RepeatFactors, build_train_loader

# Class 0 is in each of 16 images, class 1 in one: sqrt(0.25 / (1 / 16)) = 2.
DATASET = [
    {"file_name": f"{i}.png", "id": i, "annotations": [{"category_id": int(i == 5)}] * (i != 9)}
    for i in range(16)
]


def loader(thresh, seed=0, batch=1, **kwargs):
    return build_train_loader(
        DATASET,
        mapper=dict,
        sampler=RepeatFactors(thresh),
        total_batch_size=batch,
        aspect_ratio_grouping=False,
        seed=seed,
        **kwargs,
    )


def ids(batches, count):
    return [x["id"] for batch in itertools.islice(iter(batches), count) for x in batch]


@pytest.mark.parametrize(("thresh", "times"), [(0.25, 2), (0.0, 1)])
def test_an_epoch(thresh, times):
    counts = Counter(ids(loader(thresh), 15 + times))
    assert counts.pop(5) == times and set(counts.values()) == {1} and len(counts) == 15


def test_factors_that_are_no_integers():
    counts = Counter(ids(loader(0.14), 1600))  # sqrt(2.24)
    assert 1.25 < counts.pop(5) / (sum(counts.values()) / 15) < 1.75
    assert max(counts.values()) - min(counts.values()) <= 1


def test_it_is_that_of_detectron2():
    sampler = RepeatFactors(0.14)(DATASET, 4)
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(DATASET, 0.14)
    theirs = RepeatFactorTrainingSampler(factors, seed=4)
    assert list(itertools.islice(sampler, 99)) == list(itertools.islice(theirs, 99))


def test_goes_on_where_another_was():
    first = loader(0.14, seed=1)
    ids(first, 7)
    assert first.num_batches == 7
    second = loader(0.14, seed=2)
    second.load_state_dict(first.state_dict())
    whole = ids(loader(0.14, seed=1), 47)
    assert ids(second, 40) == whole[7:]
    assert ids(loader(0.14, seed=2), 47) != whole


def test_what_cannot_be_counted():
    for thresh in (-0.1, 1.5, True, float("nan")):
        with pytest.raises(ValueError, match=f"repeat_thresh is {thresh}; expected a share"):
            RepeatFactors(thresh)
    with pytest.raises(ValueError, match=r'b.png has no "annotations"'):
        RepeatFactors(0.1)([*DATASET, {"file_name": "b.png"}], 0)
