"""The ablation tables: rows and the page that lists them. (How they train: tests/cli.)"""

from pathlib import Path

import pytest

from gfocal import model_zoo
from gfocal.inspect import ablations


def test_the_index_is_current():
    folder = Path(model_zoo.get_config_file("ablations/atss.py")).parent
    assert (folder / "README.md").read_text() == ablations.index() + "\n"


@pytest.mark.parametrize("table", ablations.ON_SHAPES)
def test_a_row_on_shapes_has_the_rows_parts(table, tmp_path):
    for row in ablations.rows(table):
        ours, parts = (
            ablations.make_config(row, dataset, 5, 1, tmp_path).model
            for dataset in ("shapes", "coco")
        )
        assert ours.num_classes == 6 and parts.num_classes == 80
        assert ours.criterion == parts.criterion and ours.matcher == parts.matcher
        assert ours.head.box_representation == parts.head.box_representation
        assert ours.head.quality_predictor._target_ is parts.head.quality_predictor._target_
