import torch

from train.layers.dropout import Dropout, draw


def test_it_drops_what_torchs_own_drops():
    x = torch.randn(40, 30, requires_grad=True)
    for share in (0.0, 0.2, 0.5):
        found = []
        for layer in (Dropout(share), torch.nn.Dropout(share)):
            torch.manual_seed(3)
            found.append(layer(x))
            found.append(torch.rand(1))  # and leaves the same numbers to those after it
        assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_a_given_mask_is_what_it_drops():
    x = torch.ones(2, 3)
    layer = Dropout(0.5)
    layer.mask = torch.tensor([[0.0, 2, 2], [2, 0, 2]])
    assert torch.equal(layer(x), layer.mask)


def test_a_generator_of_the_same_state_draws_the_same():
    torch.manual_seed(5)
    drawn = torch.Generator()
    drawn.set_state(torch.get_rng_state())
    one = draw(0.3, torch.Size((50, 4)), torch.device("cpu"))
    assert torch.equal(one, draw(0.3, torch.Size((50, 4)), torch.device("cpu"), drawn))
    assert set(one.unique().tolist()) == {0.0, float(torch.ones(()) / 0.7)}
