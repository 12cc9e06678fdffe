"""Two published recipes for a small diffusion model in PyTorch, from their published settings.

Nothing is copied: the networks are written anew. The sources:

- "The Annotated Diffusion Model", blog of Hugging Face by Niels Rogge and Kashif Rasul
  (huggingface/blog, annotated-diffusion.md, in its later form, with ResNet blocks);
- smalldiffusion by Chenyang Yuan (examples/fashion_mnist_unet.py and the modules it uses).

They run as published, without ``torch.compile``. Adapted in both: images of 8×8 pixels with one
channel; no mirroring, since a mirrored digit is none; what is drawn is clipped to [-1, 1]. What
else was adapted is said at each. Learning rate and batch can be chosen, and so can PyTorch's order
of axes in memory. Images inside are ``(batch, channels, height, width)``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import count, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

SIDE = 8


class TorchRecipe:
    """A network that guesses the noise, and how a recipe trains it and draws with it.

    Attributes:
        network: module from ``(x_t, t)`` to the noise, t being the number of a level.
        averaged: the module with the averaged weights, None where the recipe has none.
    """

    def __init__(self, network: nn.Module, levels: int, rate: float, batch_size: int) -> None:
        """Take the network, the number of noise levels, and what Adam needs."""
        self.network, self.levels, self.rate, self.batch_size = network, levels, rate, batch_size
        self.optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        self.averaged: nn.Module | None = None

    def put_channels_last(self) -> TorchRecipe:
        """Keep channels side by side in memory, as NumPy has them; returns the recipe."""
        for network in (self.network, self.averaged):
            if network is not None:
                network.to(memory_format=torch.channels_last)
                # An image with one channel is in both orders; this is where it gets more of them.
                network.first.register_forward_hook(_channels_last)
        return self

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(weight.numel() for weight in self.network.parameters())

    def noised(self, images: Any, t: Any, noise: Any) -> Any:
        """Hide images under noise of level ``t``."""
        raise NotImplementedError

    def loss(self, noise: Any, guess: Any) -> Any:
        """Mark the guesses."""
        return functional.mse_loss(guess, noise)

    def loss_of(self, images: Any) -> Any:
        """The loss of a batch, at levels and with noise drawn anew."""
        t, noise = torch.randint(0, self.levels, (len(images),)), torch.randn_like(images)
        return self.loss(noise, self.network(self.noised(images, t, noise), t))

    def train(self, images: np.ndarray, share_of_rate: Callable[[int], float | None]) -> None:
        """Train with the share of the rate that is said after so many steps, until it is None."""
        data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        numbers, share = count(1), share_of_rate(0)
        while share is not None:
            for batch in torch.randperm(len(data)).split(self.batch_size):
                self.network.train()
                self.optimizer.param_groups[0]["lr"] = share * self.rate
                self.optimizer.zero_grad()
                self.loss_of(data[batch]).backward()
                self.optimizer.step()
                step = next(numbers)
                self.average(step)
                share = share_of_rate(step)
                if share is None:
                    break

    def average(self, step: int) -> None:
        """Update the averaged weights, where the recipe has them."""

    def draw(self, n: int, seed: int) -> np.ndarray:
        """Draw images, float32 ``(n, 8, 8, 1)`` in [-1, 1]; training goes on as without it."""
        network = self.network if self.averaged is None else self.averaged
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            images = self.walk_back(network.eval(), n)
        return images.clamp(-1, 1).permute(0, 2, 3, 1).numpy()

    def walk_back(self, network: nn.Module, n: int) -> Any:
        """Draw with a network, ``(n, 1, 8, 8)``."""
        raise NotImplementedError


def _channels_last(module: nn.Module, taken: Any, given: Any) -> Any:
    return given.contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------------------------------------
# The Annotated Diffusion Model
# ---------------------------------------------------------------------------------------------


class AnnotatedDiffusion(TorchRecipe):
    """Widths ``dim``, 2 ``dim``, 4 ``dim``, linear attention at each level, T = 300.

    Batches of 128, Adam with 1e-3, β linear from 1e-4 to 0.02, Huber loss, nothing clipped on the
    way back, variance β̃, no average of the weights.

    Adapted: ``dim`` is the side of the image, 28 there and 8 here. The standardized convolutions
    divide by the standard deviation, as is meant; the text multiplies.
    """

    def __init__(self, rate: float = 1e-3, batch_size: int = 128) -> None:
        """Build network and schedule."""
        super().__init__(AnnotatedNetwork(SIDE), 300, rate, batch_size)
        schedule = NoiseSchedule(make_betas("linear", 300, scaled=False))
        self.betas = schedule.betas
        self.signal = torch.tensor(schedule.sqrt_alphas_cumprod, dtype=torch.float32)
        self.noise_share = torch.tensor(schedule.sqrt_one_minus_alphas_cumprod, dtype=torch.float32)
        self.deviation = np.sqrt(schedule.posterior_variance)

    def noised(self, images: Any, t: Any, noise: Any) -> Any:
        """Eq. 4 of the DDPM paper."""
        return _per_image(self.signal[t]) * images + _per_image(self.noise_share[t]) * noise

    def loss(self, noise: Any, guess: Any) -> Any:
        """Huber's loss."""
        return functional.smooth_l1_loss(guess, noise)

    def walk_back(self, network: nn.Module, n: int) -> Any:
        """Algorithm 2, the mean as in Eq. 11."""
        x = torch.randn(n, 1, SIDE, SIDE)
        for step in reversed(range(self.levels)):
            guess = network(x, torch.full((n,), step))
            beta, share = float(self.betas[step]), float(self.noise_share[step])
            x = (x - beta / share * guess) / math.sqrt(1 - beta)
            if step:
                x = x + float(self.deviation[step]) * torch.randn_like(x)
        return x


def _per_image(values: Any) -> Any:
    return values[:, None, None, None]


class Waves(nn.Module):
    """Sines and cosines of the step's number, their frequencies from 1 down to 1/10,000."""

    def __init__(self, width: int) -> None:
        """Compute the frequencies."""
        super().__init__()
        exponents = torch.arange(width // 2) / (width // 2 - 1)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * exponents))

    def forward(self, t: Any) -> Any:
        """``(batch,)`` to ``(batch, width)``."""
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class StandardizedConv(nn.Conv2d):
    """A convolution whose weights have mean 0 and variance 1 for each channel of the result.

    Source: Qiao et al. 2019, "Weight Standardization" (arXiv 1903.10520).
    """

    def forward(self, x: Any) -> Any:
        """Convolve with the standardized weights."""
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * (variance + 1e-5).rsqrt()
        return functional.conv2d(x, weight, self.bias, padding=self.padding)


class ScaledBlock(nn.Module):
    """Two convolutions, each before its normalization; the time scales and shifts the first."""

    def __init__(self, old: int, new: int, time: int, groups: int = 4) -> None:
        """Make the layers."""
        super().__init__()
        self.time = nn.Linear(time, 2 * new)
        self.convs = nn.ModuleList([_standardized(old, new), _standardized(new, new)])
        self.norms = nn.ModuleList([nn.GroupNorm(groups, new), nn.GroupNorm(groups, new)])
        self.shortcut = nn.Identity() if old == new else nn.Conv2d(old, new, 1)

    def forward(self, x: Any, time: Any) -> Any:
        """Image and embedded time to an image."""
        scale, shift = self.time(functional.silu(time))[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(self.norms[0](self.convs[0](x)) * (scale + 1) + shift)
        return functional.silu(self.norms[1](self.convs[1](h))) + self.shortcut(x)


def _standardized(old: int, new: int) -> nn.Module:
    return StandardizedConv(old, new, 3, padding=1)


class HeadedAttention(nn.Module):
    """Attention of four heads of 32, full or linear, added to its input.

    Linear (Shen et al. 2018, arXiv 1812.01243): the queries meet a summary of all pixels.
    """

    def __init__(self, width: int, linear: bool) -> None:
        """Make the layers."""
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(1, width)
        self.queries_keys_values = nn.Conv2d(width, 3 * 128, 1, bias=False)
        out = nn.Conv2d(128, width, 1)
        self.out = nn.Sequential(out, nn.GroupNorm(1, width)) if linear else out

    def forward(self, x: Any) -> Any:
        """An image to an image."""
        batch, _, height, width = x.shape
        heads = self.queries_keys_values(self.norm(x)).view(batch, 3, 4, 32, height * width)
        queries, keys, values = heads.unbind(1)  # each (batch, heads, 32, pixels)
        if self.linear:
            summary = torch.einsum("bhdn,bhen->bhde", keys.softmax(dim=-1), values)
            queries = queries.softmax(dim=-2) / math.sqrt(32)
            h = torch.einsum("bhde,bhdn->bhen", summary, queries)
        else:
            scores = torch.einsum("bhdi,bhdj->bhij", queries / math.sqrt(32), keys)
            h = torch.einsum("bhij,bhdj->bhdi", scores.softmax(dim=-1), values)
        return x + self.out(h.reshape(batch, 128, height, width))


class AnnotatedNetwork(nn.Module):
    """The U-Net of the tutorial; on 8×8 pixels its levels have the sides 8, 4, 2."""

    def __init__(self, dim: int, multipliers: tuple[int, ...] = (1, 2, 4)) -> None:
        """Make the layers."""
        super().__init__()
        time = 4 * dim
        widths = [dim, *(dim * multiplier for multiplier in multipliers)]
        levels = list(pairwise(widths))
        self.time = nn.Sequential(
            Waves(dim), nn.Linear(dim, time), nn.GELU(), nn.Linear(time, time)
        )
        self.first = nn.Conv2d(1, dim, 1)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, (old, new) in enumerate(levels):
            lowest = level == len(levels) - 1
            folded = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * old, new, 1))
            smaller = nn.Conv2d(old, new, 3, padding=1) if lowest else folded
            self.downs.append(_level(old, old, time, smaller))
            larger = [nn.Upsample(scale_factor=2)] if level else []
            larger.append(nn.Conv2d(new, old, 3, padding=1))
            self.ups.insert(0, _level(old + new, new, time, nn.Sequential(*larger)))
        self.middle = nn.ModuleList([ScaledBlock(widths[-1], widths[-1], time) for _ in range(2)])
        self.attention = HeadedAttention(widths[-1], linear=False)
        self.last = ScaledBlock(2 * dim, dim, time)
        self.out = nn.Conv2d(dim, 1, 1)

    def forward(self, x: Any, t: Any) -> Any:
        """Noisy images and steps to noise."""
        time, x = self.time(t), self.first(x)
        first, skips = x, []
        for block1, block2, attention, smaller in self.downs:
            x = block1(x, time)
            skips.append(x)
            x = attention(block2(x, time))
            skips.append(x)
            x = smaller(x)
        x = self.middle[1](self.attention(self.middle[0](x, time)), time)
        for block1, block2, attention, larger in self.ups:
            x = block1(torch.cat([x, skips.pop()], dim=1), time)
            x = block2(torch.cat([x, skips.pop()], dim=1), time)
            x = larger(attention(x))
        return self.out(self.last(torch.cat([x, first], dim=1), time))


def _level(old: int, new: int, time: int, resize: nn.Module) -> nn.ModuleList:
    """Two blocks, linear attention, and the way to the next level."""
    blocks = [ScaledBlock(old, new, time), ScaledBlock(old, new, time)]
    return nn.ModuleList([*blocks, HeadedAttention(new, linear=True), resize])


# ---------------------------------------------------------------------------------------------
# smalldiffusion
# ---------------------------------------------------------------------------------------------


class SmallDiffusion(TorchRecipe):
    """Widths 64, 64, 128, attention at the second level, 800 levels of noise from 0.01 to 20.

    Noise is added without shrinking the image, its strength σ evenly spaced on a logarithmic
    scale; the network sees x / √(1 + σ²). Adam with 7e-4, mean squared error, dropout 0.1, an
    average of the weights whose momentum rises to 0.999; drawn in 20 steps with ``gam`` 1.6.

    Adapted: nothing else. Its batch of 1024 is two thirds of the digits.
    """

    def __init__(self, rate: float = 7e-4, batch_size: int = 1024) -> None:
        """Build network and noise levels."""
        self.sigmas = torch.logspace(math.log10(0.01), math.log10(20), 800)
        super().__init__(SmallNetwork(self.sigmas), 800, rate, batch_size)
        self.averaged = copy.deepcopy(self.network)

    def noised(self, images: Any, t: Any, noise: Any) -> Any:
        """x = x_0 + σ ε."""
        return images + _per_image(self.sigmas[t]) * noise

    def average(self, step: int) -> None:
        """Move the averages: momentum (1 + n) / (10 + n), at most 0.999."""
        share = 1 - min(0.999, (1 + step) / (10 + step))
        assert self.averaged is not None
        with torch.no_grad():
            pairs = zip(self.averaged.parameters(), self.network.parameters(), strict=True)
            for average, weight in pairs:
                average.lerp_(weight, share)

    def walk_back(self, network: nn.Module, n: int, steps: int = 20, gam: float = 1.6) -> Any:
        """Permenter & Yuan 2023 (arXiv 2306.04848): each step leans on the guess before it."""
        path = (self.levels * (1 - np.arange(steps) / steps)).round().astype(int) - 1
        x = self.sigmas[-1] * torch.randn(n, 1, SIDE, SIDE)
        before = None
        for level, next_level in pairwise([*path, 0]):
            guess = network(x, torch.full((n,), int(level)))
            leaning = guess if before is None else gam * guess + (1 - gam) * before
            x, before = x - (self.sigmas[level] - self.sigmas[next_level]) * leaning, guess
        return x


class SmallBlock(nn.Module):
    """Two convolutions, each after its normalization; the noise level is added in between."""

    def __init__(self, old: int, new: int, embedding: int) -> None:
        """Make the layers."""
        super().__init__()
        self.norms = nn.ModuleList([_norm32(old), _norm32(new)])
        self.convs = nn.ModuleList([nn.Conv2d(w, new, 3, padding=1) for w in (old, new)])
        self.level = nn.Linear(embedding, new)
        self.dropout = nn.Dropout(0.1)
        self.shortcut = nn.Identity() if old == new else nn.Conv2d(old, new, 1)

    def forward(self, x: Any, embedding: Any) -> Any:
        """Image and embedded noise level to an image."""
        h = self.convs[0](functional.silu(self.norms[0](x)))
        h = h + self.level(functional.silu(embedding))[:, :, None, None]
        h = self.convs[1](self.dropout(functional.silu(self.norms[1](h))))
        return h + self.shortcut(x)


def _norm32(width: int) -> nn.Module:
    return nn.GroupNorm(32, width, eps=1e-6)


class SmallAttention(nn.Module):
    """Attention of one head with two layers on the way out, added to its input."""

    def __init__(self, width: int) -> None:
        """Make the layers."""
        super().__init__()
        self.norm = _norm32(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))

    def forward(self, x: Any) -> Any:
        """An image to an image."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (batch, pixels, channels)
        queries, keys, values = self.queries_keys_values(pixels).chunk(3, dim=-1)
        h = functional.scaled_dot_product_attention(queries, keys, values)
        return x + self.out(h).transpose(1, 2).reshape(x.shape)


class SmallNetwork(nn.Module):
    """The U-Net of the example; on 8×8 pixels its levels have the sides 8, 4, 2."""

    def __init__(
        self, sigmas: Any, width: int = 64, multipliers: tuple[int, ...] = (1, 1, 2)
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.sigmas = sigmas
        embedding = 4 * width
        self.embed = nn.Sequential(
            nn.Linear(2, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        widths = [width * multiplier for multiplier in multipliers]
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        skips, x = [width], width
        for level, new in enumerate(widths):
            for _ in range(2):
                self.downs.append(_small_stage(x, new, embedding, attention=level == 1))
                x = new
                skips.append(x)
            if level < len(widths) - 1:
                self.downs.append(nn.Conv2d(x, x, 3, stride=2, padding=0))
                skips.append(x)
        self.middle = nn.ModuleList([SmallBlock(x, x, embedding) for _ in range(2)])
        self.attention = SmallAttention(x)
        for level, new in reversed(list(enumerate(widths))):
            for _ in range(3):
                old = x + skips.pop()
                self.ups.append(_small_stage(old, new, embedding, attention=level == 1))
                x = new
            if level:
                larger = [nn.Upsample(scale_factor=2), nn.Conv2d(x, x, 3, padding=1)]
                self.ups.append(nn.Sequential(*larger))
        self.last = nn.Sequential(_norm32(x), nn.SiLU(), nn.Conv2d(x, 1, 3, padding=1))

    def forward(self, x: Any, t: Any) -> Any:
        """Noisy images and noise levels to noise."""
        sigma = self.sigmas[t]
        waves = 0.5 * sigma.log()[:, None]
        embedding = self.embed(torch.cat([waves.sin(), waves.cos()], dim=1))
        skips = [self.first(x * _per_image((1 + sigma**2).rsqrt()))]
        for stage in self.downs:
            if isinstance(stage, nn.Conv2d):
                skips.append(stage(functional.pad(skips[-1], (0, 1, 0, 1))))
            else:
                skips.append(_through(stage, skips[-1], embedding))
        x = self.attention(self.middle[0](skips[-1], embedding))
        x = self.middle[1](x, embedding)
        for stage in self.ups:
            if isinstance(stage, nn.Sequential):
                x = stage(x)
            else:
                x = _through(stage, torch.cat([x, skips.pop()], dim=1), embedding)
        return self.last(x)


def _small_stage(old: int, new: int, embedding: int, attention: bool) -> nn.ModuleList:
    layers: list[nn.Module] = [SmallBlock(old, new, embedding)]
    return nn.ModuleList([*layers, SmallAttention(new)] if attention else layers)


def _through(stage: nn.ModuleList, x: Any, embedding: Any) -> Any:
    x = stage[0](x, embedding)
    return stage[1](x) if len(stage) > 1 else x
