"""Finds what scores and standard deviations of a detector mean, on a validation set.

    gfocal calibrate --weights model_final.pth --output calibrated.pth
    gfocal calibrate --weights W --output W2 data.val_json=val.json data.val_images=images/
    gfocal predict --weights calibrated.pth --calibrated --input photos/ --output results.json

A score becomes the IoU that is expected of the detection (0 if it is wrong), and a standard
deviation such that intervals cover what they say. Half of the images of the config's test dataset
are fitted, the others judge: the table says how good it is on them. Use images that the weights
were not trained on. The output is the weights with the calibration beside them. Nothing changes
before --calibrated switches it on (gfocal predict, gfocal export; Predictor(..., calibrated=True)).
"""

import argparse
import os
import sys
from typing import Any

import numpy as np

from ..config import train_options
from ..config.options import TrainOptions
from ..engine.evaluation import trainer_for_evaluation
from ..inspect.calibrating import Row, calibrate
from ..inspect.reliability import DetectionReliabilityEvaluator
from ..weights.description import KEY, find_config, read_description
from ..weights.reading import load_weights_only
from ..weights.writing import write_checkpoint
from .common import (
    add_model,
    add_overrides,
    check_model_arguments,
    exit_on_mistake,
    make_parser,
    parse_arguments,
)
