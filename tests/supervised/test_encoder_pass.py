import pytest
import torch

from maml_rl.core.lift import Threads
from maml_rl.core.trees import as_leaves, flatten
from maml_rl.networks.convnet import ConvConfig, by_batch, init_encoder, unnormalised
from maml_rl.supervised.classification import encode_presented
from maml_rl.supervised.encoder_pass import EncoderPass, gradient

CHUNK = 3  # pictures


def drawn(config, num_context, dtype=torch.float64):
    """Parameters that are not 0 or 1, two batches of eight pictures, and what these are presented with."""
    generator = torch.Generator().manual_seed(0)
    params = init_encoder(generator, config, 3)
    params = {name: (p + 0.1 * torch.randn(p.shape, generator=generator)).to(dtype) for name, p in params.items()}
    images = torch.rand(2, 8 + num_context, 20, 20, 3, generator=generator, dtype=dtype)
    return params, images[:, num_context:], images[:, :num_context]


@pytest.mark.parametrize("architecture", ["strided", "pooled", "paired"])
@pytest.mark.parametrize("features", ["mean", "flatten"])
@pytest.mark.parametrize(("norm", "num_context"), [("batch", 0), ("running", 0), ("none", 0), ("support", 4)])
def test_chunks_give_the_features_and_the_gradient_of_the_whole(architecture, features, norm, num_context):
    config = ConvConfig(architecture, 5, features, norm)
    params, images, context = drawn(config, num_context)
    one = EncoderPass(params, images, context, config, Threads(2), CHUNK)
    leaves = as_leaves(params)
    normalise = unnormalised if norm == "none" else by_batch(leaves)
    whole = encode_presented(leaves, images, context, config, normalise)
    torch.testing.assert_close(one.features.detach(), whole.detach())
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.autograd.grad((whole.sin() * weights).sum(), list(leaves.values()))
    found = gradient((one.features.sin() * weights).sum(), as_leaves(params), [one])
    torch.testing.assert_close(found, flatten(dict(zip(leaves, expected, strict=True))), rtol=1e-9, atol=1e-9)


def test_moments_are_those_of_each_batch_as_a_whole():
    config = ConvConfig("pooled", 5, norm="running")
    params, images, context = drawn(config, 0)
    one = EncoderPass(params, images, context, config, Threads(1), CHUNK)
    weight, bias = params["conv0.weight"], params["conv0.bias"]
    maps = torch.nn.functional.conv2d(images.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, padding=1)
    variance, mean = torch.var_mean(maps.unflatten(0, (2, 8)), dim=(1, 3, 4), correction=0)
    torch.testing.assert_close(one.moments[0].mean, mean)
    torch.testing.assert_close(one.moments[0].variance, variance)
    assert [each.num_values for each in one.moments] == [8 * side**2 for side in (20, 10, 5, 2)]


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_no_bit_depends_on_the_number_of_threads(norm):
    config = ConvConfig("pooled", 16, norm=norm)
    params, images, context = drawn(config, 0, torch.float32)
    found = []
    for num_threads in (1, 2, 5):
        threads = Threads(num_threads)
        one = EncoderPass(params, images, context, config, threads, CHUNK)
        found.append((one.features, gradient(one.features.square().sum(), as_leaves(params), [one])))
        threads.close()
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
