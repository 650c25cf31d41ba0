"""A dataset that most tests of json files start from."""

import pytest

from tests.helpers.coco_files import valid_document, write_dataset


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path, valid_document())
