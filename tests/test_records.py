import torch

from carelab.records import Samples


def samples(first: int, count: int, *, labelled: bool = True) -> Samples:
    """Rows of one number each, counted from `first`; odd ones are of class 1."""
    rows = torch.arange(first, first + count)
    return Samples(inputs=rows[:, None].float(), labels=rows % 2 if labelled else None)


def test_joined_samples_keep_their_order_and_labels() -> None:
    one, two = samples(0, 3), samples(7, 2)
    both = one.joined(two)
    assert both.inputs.flatten().tolist() == [0, 1, 2, 7, 8]
    assert both.labels is not None
    assert both.labels.tolist() == [0, 1, 0, 1, 0]
    assert (len(one), len(two), len(both)) == (3, 2, 5)


def test_joined_images_keep_their_shape() -> None:
    image = Samples(inputs=torch.zeros(2, 3, 4, 5), labels=torch.zeros(2).long())
    assert image.joined(image).inputs.shape == (4, 3, 4, 5)


def test_a_part_without_labels_leaves_the_whole_without() -> None:
    known, unknown = samples(0, 3), samples(3, 2, labelled=False)
    for both in (known.joined(unknown), unknown.joined(known), unknown.joined(unknown)):
        assert both.labels is None
    assert known.joined(unknown).inputs.flatten().tolist() == [0, 1, 2, 3, 4]


def test_joining_takes_back_what_was_split() -> None:
    whole = samples(0, 9)
    again = whole.take(slice(0, 4)).joined(whole.take(slice(4, None)))
    assert torch.equal(again.inputs, whole.inputs)
    assert torch.equal(again.labels, whole.labels)


def test_joined_with_nothing_is_the_same() -> None:
    whole = samples(0, 4)
    for both in (whole.joined(samples(0, 0)), samples(0, 0).joined(whole)):
        assert torch.equal(both.inputs, whole.inputs)
        assert torch.equal(both.labels, whole.labels)


def test_what_is_joined_shares_no_memory() -> None:
    one = samples(0, 2)
    one.joined(samples(5, 1)).inputs.zero_()
    assert one.inputs.flatten().tolist() == [0, 1]
