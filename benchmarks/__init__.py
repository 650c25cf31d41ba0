"""The package's parts beside the straightforward formulation of the papers: time and memory.

``python tools/benchmark.py`` runs a task of :data:`gfocal.benchmarks.tasks.TASKS`. setup.py ships
this folder as ``gfocal.benchmarks``.
"""
