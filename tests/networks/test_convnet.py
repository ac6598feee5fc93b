import pytest
import torch

from maml_rl.networks.convnet import (
    EPSILON,
    BatchMoments,
    ConvConfig,
    by_batch,
    by_statistics,
    encode,
    init_encoder,
    init_statistics,
    laid_out,
    moved_statistics,
    unnormalised,
)

NORMS = {"batch": by_batch, "none": lambda params: unnormalised}


def random_params(config, seed=0, channels=1):
    """Initial ones, but with scales and biases that are not 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    params = init_encoder(generator, config, channels)
    return {name: p.double() + 0.1 * torch.randn(p.shape, generator=generator).double() for name, p in params.items()}


def random_images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MAX_POOL = torch.nn.MaxPool2d(2)


def reference(config, params, channels):
    """The same encoder of torch's own modules, in training mode."""
    layers, width = [], channels
    for layer in range(4):
        stride = 2 if config.architecture == "strided" else 1
        filters = 2 * config.num_filters if config.architecture == "paired" and layer > 1 else config.num_filters
        convolution = torch.nn.Conv2d(width, filters, 3, stride, padding=1).double()
        convolution.load_state_dict({k: params[f"conv{layer}.{k}"] for k in ("weight", "bias")})
        layers.append(convolution)
        if config.norm != "none":
            norm = torch.nn.BatchNorm2d(filters, eps=EPSILON)
            norm.weight.data, norm.bias.data = params[f"norm{layer}.scale"], params[f"norm{layer}.bias"]
            layers.append(norm)
        layers.append(torch.nn.ReLU())
        if config.architecture == "pooled" or (config.architecture == "paired" and layer in (1, 3)):
            layers.append(torch.nn.MaxPool2d(2))
        width = filters
    return torch.nn.Sequential(*layers).double()


@pytest.mark.parametrize("architecture", ["strided", "pooled", "paired"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("features", ["mean", "flatten"])
def test_the_encoder_is_that_of_torch_s_modules(architecture, norm, features):
    config = ConvConfig(architecture, 6, features, norm)
    params, images = random_params(config, channels=3), random_images(5, 28, 28, 3)
    found = encode(params, images, config, NORMS[norm](params))
    maps = reference(config, params, 3)(images.permute(0, 3, 1, 2))
    expected = maps.mean(dim=(2, 3)) if features == "mean" else maps.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(found, expected)
    assert found.shape == (5, config.num_features(28))


def test_relu_after_pooling_gives_every_bit_that_it_gives_before():
    # Both grow, so they may change places; where a window has no positive number, no slope passes in either order.
    maps = torch.randn(3, 5, 9, 9, generator=torch.Generator().manual_seed(0)).mul(4).round().div(4)  # with ties
    slope = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    found = []
    for layers in ((torch.relu, MAX_POOL), (MAX_POOL, torch.relu)):
        leaf = maps.clone().requires_grad_()
        pooled = layers[1](layers[0](leaf))
        found.append((pooled, *torch.autograd.grad(pooled, leaf, slope)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("architecture", ["strided", "pooled", "paired"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_stacked_parameters_give_what_a_loop_and_vmap_give(architecture, norm):
    config = ConvConfig(architecture, 6, "flatten", norm)
    many = [random_params(config, seed) for seed in range(3)]
    stacked = {name: torch.stack([p[name] for p in many]) for name in many[0]}
    images = random_images(3, 4, 20, 20, 1)

    def one(params, images):
        return encode(params, images, config, NORMS[norm](params))

    found = one(stacked, images)
    torch.testing.assert_close(found, torch.stack([one(p, x) for p, x in zip(many, images, strict=True)]))
    torch.testing.assert_close(found, torch.vmap(one)(stacked, images))


def test_every_group_is_normalised_by_itself():
    config = ConvConfig("strided", 6)
    params = random_params(config)
    groups = random_images(3, 4, 16, 16, 1)
    each = torch.stack([encode(params, group, config, by_batch(params)) for group in groups])
    torch.testing.assert_close(encode(params, groups, config, by_batch(params)), each)
    stacked = {name: torch.stack([p, p]) for name, p in params.items()}
    both = encode(stacked, torch.stack([groups, groups.flip(0)]), config, by_batch(stacked))
    torch.testing.assert_close(both, torch.stack([each, each.flip(0)]))


def test_running_statistics_are_those_of_torch_s_modules():
    statistics = {k: v.double() for k, v in init_statistics(ConvConfig(num_filters=6)).items()}
    module, maps = torch.nn.BatchNorm2d(6).double(), random_images(3, 5, 6, 4, 4)
    for batch in maps:
        module(batch)
    variances, means = torch.var_mean(maps, dim=(1, 3, 4), correction=0)
    before = {name: value.clone() for name, value in statistics.items()}
    moved = moved_statistics(statistics, [BatchMoments(means, variances, 5 * 4 * 4)] * 4)
    for layer in range(4):
        torch.testing.assert_close(moved[f"norm{layer}.mean"], module.running_mean)
        torch.testing.assert_close(moved[f"norm{layer}.variance"], module.running_var)
    assert all(torch.equal(before[name], statistics[name]) for name in before)  # what came in is left as it was


def test_by_statistics_is_torch_s_modules_at_test():
    config = ConvConfig("pooled", 6, norm="running")
    params, images = random_params(config), random_images(2, 3, 16, 16, 1, seed=9)
    model = reference(config, params, 1)
    model(random_images(5, 1, 16, 16))
    norms = [module for module in model if isinstance(module, torch.nn.BatchNorm2d)]
    statistics = {f"norm{i}.mean": norm.running_mean for i, norm in enumerate(norms)}
    statistics |= {f"norm{i}.variance": norm.running_var for i, norm in enumerate(norms)}
    model.eval()
    found = encode(params, images, config, by_statistics(params, statistics))
    expected = model(images.flatten(0, 1).permute(0, 3, 1, 2)).mean(dim=(2, 3)).view(2, 3, -1)
    torch.testing.assert_close(found, expected)


def test_parameters_without_normalisation_have_none_of_it():
    names = init_encoder(torch.Generator(), ConvConfig(norm="none"), 1).keys()
    assert names == {f"conv{layer}.{part}" for layer in range(4) for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_filters": 0}, "num_filters must be at least 1, got 0"),
        ({"head_std": -1.0}, "head_std must be at least 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ConvConfig(**settings)


def test_too_small_pictures_are_refused():
    assert ConvConfig("strided").num_features(5) == 64
    with pytest.raises(ValueError, match="image_size must be at least 16 for max-pooling, got 15"):
        ConvConfig("pooled").num_features(15)


@pytest.mark.parametrize("stacked", [(), (3,), (2, 3)])
def test_weights_are_laid_out_with_channels_last_and_otherwise_as_they_were(stacked):
    params = {name: p.expand(*stacked, *p.shape) for name, p in random_params(ConvConfig(num_filters=4)).items()}
    found = laid_out(params)
    for name, p in params.items():
        assert torch.equal(found[name], p)
        if name.endswith("weight"):
            assert found[name].movedim(-3, -1).is_contiguous()
        else:
            assert found[name] is p
