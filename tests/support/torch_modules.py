"""Networks as PyTorch modules, small enough to be compared with torch in a test."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

__all__ = ["MODULES"]


class LeNet5(nn.Module):
    """LeCun et al., 1998, with tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Any) -> Any:
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = torch.tanh(self.fc2(torch.tanh(self.fc1(x))))
        return self.fc3(x)


class AlexNet(nn.Module):
    """Krizhevsky et al., 2012: eight layers, response normalisation, dropout; an eighth as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 11, stride=4, padding=2), nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 24, 5, padding=2, groups=2), nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
            nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(48, 32, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(32 * 4, 64), nn.ReLU(inplace=True),
            nn.Dropout(0.5), nn.Linear(64, 64), nn.ReLU(inplace=True), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class VGG(nn.Module):
    """Simonyan and Zisserman, 2015, configuration A, a sixteenth as wide."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"):
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(32, 48), nn.ReLU(), nn.Dropout(), nn.Linear(48, 10)
        )

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x).flatten(1))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al., 2016)."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outward)
        self.conv2 = nn.Conv2d(outward, outward, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outward)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inward != outward:
            self.downsample = nn.Sequential(
                nn.Conv2d(inward, outward, 1, stride, bias=False), nn.BatchNorm2d(outward)
            )

    def forward(self, x: Any) -> Any:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += identity
        return self.relu(y)


class ResNet18(nn.Module):
    """He et al., 2016, an eighth as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths, inward = (8, 16, 32, 64), 8
        for number, width in enumerate(widths, 1):
            stride = 1 if number == 1 else 2
            blocks = [BasicBlock(inward, width, stride), BasicBlock(width, width, 1)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            inward = width
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Inception(nn.Module):
    """Four branches beside each other (Szegedy et al., 2015)."""

    def __init__(self, inward: int, a: int, b: tuple[int, int], c: tuple[int, int], d: int) -> None:
        super().__init__()
        self.branch1 = self._conv(inward, a, 1)
        self.branch2 = nn.Sequential(self._conv(inward, b[0], 1), self._conv(b[0], b[1], 3))
        self.branch3 = nn.Sequential(self._conv(inward, c[0], 1), self._conv(c[0], c[1], 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True),
                                     self._conv(inward, d, 1))  # fmt: skip

    @staticmethod
    def _conv(inward: int, outward: int, kernel: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inward, outward, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outward, eps=0.001), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([b(x) for b in branches], 1)


class GoogLeNet(nn.Module):
    """Szegedy et al., 2015: stem, three inception modules, pooling in ceil mode; narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        )  # fmt: skip
        self.inception3a = Inception(16, 8, (8, 12), (2, 4), 4)
        self.inception3b = Inception(28, 12, (8, 16), (4, 8), 4)
        self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(40, 16, (8, 16), (2, 4), 4)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(40, 10)

    def forward(self, x: Any) -> Any:
        x = self.inception3b(self.inception3a(self.stem(x)))
        x = self.inception4a(self.maxpool(x))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc(self.dropout(x))


class UNet(nn.Module):
    """Ronneberger et al., 2015: down, up by transposed convolutions, skips; two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self._double(1, 4), self._double(4, 8)
        self.middle = self._double(8, 16)
        self.up2, self.up1 = nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2)
        self.merge2, self.merge1 = self._double(16, 8), self._double(8, 4)
        self.head = nn.Conv2d(4, 3, 1)

    @staticmethod
    def _double(inward: int, outward: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inward, outward, 3, padding=1), nn.GroupNorm(2, outward), nn.SiLU(),
            nn.Conv2d(outward, outward, 3, padding=1), nn.SiLU(),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        y = self.middle(F.max_pool2d(b, 2))
        y = self.merge2(torch.cat([self.up2(y), b], 1))
        y = self.merge1(torch.cat([self.up1(y), a], 1))
        return self.head(y)


class LSTMTagger(nn.Module):
    """Embedding, a two-layer LSTM over a fixed length, a class for the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, tokens: Any) -> Any:
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(states[:, -1])


class GPTBlock(nn.Module):
    """Radford et al., 2019: tokens and places, one block with causal attention, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.heads = 16, 4
        self.wte, self.wpe = nn.Embedding(23, 16), nn.Embedding(12, 16)
        self.ln_1, self.ln_2, self.ln_f = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.attn, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(approximate="tanh"), nn.Linear(64, 16))
        self.head = nn.Linear(16, 23, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Any) -> Any:
        n, t = tokens.shape
        x = self.wte(tokens) + self.wpe(torch.arange(t, device=tokens.device))
        q, k, v = self.attn(self.ln_1(x)).split(self.width, 2)
        q, k, v = (z.view(n, t, self.heads, -1).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, self.width))
        x = x + self.mlp(self.ln_2(x))
        return self.head(self.ln_f(x)).transpose(1, 2)


#: name -> module, its input's shape, and how many tokens there are (0: the input is an image)
MODULES: dict[str, tuple[type[nn.Module], tuple[int, ...], int]] = {
    "lenet5": (LeNet5, (3, 1, 28, 28), 0),
    "alexnet": (AlexNet, (2, 3, 96, 96), 0),
    "vgg": (VGG, (2, 3, 32, 32), 0),
    "resnet18": (ResNet18, (2, 3, 64, 64), 0),
    "googlenet": (GoogLeNet, (2, 3, 48, 48), 0),
    "unet": (UNet, (2, 1, 16, 16), 0),
    "lstm": (LSTMTagger, (3, 7), 20),
    "gpt": (GPTBlock, (2, 9), 23),
}
