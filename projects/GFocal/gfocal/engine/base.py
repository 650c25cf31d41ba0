"""What the LazyConfig and the yacs trainer share, and the training step for AMP on a CPU."""

import os
import time
from typing import Any

import torch
from detectron2.engine import DefaultTrainer, SimpleTrainer, TrainerBase, default_writers
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter
from detectron2.utils.file_io import PathManager
from torch import nn

from ..checkpoint import GFLCheckpointer, WeightsOnlyCheckpointer, refuse_incompatible
from ..meta_arch import GFL
from ..optimize import fast_dtype, optimize_for_inference
from .config_io import Config, config_settings


class AutocastTrainer(SimpleTrainer):
    """The step of automatic mixed precision on a CPU: the forward pass in bfloat16 autocast.

    bfloat16 has the exponent range of float32, so no gradient is scaled. On CUDA use Detectron2's
    AMPTrainer.
    """

    def run_step(self) -> None:
        assert self.model.training, "model was changed to eval mode during training"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss_dict = self.model(data)
            if isinstance(loss_dict, torch.Tensor):
                loss_dict = {"total_loss": loss_dict}
            losses = sum(loss_dict.values())
        self.optimizer.zero_grad()
        losses.backward()
        self._write_metrics(loss_dict, data_time)
        self.optimizer.step()


class StrictCheckpointer(WeightsOnlyCheckpointer):
    """A DetectionCheckpointer that refuses a file of another model: one which leaves a part of the
    model unloaded, or which has a part that the model lacks."""

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        refuse_incompatible(
            incompatible.missing_keys, incompatible.incorrect_shapes, incompatible.unexpected_keys
        )


def check_weights(path: str) -> str:
    """Returns the path of a weight file if it is a URL or exists.

    Raises:
        FileNotFoundError: no such file.
    """
    if path and "://" not in path and not os.path.isfile(path.split("?")[0]):
        raise FileNotFoundError(f"no weight file {path!r} (working directory: {os.getcwd()})")
    return path


class BaseTrainer(DefaultTrainer):
    """A DefaultTrainer whose checkpoints are complete and whose `train` returns the results.

    Detectron2 0.5's DefaultTrainer leaves the optimizer (its momentum) and the gradient scaler out
    of the checkpoint; here they are in it with every version of Detectron2.
    """

    def state_dict(self) -> dict[str, Any]:
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    def resume_or_load(self, resume: bool = True) -> None:
        """Continues from the last checkpoint in the output folder, or loads the initial weights.

        Args:
            resume: with True and a checkpoint in the output folder: load the weights, the
                optimizer, the scheduler and the iteration, and go on after it. Otherwise only the
                weights that the config names, if any, and start at iteration 0. They may be those
                of a whole detector or a backbone's, see :class:`gfocal.checkpoint.GFLCheckpointer`.

        Raises:
            FileNotFoundError: the weight file does not exist.
            ValueError: it is a backbone's, and of another one.
        """
        if resume and self.checkpointer.has_checkpoint():
            self.checkpointer.resume_or_load("", resume=True)
            self.start_iter = self.iter + 1  # the checkpoint holds the iteration that it finished
        else:
            weights = check_weights(config_settings(self.cfg).weights)
            GFLCheckpointer(self.checkpointer.model).load(weights, checkpointables=[])

    def build_writers(self) -> list[EventWriter]:
        """Returns Detectron2's default writers: the terminal, metrics.json and TensorBoard."""
        output_dir = config_settings(self.cfg).output_dir
        PathManager.mkdirs(output_dir)
        return default_writers(output_dir, self.max_iter)

    def train(self) -> dict[str, Any] | None:
        """Trains and evaluates.

        Returns:
            the last evaluation's results, {task: {metric: value}}; None where there was none.
        """
        super().train()
        return getattr(self, "_last_eval_results", None)

    @classmethod
    def evaluate(cls, cfg: Config, resume: bool = False, fast: bool = False) -> dict[str, Any]:
        """Builds the model, loads its weights and evaluates it.

        The metrics are added to metrics.json in the output folder, as training adds them.

        Args:
            cfg: the config; it names the weights.
            resume: evaluate the last checkpoint in the output folder instead, if there is one.
            fast: :func:`gfocal.optimize_for_inference`, in half precision where the device has it.

        Returns:
            {task: {metric: value}}.

        Raises:
            ValueError: no weights to evaluate, or weights of another model; ``fast`` and a model
                other than GFL.
            FileNotFoundError: the weight file does not exist.
        """
        output_dir, weights, _ = config_settings(cfg)
        model = cls.build_model(cfg)
        checkpointer = StrictCheckpointer(model, output_dir)
        resume = resume and checkpointer.has_checkpoint()
        if not resume and not check_weights(weights):
            raise ValueError(
                "no weights to evaluate: set train.init_checkpoint (LazyConfig) or MODEL.WEIGHTS "
                f"(yacs), or resume where {output_dir!r} has a checkpoint"
            )
        if fast and not isinstance(model, GFL):
            raise ValueError(f"fast is for GFL; the config's model is a {type(model).__name__}")
        state = checkpointer.resume_or_load(weights, resume=resume)
        if fast:
            optimize_for_inference(model, dtype=fast_dtype(next(model.parameters()).device))
        results = cls.test(cfg, model)
        if results and comm.is_main_process():
            PathManager.mkdirs(output_dir)
            with EventStorage(int(state.get("iteration", 0))) as storage:
                storage.put_scalars(**flatten_results_dict(results), smoothing_hint=False)
                writer = JSONWriter(os.path.join(output_dir, "metrics.json"))
                writer.write()
                writer.close()
        return results


def is_cpu(model: nn.Module) -> bool:
    """Whether a model's parameters are on the CPU."""
    return next(model.parameters()).device.type == "cpu"
