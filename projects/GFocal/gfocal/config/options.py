"""The options of a training, each declared once: key, kind, bounds, default, yacs twin, help.

These read them: the `train` node of configs/common/train.py, the defaults of a training, the yacs
keys of ``add_gfocal_config``, the checks of ``check_train``, and the table of docs/training.md.

``train_node`` makes an OmegaConf structured config of the dataclasses. It refuses an unknown key at
once, wherever it is set. It takes a value of any kind, because OmegaConf converts a value of a
wrong kind instead of refusing it ("off" becomes False). ``check_train`` checks kinds and bounds,
before anything is built. A config can replace a whole group by a plain dict, whose keys are checked
there too.
"""

import dataclasses
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

from ..modeling.settings import SIZES as _SIZES
from .declaring import Kind, about, declared, option
from .keys import Config, all_keys

__all__ = [
    "OPTIONS",
    "Amp",
    "Checkpointer",
    "TrainOptions",
    "check_best_metric",
    "expectation",
    "is_declared",
    "train_node",
    "train_options",
]


SIZES = Kind(*_SIZES)


@dataclass
class Amp:
    """`train.amp`."""

    enabled: bool = option(
        False, "mixed precision: float16 on CUDA, bfloat16 on a CPU", yacs="SOLVER.AMP.ENABLED"
    )


@dataclass
class Checkpointer:
    """`train.checkpointer`, the arguments of fvcore's PeriodicCheckpointer."""

    period: int = option(
        5000, "iterations between checkpoints", least=1, yacs="SOLVER.CHECKPOINT_PERIOD"
    )
    max_to_keep: int | None = option(None, "the newest so many are kept; null: all", least=1)
    file_prefix: str = option("model", "how the names of the files begin")


@dataclass
class TestAugmentation:
    """`train.test_augmentation`, read by evaluations and by the Predictor."""

    __test__ = False  # for pytest

    enabled: bool = option(
        False, "the last evaluation also with test-time augmentation", yacs="TEST.AUG.ENABLED"
    )
    min_sizes: Any = field(
        default_factory=lambda: [400, 500, 600, 700, 800, 900, 1000, 1100, 1200],
        metadata=about(
            "of the shorter side, pixels, each in turn", yacs="TEST.AUG.MIN_SIZES", kind=SIZES
        ),
    )
    max_size: int = option(4000, "of the longer side, pixels", least=1, yacs="TEST.AUG.MAX_SIZE")
    flip: bool = option(True, "the mirror of each size too", yacs="TEST.AUG.FLIP")


@dataclass
class TrainOptions:
    """`train` of a LazyConfig."""

    output_dir: str = option("./output", "folder of all that a training writes", yacs="OUTPUT_DIR")
    init_checkpoint: str | None = option(
        "", "weights to start from, or to evaluate", yacs="MODEL.WEIGHTS"
    )
    device: str | None = option(
        None, "cpu, cuda, cuda:0, ...; null: cuda where there is one, else cpu", yacs="MODEL.DEVICE"
    )
    max_iter: int = option(90000, "iterations", least=1, yacs="SOLVER.MAX_ITER")
    accumulate: int = option(
        1,
        "micro-batches a step of the optimizer: the gradients of so many batches are added up. An "
        "iteration is one step",
        least=1,
        yacs="SOLVER.ACCUMULATE",
        added=True,
        short="accum",
    )
    seed: int = option(
        -1,
        "from 0 on: initial weights, order of images and augmentations repeat, with any number "
        "of workers",
        yacs="SEED",
    )
    deterministic: bool = option(
        False,
        "algorithms that give the same bits again, on the same machine",
        yacs="DETERMINISTIC",
        added=True,
    )
    amp: Amp = field(default_factory=Amp)
    channels_last: bool = option(
        False, "memory format of the convolutions", yacs="MODEL.CHANNELS_LAST", added=True
    )
    ddp: Any = field(
        default_factory=lambda: {
            "broadcast_buffers": False,
            "find_unused_parameters": False,
            "fp16_compression": False,
        },
        metadata=about("arguments of DistributedDataParallel, for several processes"),
    )
    checkpointer: Checkpointer = field(default_factory=Checkpointer)
    test_augmentation: TestAugmentation = field(default_factory=TestAugmentation)
    eval_period: int = option(
        0, "iterations between evaluations; 0: only at the end", yacs="TEST.EVAL_PERIOD"
    )
    log_period: int = option(20, "iterations between lines of metrics.json", least=1)
    ema_decay: float = option(
        0.0,
        "e.g. 0.9998: averaged weights, evaluated as `ema/bbox/AP`, saved as `model_final_ema.pth`",
        least=0,
        below=1,
        yacs="SOLVER.EMA_DECAY",
        added=True,
        short="ema",
    )
    validation_loss: bool = option(
        False,
        "the losses on the test images at each evaluation, `validation/total_loss`; leaves no "
        "trace in the training",
        yacs="TEST.VALIDATION_LOSS",
        added=True,
    )
    reliability: bool = option(
        False,
        "evaluations also measure how reliable scores and standard deviations are, "
        "`reliability/LaECE`; `inference/reliability.png`",
        yacs="TEST.RELIABILITY",
        added=True,
    )
    best_metric: str = option(
        "",
        "e.g. `bbox/AP`, `ema/bbox/AP`: its best weights are kept as `model_best.pth`",
        yacs="TEST.BEST_METRIC",
        added=True,
        short="best",
    )
    best_mode: str = option(
        "max",
        "`min` where less is better, as for `validation/total_loss`",
        choices=("max", "min"),
        yacs="TEST.BEST_MODE",
        added=True,
    )
    early_stop_patience: int = option(
        0,
        "end after so many evaluations without a better `best_metric`; 0: never",
        least=0,
        yacs="TEST.EARLY_STOP_PATIENCE",
        added=True,
        short="patience",
    )
    reference_world_size: int = option(
        0,
        "number of GPUs that the config is written for; with another number of them, batch "
        "size, learning rate and iterations are scaled; 0: never",
        least=0,
        yacs="SOLVER.REFERENCE_WORLD_SIZE",
    )
    cudnn_benchmark: bool = option(False, "cuDNN tries out its algorithms", yacs="CUDNN_BENCHMARK")
    float32_precision: str = option(
        "",
        "of `torch.set_float32_matmul_precision`; read by Detectron2 after 0.5",
        yacs="FLOAT32_PRECISION",
    )


OPTIONS = declared(TrainOptions)


def _node_class(declaration: type) -> type[Any]:
    """A dataclass with the same fields, each of any kind, for OmegaConf."""
    fields = [(x.name, Any) for x in dataclasses.fields(declaration)]
    name = f"{declaration.__name__}Node"
    return dataclasses.make_dataclass(name, fields, namespace={"__module__": __name__})


# Under their own names, so that pickle finds them.
AmpNode = _node_class(Amp)
CheckpointerNode = _node_class(Checkpointer)
TestAugmentationNode = _node_class(TestAugmentation)
TrainOptionsNode = _node_class(TrainOptions)
_NODES: dict[type, type[Any]] = {
    Amp: AmpNode,
    Checkpointer: CheckpointerNode,
    TestAugmentation: TestAugmentationNode,
    TrainOptions: TrainOptionsNode,
}


def _as_node(value: Any) -> Any:
    if type(value) not in _NODES:
        return value
    fields = dataclasses.fields(value)
    return _NODES[type(value)](**{x.name: _as_node(getattr(value, x.name)) for x in fields})


def is_declared(kind: Any) -> bool:
    """Whether a class (named in an OmegaConf error) is that of `train` or of a group in it."""
    return kind in _NODES.values()


def expectation(key: str) -> str:
    """The end of an error message: the kind of a LazyConfig's option; "" for another key."""
    for x in OPTIONS:
        if key == f"train.{x.key}" and x.kind is not None:
            return f"; expected {x.kind.expected}"
    return ""


def train_node(**changes: Any) -> DictConfig:
    """A `train` for a LazyConfig. It refuses keys that nothing reads, but takes values of any kind;
    ``check_train`` checks these.

    A key of your own: ``with omegaconf.open_dict(train): train.note = "x"``.

    Args:
        changes: options that differ from their defaults; a group is a mapping of such options.
    """
    flags = {"allow_objects": True}
    ret = OmegaConf.structured(_as_node(TrainOptions()), flags=flags)
    ret.merge_with(OmegaConf.create(changes, flags=flags))
    return ret


def train_options(cfg: Config) -> TrainOptions:
    """The options of a training in a config of either kind; others have their defaults."""
    if isinstance(cfg, CfgNode):
        keys = set(all_keys(cfg))
        values = {x.key: attrgetter(x.yacs)(cfg) for x in OPTIONS if x.yacs in keys}
    else:
        values = {x.key: OmegaConf.select(cfg, f"train.{x.key}") for x in OPTIONS}
    ret = TrainOptions()
    for key, value in values.items():
        if value is not None:
            parent, _, name = key.rpartition(".")
            value = list(value) if isinstance(value, tuple) else value
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True)
            setattr(getattr(ret, parent) if parent else ret, name, value)
    return ret


def check_best_metric(options: TrainOptions) -> None:
    """Checks that `best_metric` is measured.

    Raises:
        ValueError: it is a metric of averaged weights, of the validation loss or of reliability,
            and these are off.
    """
    needed = {
        "ema/": ("ema_decay (SOLVER.EMA_DECAY)", options.ema_decay),
        "validation/": ("validation_loss (TEST.VALIDATION_LOSS)", options.validation_loss),
        "reliability/": ("reliability (TEST.RELIABILITY)", options.reliability),
    }
    for prefix, (key, value) in needed.items():
        if options.best_metric.startswith(prefix) and not value:
            raise ValueError(f"best_metric is {options.best_metric!r}, but {key} is {value}")
