from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from gfocal.config import config_settings, resolve_device, set_device


def test_settings_and_device(toy_config, tmp_path: Path):
    cfg = toy_config("train.init_checkpoint=w.pth")
    assert config_settings(cfg) == (f"{tmp_path}/output", "w.pth", "cpu")
    assert config_settings(DictConfig({})) == ("./output", "", None)
    set_device(cfg, "meta")
    assert cfg.train.device == "meta"
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device 'gpu'; expected cpu, cuda, cuda:0"):
        resolve_device("gpu")
