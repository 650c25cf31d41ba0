from gfocal.data.batching import format_to_read, plan_batches


def test_equal_sizes_share_a_batch():
    a, b = (32, 64), (64, 32)
    assert plan_batches([a, b, a, a, None, b, a, None], 2) == [[0, 2], [1, 5], [3, 6], [4], [7]]
    assert plan_batches([a, b], 1) == [[0], [1]]
    assert plan_batches([], 3) == []


def test_colours_are_read_in_one_order():
    assert format_to_read(3, "RGB") == format_to_read(3, "BGR") == "BGR"
    for channels, own in ((1, "L"), (4, "RGBA"), (3, "YUV-BT.601"), (3, None), (5, None)):
        assert format_to_read(channels, own) == own
