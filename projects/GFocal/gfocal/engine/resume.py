"""The state of a training in a checkpoint, beside weights and hooks, and its resume.

The law: the state after n steps, saved, resumed and trained for m steps is the state after n + m
steps.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

from ..process.rng import rng_state, set_rng_state

__all__ = [
    "ANEW",
    "RandomStates",
    "has_checkpoint_everywhere",
    "load_training_state",
    "training_state",
]

ANEW = (
    "To start from its weights, name it in train.init_checkpoint (MODEL.WEIGHTS), with another "
    "output folder"
)


def has_checkpoint_everywhere(checkpointer: Checkpointer) -> bool:
    """Whether there is a checkpoint to resume. All processes must call it, before any of them
    loads: one that starts anew would wait for the others for ever.

    Args:
        checkpointer: knows the output folder, which may be another one on each machine.

    Raises:
        ValueError: in all processes, if they see different checkpoints; the message says which
            machine has what.
    """
    name = ""
    if checkpointer.has_checkpoint():
        path = checkpointer.get_checkpoint_file()
        there = "://" in path or os.path.isfile(path)
        name = os.path.basename(path) + ("" if there else " (its last_checkpoint, not there)")
    own = (socket.gethostname(), os.path.abspath(checkpointer.save_dir), name)
    places = list(dict.fromkeys(comm.all_gather(own)))
    if len({found for *_, found in places}) > 1:
        seen = "; ".join(f"{found or 'none'} on {host} in {x}" for host, x, found in places)
        raise ValueError(
            f"the processes see different checkpoints to resume: {seen}. Give all machines one "
            "output folder that they share, or copy the checkpoint and last_checkpoint to each"
        )
    return bool(name)


class RandomStates:
    """The random states of all processes, for checkpoints and from the resumed one."""

    def __init__(self):
        self._gathered: list[dict[str, Any]] | None = None
        self._resumed: dict[str, Any] | None = None

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside it, :meth:`state` answers for all processes. All of them must enter it."""
        self._gathered = comm.gather(rng_state())
        try:
            yield
        finally:
            self._gathered = None  # soon they are others

    def state(self) -> list[dict[str, Any]] | None:
        """Returns one state a process; None for several processes outside of :meth:`gathered`."""
        return [rng_state()] if comm.get_world_size() == 1 else self._gathered

    def load(self, states: list[dict[str, Any]] | None) -> None:
        """Takes a checkpoint's states. :meth:`restore` then sets the generators."""
        states = states or []
        if len(states) == comm.get_world_size():
            self._resumed = states[comm.get_rank()]
            return
        logging.getLogger(__name__).warning(
            f"The checkpoint has random states of {len(states)} processes, this training has "
            f"{comm.get_world_size()}: it goes on, but not exactly as it would have"
        )

    def restore(self) -> None:
        """Sets the generators to the checkpoint's states, if one was resumed."""
        if self._resumed is not None:
            set_rng_state(self._resumed)

    def forget(self) -> None:
        """Lets :meth:`restore` do nothing from now on."""
        self._resumed = None


def training_state(loop: SimpleTrainer, random_states: RandomStates) -> dict[str, Any]:
    """Returns the part of a checkpoint that is neither the weights nor a hook's.

    Args:
        loop: the trainer that runs the steps, with the optimizer and the loader.
        random_states: of all processes.

    Returns:
        "_trainer": the optimizer and the gradient scaler; both again, where the trainers of
        Detectron2's tools/lazyconfig_train_net.py look for them (the same tensors, which a file has
        once); "optimizer_class"; "rng"; "data": the place in the training data, None if the loader
        does not know it.
    """
    loader = loop.data_loader
    own = loop.state_dict()
    return {
        **{name: own[name] for name in ("optimizer", "grad_scaler") if name in own},
        "_trainer": own,
        "optimizer_class": _optimizer_class(loop.optimizer),
        "rng": random_states.state(),
        "data": loader.state_dict() if hasattr(loader, "state_dict") else None,
    }


def load_training_state(
    loop: SimpleTrainer, random_states: RandomStates, state: dict[str, Any]
) -> None:
    """Restores a state of :func:`training_state`. Logs everything that will not be exact.

    Args:
        loop: the trainer that runs the steps.
        random_states: they get the checkpoint's states.
        state: of the checkpoint.

    Raises:
        ValueError: the checkpoint is not from this trainer, or is of another optimizer. Nothing has
            changed then.
    """
    if not {"_trainer", "optimizer_class"} <= state.keys():
        raise ValueError(
            "the checkpoint to resume from was not written by gfocal's trainer, or by that of "
            f"an earlier version, and cannot be taken up exactly. {ANEW}"
        )
    now, before = _optimizer_class(loop.optimizer), state["optimizer_class"]
    if now != before:
        raise ValueError(
            f"the checkpoint to resume from is of the optimizer {before}, the config's is {now}. "
            f"{ANEW}"
        )
    settings = _settings(loop.optimizer)
    # The gradient scaler is new if the run before had none.
    loop.load_state_dict({**loop.state_dict(), **state["_trainer"]})
    _warn_of_other_settings(settings, _settings(loop.optimizer))
    loader, place = loop.data_loader, state.get("data")
    if place is not None and hasattr(loader, "load_state_dict"):
        loader.load_state_dict(place)
    else:
        logging.getLogger(__name__).warning(
            "The place in the training data is not known; its order starts anew"
        )
    random_states.load(state.get("rng"))


def _optimizer_class(optimizer: torch.optim.Optimizer) -> str:
    """The name of PyTorch's class. Detectron2 derives classes from it that clip gradients."""
    classes = type(optimizer).__mro__
    return next(x.__name__ for x in classes if x.__module__.startswith("torch.optim"))


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, list]:
    """The config's settings of an optimizer, for each group of parameters, with the learning rate
    before the schedule."""
    ret: dict[str, list] = {}
    for group in optimizer.param_groups:
        for name, value in {**group, "lr": group.get("initial_lr", group["lr"])}.items():
            value = list(value) if isinstance(value, Sequence) else value
            ret.setdefault(name, []).append(value)
    return {name: values for name, values in ret.items() if name not in ("params", "initial_lr")}


def _warn_of_other_settings(config: dict[str, list], resumed: dict[str, list]) -> None:
    for name in sorted(config.keys() & resumed.keys()):
        pairs = zip(config[name], resumed[name], strict=True)
        if changed := [(new, old) for new, old in pairs if new != old]:
            new, old = changed[0]
            logging.getLogger(__name__).warning(
                f"The optimizer's {name} is {new} in the config and {old} in the checkpoint, "
                f"and the resumed training keeps the latter. {ANEW}"
            )
