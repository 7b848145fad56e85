import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from carelab.networks import Epoch, accuracy, cnn, fingerprint, fit, logits, mlp, predict, training
from carelab.records import Samples


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    return mlp(2, (8,), 2, generator=generator(seed))


def quadrants(rows, seed=0, dtype=torch.float32):
    """Points of the square [-1, 1]^2; the label tells whether x and y have the same sign."""
    inputs = torch.rand(rows, 2, generator=generator(seed), dtype=dtype) * 2 - 1
    return Samples(inputs=inputs, labels=(inputs.prod(dim=1) > 0).long())


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(layer).eval()


def test_answers_by_hand() -> None:
    # Logits (x, 1 - x): class 0 above 0.5, class 1 below, the first class at the tie.
    model = linear([[1.0], [-1.0]], [0.0, 1.0])
    inputs = torch.tensor([[0.0], [0.5], [2.0], [-1.0]])
    expected = torch.tensor([[0.0, 1.0], [0.5, 0.5], [2.0, -1.0], [-1.0, 2.0]])
    assert torch.equal(logits(model, inputs), expected)
    assert predict(model, inputs).tolist() == [1, 0, 0, 1]
    samples = Samples(inputs=inputs, labels=torch.tensor([1, 1, 0, 1], dtype=torch.int32))
    assert accuracy(model, samples) == 0.75


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_answers_do_not_depend_on_the_batches(batch_size) -> None:
    model, samples = network().double(), quadrants(7, dtype=torch.float64)
    together = logits(model, samples.inputs)
    torch.testing.assert_close(
        logits(model, samples.inputs, batch_size=batch_size), together, rtol=0, atol=1e-14
    )
    assert not together.requires_grad
    assert accuracy(model, samples, batch_size=batch_size) == accuracy(model, samples)


def test_no_input_has_no_answer_but_no_accuracy() -> None:
    assert logits(network(), torch.zeros(0, 2)).shape == (0, 2)
    assert predict(network(), torch.zeros(0, 2)).shape == (0,)
    with pytest.raises(ValueError, match="samples: got no sample; allowed: at least one"):
        accuracy(network(), quadrants(0))


def test_answers_refuse_misuse() -> None:
    rows = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"training mode; .* model.eval\(\)"):
        logits(network().train(), rows)
    partly = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    partly[1].train()
    with pytest.raises(ValueError, match="training mode"):
        predict(partly, rows)
    with pytest.raises(ValueError, match="batch_size: got 0; allowed: at least 1"):
        predict(network(), rows, batch_size=0)
    with pytest.raises(ValueError, match="inputs: got 3 features; this network takes 2"):
        predict(network(), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="samples: got samples without labels"):
        accuracy(network(), Samples(inputs=rows))


def test_fit_learns_what_no_linear_model_can() -> None:
    train, unseen = quadrants(512), quadrants(512, seed=1)
    model = fit(
        network(), train, epochs=60, batch_size=32, learning_rate=0.01, generator=generator()
    )
    assert accuracy(model, unseen) > 0.95
    straight = nn.Sequential(nn.Linear(2, 2)).eval()
    assert accuracy(fit(straight, train, generator=generator()), unseen) < 0.7


def test_first_steps_are_those_of_adam_by_hand() -> None:
    # One row a step and one row in all, so that the order does not matter. With m = g and v = g^2
    # after bias correction, Adam's first step moves each weight by the rate against its gradient.
    samples = Samples(inputs=torch.tensor([[1.0, -2.0]]), labels=torch.tensor([0]))
    model = linear([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    epochs = []
    fitted = fit(
        model, samples, epochs=1, learning_rate=0.25, report=epochs.append, generator=generator()
    )
    expected = torch.tensor([[0.25, -0.25], [-0.25, 0.25]])
    torch.testing.assert_close(fitted[0].weight.detach(), expected, rtol=1e-5, atol=0)
    assert [(one.number, one.selection_loss) for one in epochs] == [(1, None)]
    # Two equal logits: the loss before the step is ln 2.
    assert epochs[0].train_loss == pytest.approx(math.log(2), rel=1e-6)


def test_the_reported_loss_is_a_mean_over_samples_whatever_the_batches() -> None:
    # Steps too small to matter: every row keeps the loss ln 2 of two equal logits.
    epochs, model = [], linear([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    options = {"learning_rate": 1e-12, "batch_size": 2, "epochs": 2, "report": epochs.append}
    fit(model, quadrants(5), generator=generator(), **options)
    assert [one.train_loss for one in epochs] == pytest.approx([math.log(2)] * 2, rel=1e-6)


def test_the_given_network_is_not_changed_and_the_result_is_in_evaluation_mode() -> None:
    model = network().train()
    before = fingerprint(model)
    fitted = fit(model, quadrants(64), epochs=2, generator=generator())
    assert fingerprint(model) == before != fingerprint(fitted)
    assert model.training
    assert not any(module.training for module in fitted.modules())
    assert all(weight.grad is None for weight in model.parameters())


def test_the_generator_alone_decides_the_result() -> None:
    dropping = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)).eval()

    def train(seed):
        fitted = fit(dropping, quadrants(100), epochs=3, batch_size=16, generator=generator(seed))
        return fingerprint(fitted)

    torch.manual_seed(1)
    state, first = torch.get_rng_state(), train(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert train(0) == first
    assert train(1) != first


def test_early_stopping_keeps_the_weights_of_the_best_epoch() -> None:
    # Selection labels are those of training turned round: whatever is learned makes it worse.
    train = quadrants(256)
    selection = Samples(inputs=train.inputs, labels=1 - train.labels)
    epochs, options = [], {"batch_size": 32, "learning_rate": 0.01}
    kept = fit(
        network(),
        train,
        selection=selection,
        patience=3,
        report=epochs.append,
        generator=generator(),
        **options,
    )
    losses = [one.selection_loss for one in epochs]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 3 < 50
    assert functional.cross_entropy(
        logits(kept, selection.inputs), selection.labels
    ).item() == pytest.approx(losses[best], rel=1e-6)
    # Without selection the same epochs run to the end, so stopping after the best one agrees.
    alone = fit(network(), train, epochs=best + 1, generator=generator(), **options)
    assert fingerprint(kept) == fingerprint(alone)


def test_the_loss_curve_falls_and_is_reported_epoch_by_epoch() -> None:
    epochs = []
    fit(
        network(),
        quadrants(256),
        selection=quadrants(64, seed=1),
        epochs=4,
        learning_rate=0.01,
        batch_size=32,
        report=epochs.append,
        generator=generator(),
    )
    assert all(isinstance(one, Epoch) for one in epochs)
    assert [one.number for one in epochs] == [1, 2, 3, 4]
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].selection_loss < epochs[0].selection_loss


def test_progress_shows_a_bar_and_changes_nothing(capsys) -> None:
    fitted = [
        fit(network(), quadrants(16), epochs=2, progress=shown, generator=generator())
        for shown in (False, True)
    ]
    assert "training: 100%" in capsys.readouterr().err
    assert fingerprint(fitted[0]) == fingerprint(fitted[1])


def test_weight_decay_makes_the_weights_smaller() -> None:
    free, held = (
        fit(
            network(),
            quadrants(128),
            weight_decay=decay,
            learning_rate=0.02,
            generator=generator(),
        )
        for decay in (0.0, 1.0)
    )
    assert held[0].weight.norm() < 0.5 * free[0].weight.norm()


def test_batches_are_even_so_that_batch_normalisation_sees_no_single_row() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).eval()
    fitted = fit(model, quadrants(33), epochs=2, batch_size=32, generator=generator())
    # Two epochs of two batches (17 + 16 rows), not of 32 + 1.
    assert fitted[1].num_batches_tracked == 4


def test_frozen_weights_stay_and_the_number_type_is_kept() -> None:
    model = network().double()
    model.linear1.requires_grad_(False)
    fitted = fit(model, quadrants(64, dtype=torch.float64), epochs=2, generator=generator())
    assert torch.equal(fitted.linear1.weight, model.linear1.weight)
    assert not torch.equal(fitted.linear2.weight, model.linear2.weight)
    assert {weight.dtype for weight in fitted.parameters()} == {torch.float64}


def images(rows, side, channels=3):
    """Images whose label tells whether their mean is above 1/2, in double precision."""
    inputs = torch.rand(rows, channels, side, side, dtype=torch.float64, generator=generator())
    return Samples(inputs=inputs, labels=(inputs.mean(dim=(1, 2, 3)) > 0.5).long())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [15, 16])
def test_images_are_answered_alike_however_they_lie_in_memory(side, channels) -> None:
    samples, passes = images(9, side, channels), []
    model = cnn((channels, side, side), (4, 5), (6,), 2, generator=generator()).double()
    model.conv1.register_forward_pre_hook(lambda _, given: passes.append(given[0]))
    with torch.no_grad():
        expected = model(samples.inputs)
    last = samples.inputs.clone(memory_format=torch.channels_last)
    for inputs in (samples.inputs, last):
        torch.testing.assert_close(logits(model, inputs), expected, rtol=0, atol=1e-12)
    assert (passes[1].stride(1) == 1) == (side == 16)
    fitted = fit(model, samples, epochs=1, generator=generator())
    assert all(weight.is_contiguous() for weight in fitted.parameters())


def test_large_images_go_in_few_a_pass(monkeypatch) -> None:
    monkeypatch.setattr(training, "_NUMBERS_A_PASS", 1000)
    samples, sizes = images(9, 16, 1), []
    model = cnn((1, 16, 16), (2,), (), 2, generator=generator()).double()
    with torch.no_grad():
        expected = model(samples.inputs)
    model.conv1.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    # 1000 numbers hold three images of 256 pixels.
    torch.testing.assert_close(logits(model, samples.inputs), expected, rtol=0, atol=1e-12)
    assert sizes == [3, 3, 3]
    sizes.clear()
    logits(model, samples.inputs, batch_size=2)
    assert sizes == [2, 2, 2, 2, 1]


def test_augmentation_changes_each_batch_and_nothing_else() -> None:
    train, seen = quadrants(50), []

    def note(inputs, source):
        seen.append(inputs)
        return inputs

    options = {"epochs": 3, "batch_size": 20}
    noted = fit(network(), train, augment=note, generator=generator(), **options)
    assert fingerprint(noted) == fingerprint(
        fit(network(), train, generator=generator(), **options)
    )
    # Three epochs of 17 + 17 + 16 rows, each row once an epoch.
    assert [len(inputs) for inputs in seen] == [17, 17, 16] * 3
    first = torch.cat(seen[:3])
    assert torch.equal(first.sort(dim=0).values, train.inputs.sort(dim=0).values)
    assert not torch.equal(torch.cat(seen[3:6]), first)


def test_augmentation_draws_from_the_generator_and_decides_what_is_learned() -> None:
    def flip(inputs, source):
        signs = torch.randint(2, (len(inputs), 1), generator=source) * 2 - 1
        # Half of the rows change the quadrant, so that nothing can be learned.
        return inputs * torch.cat([signs, torch.ones_like(signs)], dim=1)

    train, test = quadrants(400), quadrants(400, seed=1)
    options = {"epochs": 20, "batch_size": 20, "learning_rate": 0.01}

    def train_once(seed, augment):
        return fit(network(), train, augment=augment, generator=generator(seed), **options)

    flipped = train_once(0, flip)
    assert fingerprint(flipped) == fingerprint(train_once(0, flip))
    assert fingerprint(flipped) != fingerprint(train_once(1, flip))
    assert accuracy(flipped, test) < 0.7 < 0.9 < accuracy(train_once(0, None), test)


def test_augmentation_that_changes_the_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"augment: returned shape \(4, 1\); .*\(4, 2\)"):
        fit(network(), quadrants(4), augment=lambda x, g: x[:, :1], generator=generator())


def test_one_cycle_takes_half_of_its_largest_step_on_average() -> None:
    # Logits 100 apart the wrong way: the slope stays at 1, so that Adam moves by its step size.
    model = linear([[50.0], [-50.0]], [0.0, 0.0])
    train = Samples(inputs=torch.ones(1, 1), labels=torch.tensor([1]))
    options = {"epochs": 100, "learning_rate": 0.01, "generator": generator()}
    plain = fit(model, train, **options)
    cycle = fit(model, train, one_cycle=True, **options)
    assert 50 - plain[0].weight[0].item() == pytest.approx(1, rel=0.01)
    assert 50 - cycle[0].weight[0].item() == pytest.approx(0.5, rel=0.05)


def test_one_cycle_runs_to_its_end_and_the_best_epoch_is_kept() -> None:
    train = quadrants(256)
    selection = Samples(inputs=train.inputs, labels=1 - train.labels)
    epochs = []
    kept = fit(
        network(),
        train,
        selection=selection,
        epochs=12,
        patience=1,
        one_cycle=True,
        batch_size=32,
        learning_rate=0.05,
        report=epochs.append,
        generator=generator(),
    )
    losses = [one.selection_loss for one in epochs]
    assert len(losses) == 12
    loss = functional.cross_entropy(logits(kept, selection.inputs), selection.labels).item()
    assert loss == pytest.approx(min(losses), rel=1e-6)
    assert loss < losses[-1]


def broken(**change):
    samples = quadrants(4)
    return Samples(**{"inputs": samples.inputs, "labels": samples.labels, **change})


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (quadrants(0), "got no sample; allowed: at least one"),
        (broken(labels=None), "got samples without labels; allowed: labelled samples"),
        (broken(labels=torch.tensor([0, 1, 2, 0])), "got labels from 0 to 2; allowed: 0 to 1"),
        (broken(labels=torch.tensor([0, -1, 1, 0])), "got labels from -1 to 1"),
        (broken(inputs=torch.full((4, 2), torch.nan)), "got inputs that are not finite"),
        (broken(inputs=torch.full((4, 2), torch.inf)), "got inputs that are not finite"),
    ],
)
def test_fit_refuses_samples_it_cannot_learn(samples, message) -> None:
    with pytest.raises(ValueError, match=f"^train: {message}"):
        fit(network(), samples, generator=generator())
    with pytest.raises(ValueError, match=f"^selection: {message}"):
        fit(network(), quadrants(4), selection=samples, generator=generator())


def test_fit_refuses_inputs_of_another_width_and_a_network_without_parameters() -> None:
    with pytest.raises(ValueError, match="inputs: got 5 features; this network takes 2"):
        fit(network(), broken(inputs=torch.zeros(4, 5)), generator=generator())
    with pytest.raises(ValueError, match="model: has no parameter to train"):
        fit(nn.Sequential(nn.ReLU()), quadrants(4), generator=generator())
    with pytest.raises(ValueError, match="model: has no parameter to train"):
        fit(network().requires_grad_(False), quadrants(4), generator=generator())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epochs": 0}, "epochs, batch_size, patience: got 0, 128, 5; allowed: at least 1"),
        ({"batch_size": 0}, "epochs, batch_size, patience: got 50, 0, 5"),
        ({"patience": 0}, "epochs, batch_size, patience: got 50, 128, 0"),
        ({"learning_rate": 0.0}, "learning_rate, weight_decay: got 0.0, 0.0; allowed: a positive"),
        ({"learning_rate": math.nan}, "learning_rate, weight_decay: got nan"),
        ({"weight_decay": -1.0}, "learning_rate, weight_decay: got 0.001, -1.0"),
    ],
)
def test_fit_refuses_options_out_of_range(option, message) -> None:
    with pytest.raises(ValueError, match=message):
        fit(network(), quadrants(4), generator=generator(), **option)


@pytest.mark.parametrize("selection", [None, quadrants(8)])
def test_fit_says_when_it_diverges(selection) -> None:
    with pytest.raises(ValueError, match=r"learning_rate: got 1e\+30, .* diverged in epoch \d"):
        fit(
            network(),
            quadrants(8),
            selection=selection,
            learning_rate=1e30,
            batch_size=2,
            generator=generator(),
        )


def test_fit_says_when_the_very_last_step_breaks_the_weights() -> None:
    samples = Samples(inputs=torch.tensor([[1.0, -2.0]]), labels=torch.tensor([0]))
    half = linear([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]).half()
    with pytest.raises(ValueError, match=r"in epoch 1 \(0.weight not finite, 0.bias not finite"):
        fit(
            half,
            Samples(inputs=samples.inputs.half(), labels=samples.labels),
            epochs=1,
            learning_rate=1e6,
            generator=generator(),
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fit_and_answers_follow_the_device() -> None:
    train = quadrants(256)
    moved = Samples(inputs=train.inputs.cuda(), labels=train.labels.cuda())
    state = torch.cuda.get_rng_state()
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2)).cuda()

    def train_once():
        return fit(model, moved, epochs=30, learning_rate=0.01, generator=generator())

    first, second = train_once(), train_once()
    assert fingerprint(first) == fingerprint(second)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert logits(first, moved.inputs).is_cuda
    assert accuracy(first, moved) > 0.9
    assert accuracy(first.cpu(), train) > 0.9
