"""Fixtures of the engine's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from gfocal.config import load_config

TOY_CONFIG = str(Path(__file__).parents[1] / "helpers/toy_config.py")


@pytest.fixture
def toy_config(tmp_path: Path) -> Callable[..., DictConfig]:
    """A function that loads the toy config, with overrides; its files go to tmp_path."""

    def load(*overrides: str) -> DictConfig:
        paths = [f"data.folder={tmp_path}/images", f"train.output_dir={tmp_path}/output"]
        return load_config(TOY_CONFIG, [*paths, *overrides])

    return load
