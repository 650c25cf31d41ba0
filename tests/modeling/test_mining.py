import torch

from gfocal.modeling.mining import contenders, hard_negatives


def chosen(losses, negatives, num_positives, ratio=3.0):
    losses = torch.tensor(losses, dtype=torch.float32)
    images, idxs = hard_negatives(
        losses, torch.tensor(negatives).bool(), torch.tensor(num_positives), ratio
    )
    ret = [[] for _ in losses]
    for image, idx in zip(images.tolist(), idxs.tolist()):
        ret[image].append(idx)
    return [sorted(x) for x in ret]


def test_each_image_has_its_own_share():
    losses = [[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5], [9, 9, 9, 9, 9, 9]]
    found = chosen(losses, torch.ones(3, 6).tolist(), [1, 1, 0])
    assert found == [[0, 1, 2], [3, 4, 5], []]


def test_only_negatives_and_no_more_than_there_are():
    losses = [[5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0]]
    negatives = [[0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 1, 0]]
    assert chosen(losses, negatives, [1, 1]) == [[2, 3, 4], [2, 4]]
    assert chosen(losses, negatives, [9, 9]) == [[2, 3, 4, 5], [2, 4]]


def test_a_ratio_that_is_no_integer_is_rounded_down():
    assert chosen([[3, 2, 1, 0]], [[1] * 4], [1], ratio=1.5) == [[0]]
    assert chosen([[3, 2, 1, 0]], [[1] * 4], [1], ratio=0.0) == [[]]


def test_equal_losses():
    """Any of them, but as many as there should be."""
    (found,) = chosen([[1, 7, 1, 1, 1]], [[1] * 5], [1])
    assert len(found) == 3 and 1 in found


def test_nothing_at_all():
    images, idxs = hard_negatives(
        torch.zeros(2, 0), torch.zeros(2, 0).bool(), torch.zeros(2, dtype=torch.int64), 3.0
    )
    assert len(images) == len(idxs) == 0


def test_contenders_are_all_that_can_be_chosen():
    """Losses anywhere between their bounds, and shares from nothing to more than there are."""
    torch.manual_seed(0)
    bounds = 4 * torch.randn(6, 200)
    losses = bounds + 3 * torch.rand(6, 200)
    negatives = torch.rand(6, 200) > 0.1
    num_positives = torch.tensor([0, 1, 5, 20, 65, 100])
    found = contenders(bounds, 3.0, negatives, num_positives, 3.0)
    images, idxs = hard_negatives(losses, negatives, num_positives, 3.0)
    assert found[images, idxs].all()
    assert not (found & ~negatives).any()
    counts = found.sum(dim=1).tolist()
    assert counts[0] == 0 and counts[1] < 100 and counts[5] == negatives[5].sum()
    assert torch.equal(torch.bincount(images, minlength=6)[:3], torch.tensor([0, 3, 15]))


def test_what_is_not_a_number_stays_a_contender():
    """Else the image had no negatives at all, and its loss was finite."""
    bounds = torch.tensor([[9.0, torch.nan, 7.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    negatives = torch.ones(2, 4, dtype=torch.bool)
    found = contenders(bounds, 0.5, negatives, torch.tensor([1, 1]), 1.0)
    assert found[0, 1] and found[1].tolist() == [True, False, False, False]


def test_contenders_by_hand():
    bounds = torch.tensor([[9.0, 8.0, 7.0, 5.9, 6.0, 10.0]])
    negatives = torch.tensor([[1, 1, 1, 1, 1, 0]]).bool()
    found = contenders(bounds, 1.0, negatives, torch.tensor([1]), 3.0)
    assert found.tolist() == [[True, True, True, False, True, False]]  # 7 - 1 is the limit
