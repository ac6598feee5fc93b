import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from maml_rl.networks.batch_norm import batch_norm

EPSILON = 1e-3


def inputs(dtype=torch.float64, count=7, width=3):
    generator = torch.Generator().manual_seed(0)
    rows = 2.0 * torch.randn(count, width, generator=generator) + 1.0
    scale, bias = torch.randn(width, generator=generator), torch.randn(width, generator=generator)
    return [each.to(dtype).requires_grad_() for each in (rows, scale, bias)]


def plain(rows, scale, bias):
    return F.batch_norm(rows, None, None, scale, bias, training=True, eps=EPSILON)


def ours(rows, scale, bias):
    return batch_norm(rows, scale, bias, EPSILON)


def curvature(function, argnums):
    """The second derivatives of a curved sum, by torch.func in reverse mode."""
    return torch.func.jacrev(torch.func.jacrev(lambda *each: function(*each).exp().sum(), argnums), argnums)


def derivatives(function, arguments):
    """Values, first derivatives of a curved sum, and second ones along a direction."""
    values = function(*arguments)
    first = torch.autograd.grad(values.exp().sum(), arguments, create_graph=True)
    along = sum((each * each.detach().cos()).sum() for each in first)
    return values, first, torch.autograd.grad(along, arguments)


def test_derivatives_by_finite_differences():
    assert gradcheck(ours, inputs())
    assert gradgradcheck(ours, inputs())


def test_a_scale_of_zero_has_derivatives():
    rows, scale, bias = inputs()
    scale = scale.detach().zero_().requires_grad_()
    assert gradgradcheck(ours, (rows, scale, bias))


@pytest.mark.parametrize("count", [2, 7, 980])
def test_values_and_first_derivatives_are_torch_s_to_the_last_bit(count):
    arguments = inputs(torch.float32, count, 64)
    (values, first, second), (theirs, their_first, their_second) = (
        derivatives(function, arguments) for function in (ours, plain)
    )
    assert torch.equal(values, theirs)
    assert all(map(torch.equal, first, their_first))
    for own, other in zip(second, their_second, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


def test_some_arguments_may_need_no_derivatives():
    rows, scale, bias = inputs()
    scale, bias = scale.detach(), bias.detach()
    assert gradgradcheck(lambda each: ours(each, scale, bias), (rows,))
    assert gradcheck(lambda *each: ours(rows.detach(), *each), inputs()[1:])


def test_whatever_is_to_be_differentiated_further_agrees_with_the_fused_passes():
    def second(create_graph):
        arguments = inputs()
        first = torch.autograd.grad(ours(*arguments).exp().sum(), arguments, create_graph=True)
        along = sum((each * each.detach().cos()).sum() for each in first)
        return arguments, torch.autograd.grad(along, arguments, create_graph=create_graph)

    (_, fused), (arguments, open_ended) = second(False), second(True)
    torch.testing.assert_close(open_ended, fused)
    assert all(each.requires_grad for each in open_ended)
    assert gradcheck(curvature(ours, 0), arguments)


def test_it_can_be_transformed():
    # Against plain automatic differentiation: torch.func's second derivatives of F.batch_norm are wrong in torch 2.13.
    stacks = [torch.stack([each, 2.0 * each, each - 1.0]).detach() for each in inputs()]
    own = torch.func.vmap(curvature(ours, (0, 1, 2)))(*stacks)
    for index, arguments in enumerate(zip(*stacks, strict=True)):
        expected = torch.autograd.functional.hessian(lambda *each: plain(*each).exp().sum(), arguments)
        torch.testing.assert_close(tuple(tuple(each[index] for each in row) for row in own), expected)
