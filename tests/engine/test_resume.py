"""The random states in a checkpoint; tests/test_resume.py has whole trainings."""

import pytest
import torch

from gfocal.engine.resume import RandomStates


def test_random_states_are_restored_until_they_are_forgotten(caplog):
    states = RandomStates()
    saved = states.state()
    expected = torch.rand(3)
    resumed = RandomStates()
    resumed.restore()  # nothing was resumed
    assert not torch.equal(torch.rand(3), expected)
    resumed.load(saved)
    assert not torch.equal(torch.rand(3), expected)
    for _ in range(2):
        resumed.restore()
        assert torch.equal(torch.rand(3), expected)
    resumed.forget()
    resumed.restore()
    assert not torch.equal(torch.rand(3), expected)
    assert caplog.text == ""
    resumed.load(saved * 2)
    assert "has random states of 2 processes, this training has 1" in caplog.text
    resumed.load(None)
    assert "has random states of 0 processes" in caplog.text


def test_random_states_of_several_processes(monkeypatch):
    monkeypatch.setattr("gfocal.engine.resume.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("gfocal.engine.resume.comm.gather", lambda state: [state, state])
    states = RandomStates()
    assert states.state() is None  # the others would have to be asked
    with states.gathered():
        assert len(states.state()) == 2
    with pytest.raises(OSError, match="full"), states.gathered():
        raise OSError("the disk is full")
    assert states.state() is None
