"""Timing functions and measuring the memory that they need."""

import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Benchmark", "machine"]

T = TypeVar("T")


class Benchmark:
    """Times functions and collects the rows of a table.

    Args:
        device: of everything.
        repeat: number of runs, after one to warm up.
        report: gets each line of the table when it is ready.

    Attributes:
        rows: of the table, as dictionaries.
        clock: seconds. A task may set time.process_time, which other programs do not disturb.
    """

    def __init__(self, device: str, repeat: int, report: Callable[[str], None]):
        self.device = torch.device(device)
        self.repeat = repeat
        self.report = report
        self.rows: list[dict] = []
        self.clock = time.perf_counter

    def race(
        self, functions: dict[str, Callable[[], object]], memory: bool = True
    ) -> dict[str, dict]:
        """One row a function: median milliseconds, and MB of memory at the peak, if PyTorch knows.
        The functions run in turn, so that a machine that gets slower does so for all."""
        times: dict[str, list[float]] = {what: [] for what in functions}
        for function in functions.values():
            function()
        for _ in range(self.repeat):
            for what, function in functions.items():
                times[what].append(self.timed(function)[1])
        rows = {}
        for what, function in functions.items():
            milliseconds = statistics.median(times[what])
            rows[what] = {"what": what, "ms": round(milliseconds, 2)}
            line = f"{what:70} {milliseconds:10.2f} ms"
            if memory:
                rows[what]["MB"] = self._memory(function)
                line += f" {rows[what]['MB']:8.1f} MB"
            self.report(line)
        self.rows += rows.values()
        return rows

    def compare(self, what: str, ours: Callable, theirs: Callable) -> None:
        """Two rows, and how many times faster the first is."""
        # Not in turn: the memory that one frees (up to 2 GB) would slow the other down.
        (a,) = self.race({f"{what}, ours": ours}).values()
        (b,) = self.race({f"{what}, straightforward": theirs}).values()
        a["times faster"] = round(b["ms"] / a["ms"], 1)
        self.report(f"{'':70} {a['times faster']:10.1f} times faster")

    def timed(self, function: Callable[[], T]) -> tuple[T, float]:
        """The result of the function, and its time in milliseconds."""
        self._synchronize()
        start = self.clock()
        result = function()
        self._synchronize()
        return result, 1e3 * (self.clock() - start)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _memory(self, function: Callable[[], object]) -> float:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            function()
            return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            function()
        with tempfile.TemporaryDirectory() as folder:
            trace = f"{folder}/trace.json"
            profiler.export_chrome_trace(trace)
            events = json.loads(Path(trace).read_text())["traceEvents"]
        events = [event for event in events if event["name"] == "[memory]"]
        events.sort(key=lambda event: event["ts"])
        now = peak = 0
        for event in events:
            now += event["args"]["Bytes"]
            peak = max(peak, now)
        return round(peak / 2**20, 1)


def machine(device: torch.device) -> str:
    """Processors, threads and PyTorch, in words."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":")[1].strip()
                break
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name()}, {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
