"""Training a detector for each fold of an audit, in processes of their own."""

import argparse
import json
import os
import re
import subprocess
import sys

from ..config import model_zoo
from ..engine.prediction import digest_of_file
from ..inspect.audit.folds import Fold, write_folds
from ..inspect.audit.labels import read_labels

__all__ = ["train_folds"]

PERIOD = 30.0  # seconds between two looks at a training
# What Detectron2 logs every 20 iterations: "eta: 0:03:12  iter: 59  total_loss: 1.2  ..."
_PROGRESS = re.compile(r"(?:eta: (?P<eta>\S.*?) +)?iter: (?P<iter>\d+) +total_loss: (?P<loss>\S+)")


def train_folds(args: argparse.Namespace) -> list[tuple[str, Fold]]:
    """Trains what is not trained yet; a training that was interrupted goes on.

    Args:
        args: of gfocal audit.

    Returns:
        the weights of each fold.

    Raises:
        FileNotFoundError: no such config.
        ValueError: the folder holds folds of another config or other annotations; a training
            failed.
    """
    args.config_file = model_zoo.find_config(args.config_file)
    labels = read_labels(args.annotations)
    _check_same(args)
    ret = []
    folds = write_folds(labels, args.output, args.folds)
    for number, fold in enumerate(folds):
        weights = os.path.join(fold.folder, "model_final.pth")
        if os.path.isfile(weights):
            print(f"fold {number} is trained: {weights}", flush=True)
        else:
            _train(args, fold, f"fold {number} of {len(folds)}")
        ret.append((weights, fold))
    return ret


def _check_same(args: argparse.Namespace) -> None:
    """Writes folds.json, or checks that the folds in the folder are of the same."""
    settings = {
        "folds": args.folds,
        "config": os.path.abspath(args.config_file),
        "overrides": list(args.opts),
        "annotations": digest_of_file(args.annotations),
    }
    path = os.path.join(args.output, "folds.json")
    os.makedirs(args.output, exist_ok=True)
    if os.path.isfile(path):
        with open(path) as file:
            before = json.load(file)
        other = [key for key, x in settings.items() if before.get(key) != x]
        if other:
            raise ValueError(
                f"{args.output} has folds of other {', '.join(other)} (folds.json). Go on with the "
                "same, or give another --output"
            )
        return
    with open(path, "w") as file:
        json.dump(settings, file, indent=1)


def _train(args: argparse.Namespace, fold: Fold, name: str) -> None:
    """Runs gfocal train; its output goes to FOLDER/output.txt, and from time to time a line of it
    to the terminal."""
    command = [sys.executable, "-m", "gfocal", "train", "--config-file", args.config_file]
    command += ["--resume", "--num-gpus", str(args.num_gpus), *args.opts]
    command += [f"data.train_json={fold.train_json}", f"data.train_images={args.images}"]
    command += [f"data.val_json={fold.held_json}", f"data.val_images={args.images}"]
    command += [f"train.output_dir={fold.folder}"]
    log = os.path.join(fold.folder, "output.txt")
    print(f"{name}: training, see {log}", flush=True)
    status = _run(command, log, name)
    if status:
        with open(log, errors="replace") as file:
            last = next((x.strip() for x in reversed(file.readlines()) if x.strip()), "no output")
        raise ValueError(f"{name}: the training ended with status {status}: {last} (see {log})")


def _run(command: list[str], log: str, name: str) -> int:
    """Runs a training, adds its output to a file, and tells how far it is. Returns the status."""
    with open(log, "ab") as file:
        start, told = file.tell(), ""
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    return process.wait(PERIOD)
                except subprocess.TimeoutExpired:
                    progress = _progress(log, start)
                    if progress != told:
                        print(f"{name}: {progress}", flush=True)
                    told = progress
        except BaseException:  # Ctrl+C ends the training too
            process.kill()
            process.wait()
            raise


def _progress(log: str, start: int) -> str:
    """The last iteration that a training logged behind a byte of its file; "" before the first."""
    with open(log, "rb") as file:
        file.seek(start)
        found = [*_PROGRESS.finditer(file.read().decode(errors="replace"))]
    if not found:
        return ""
    left = f", {found[-1]['eta']} left" if found[-1]["eta"] else ""
    return f"iteration {found[-1]['iter']}, total_loss {found[-1]['loss']}{left}"
