"""What is found by mapping some images before the first iteration."""

import functools
import logging
import math
import random
import sys

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch

from gfocal.data import build_train_loader, probes
from gfocal.data.mapper import DetectionMapper
from gfocal.data.probes import check_packages, probe_train_loader
from gfocal.process import rng_state
from gfocal.process.generators import own_generators, seed_generators
from tests.helpers.resume_config import images

GENERATORS = {
    "numpy": (lambda: np.random.default_rng(), lambda g: g.random()),
    "numpy's other bits": (lambda: np.random.Generator(np.random.MT19937()), lambda g: g.random()),
    "numpy's old": (np.random.RandomState, lambda g: g.rand()),
    "python": (random.Random, lambda g: g.random()),
    "torch": (lambda: _unseeded(torch.Generator()), lambda g: torch.rand(1, generator=g).item()),
}


def _unseeded(generator):
    generator.seed()
    return generator


class Library(T.Augmentation):
    """As Albumentations and others do it: a generator of its own, from the operating system."""

    def __init__(self, make, draw):
        self.parts = [{"generator": make()}]
        self.draw = draw

    def get_transform(self, image):
        return T.BlendTransform(0 * image + 200, self.draw(self.parts[0]["generator"]), 0.5)


class Hidden(T.Augmentation):
    """Random numbers that nobody can seed; in one of four images."""

    def get_transform(self, image):
        strength = np.random.default_rng().random() if np.random.rand() < 0.5 else 0.5
        return T.BlendTransform(0 * image + 200, strength, 0.5)


def loader(folder, *augmentations, mapper=None, **kwargs):
    mapper = mapper or DetectionMapper(
        is_train=True, augmentations=augmentations, image_format="BGR"
    )
    dicts = images(str(folder), 4)
    return build_train_loader(dicts, mapper=mapper, total_batch_size=2, seed=0, **kwargs)


def first(batches, count=3):
    iterator = iter(batches)
    return [x["image"] for _ in range(count) for x in next(iterator)]


@pytest.mark.parametrize("kind", GENERATORS.values(), ids=GENERATORS.keys())
def test_a_generator_of_its_own_is_seeded(kind, tmp_path, caplog):
    runs = [first(loader(tmp_path, Library(*kind))) for _ in range(2)]
    assert all(map(torch.equal, *runs))
    assert not torch.equal(runs[0][0], runs[0][1])
    probe_train_loader(loader(tmp_path, Library(*kind)))
    assert [x for x in caplog.records if x.levelno >= logging.WARNING] == []


def test_also_in_worker_processes_and_after_a_resume(tmp_path):
    kind = GENERATORS["numpy"]
    whole = first(loader(tmp_path, Library(*kind)), 4)
    resumed = loader(tmp_path, Library(*kind), num_workers=2)
    resumed.load_state_dict({**resumed.state_dict(), "num_batches": 2})
    assert all(map(torch.equal, first(resumed, 2), whole[4:]))


def test_generators_are_found_where_parts_keep_them():
    def closing(generator):
        return lambda x: generator.random()

    class Slow:
        def __init__(self):
            self.rng = np.random.default_rng()
            self.me = self
            self.many = [random.Random()] * 2000  # data, not parts

        def __call__(self, x):
            return self.rng.random()

    for part in (
        closing(np.random.default_rng()),
        functools.partial(lambda g, x: g.random(), np.random.default_rng()),
        Slow(),
        Slow().__call__,
        [{"a": (Slow(),)}],
    ):
        assert len(own_generators(part)) == 1
    both = [np.random.default_rng(), np.random.default_rng()]
    seed_generators(both, 1, 2)
    drawn = [x.random() for x in both]
    assert drawn[0] != drawn[1]
    seed_generators(both, 1, 2)
    assert [x.random() for x in both] == drawn
    seed_generators(both, 1, 3)
    assert [x.random() for x in both] != drawn
    # The global ones are seeded elsewhere.
    assert own_generators([np.random.mtrand._rand, torch.default_generator, torch, random]) == []


def counting(dataset_dict, calls=[]):  # noqa: B006
    calls.append(1)
    return {"image": torch.zeros(3, 8, 8), "count": len(calls)}


def test_what_cannot_be_seeded_is_warned_of(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(probes, "_MAX_SECONDS", math.inf)  # the first image may be a quiet one
    state = rng_state()
    for mapper, name in ((None, "DetectionMapper"), (counting, "function")):
        caplog.clear()
        probe_train_loader(loader(tmp_path, Hidden(), mapper=mapper))
        assert f"The mapper {name} gives other images for the same random states" in caplog.text
    assert repr(rng_state()) == repr(state)


def test_what_repeats_is_not_warned_of(tmp_path, caplog):
    def failing(dataset_dict):
        raise KeyError("an image that the training will name")

    probe_train_loader(loader(tmp_path, T.RandomFlip(), T.RandomBrightness(0.5, 1.5)))
    probe_train_loader(loader(tmp_path, mapper=failing))
    probe_train_loader([])
    assert [x for x in caplog.records if x.levelno >= logging.WARNING] == []


def test_other_channels_than_the_models_are_named(tmp_path):
    mapper = DetectionMapper(is_train=True, augmentations=[], image_format="RGBA")
    model = torch.nn.Module()
    model.pixel_mean = torch.zeros(3, 1, 1)
    with pytest.raises(ValueError, match=r"png is mapped to 4 channels, and the model's pixel_mea"):
        probe_train_loader(loader(tmp_path, mapper=mapper), model)
    model.pixel_mean = torch.zeros(4, 1, 1)
    probe_train_loader(loader(tmp_path, mapper=mapper), model)


class Importing(T.Augmentation):
    def get_transform(self, image):
        import a_package_that_is_not_there.part  # noqa: F401


class Naming(T.Augmentation):
    def get_transform(self, image):
        return scipy.nothing  # noqa: F821


class Mistaken(T.Augmentation):
    def get_transform(self, image):
        return imgae  # noqa: F821


def test_an_absent_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    turned = T.RandomApply(T.RandomRotation([-9, 9]), prob=0.01)
    for part, message in (
        (turned, "RandomRotation needs the package cv2, which is not installed: pip install open"),
        (Importing(), "Importing needs the package a_package_that_is_not_there, which is not ins"),
        (Naming(), "Naming needs the package scipy, which is not installed: pip install scipy"),
    ):
        with pytest.raises(ValueError, match=message):
            probe_train_loader(loader(tmp_path, part))
    probe_train_loader(loader(tmp_path, Mistaken()))  # a mistake in code is no absent package
    with pytest.raises(ValueError, match="RandomRotation needs the package cv2"):
        check_packages(loader(tmp_path, turned).mapper)
