from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from omegaconf import DictConfig

from gfocal.config import (
    add_gfocal_config,
    config_settings,
    resolve_device,
    set_device,
    set_weights,
)


def test_settings_and_device(toy_config, tmp_path: Path):
    cfg = toy_config("train.init_checkpoint=w.pth")
    assert config_settings(cfg) == (f"{tmp_path}/output", "w.pth", "cpu")
    assert config_settings(DictConfig({})) == ("./output", "", None)
    set_device(cfg, "meta")
    assert cfg.train.device == "meta"
    yacs = get_cfg()
    add_gfocal_config(yacs)
    for config in (cfg, yacs):
        set_weights(config, "other.pth")
        assert config_settings(config).weights == "other.pth"
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device 'gpu'; expected cpu, cuda, cuda:0"):
        resolve_device("gpu")
