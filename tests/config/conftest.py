"""The toy config, which the engine's tests train."""

from tests.engine.conftest import toy_config  # noqa: F401
