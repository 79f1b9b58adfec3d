"""The network of the shipped model: handwritten digits, 8x8 pixels, five norms."""

from __future__ import annotations

from torch import Tensor, nn

from service.network.batch_norm import BatchNorm1d, BatchNorm2d


class Digits(nn.Module):
    """A small CNN: `[N, 1, 8, 8]` to `num_classes` logits."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.bn3 = BatchNorm2d(64)
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.bn4 = BatchNorm2d(64)
        self.fc1 = nn.Linear(64 * 2 * 2, 64, bias=False)
        self.bn5 = BatchNorm1d(64)
        self.fc2 = nn.Linear(64, num_classes)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # [N, 32, 8, 8]
        x = self.pool(self.relu(self.bn2(self.conv2(x))))  # [N, 32, 4, 4]
        x = self.relu(self.bn3(self.conv3(x)))  # [N, 64, 4, 4]
        x = self.pool(self.relu(self.bn4(self.conv4(x))))  # [N, 64, 2, 2]
        x = self.relu(self.bn5(self.fc1(x.flatten(1))))  # [N, 64]
        logits: Tensor = self.fc2(x)
        return logits
