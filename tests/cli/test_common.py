"""How a command ends."""

import pytest
import torch

from gfocal.cli.common import complain, exit_on_mistake
from gfocal.data.images import find_images


@pytest.mark.parametrize("kind", [ValueError, TypeError, FileNotFoundError, SyntaxError])
def test_a_mistake_is_a_message(kind):
    @exit_on_mistake()
    def command():
        raise kind("a number is wanted")

    for _ in range(2):  # a decorated function can be called again
        with pytest.raises(SystemExit) as error:
            command()
        assert error.value.code == "error: a number is wanted"


def test_others_keep_their_traceback():
    with pytest.raises(RuntimeError), exit_on_mistake():
        raise RuntimeError
    with pytest.raises(TypeError), exit_on_mistake((ValueError, OSError)):
        raise TypeError
    with pytest.raises(SystemExit, match="2"), exit_on_mistake():
        raise SystemExit(2)  # argparse's


def test_where_other_code_found_it_can_be_said():
    with pytest.raises(SystemExit) as error, exit_on_mistake(locate=True):
        torch.optim.SGD([torch.zeros(1)], lr=-1)
    message = str(error.value)
    assert message.startswith("error: Invalid learning rate: -1 (") and "sgd.py:" in message
    with pytest.raises(SystemExit) as error, exit_on_mistake(locate=True):
        find_images(["nowhere"])
    assert str(error.value) == "error: no image matches 'nowhere'"


def test_problems_that_stop_nothing(capsys):
    assert complain([]) == 0
    assert capsys.readouterr() == ("", "")
    assert complain(["one", "two"]) == 1
    assert capsys.readouterr() == ("", "error: one\nerror: two\n")
