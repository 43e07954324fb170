"""Muon for the matrices (Keller Jordan et al., "Muon: an optimizer for hidden layers", 2024); else Adam."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Push the singular values of each matrix (count, rows, columns), rows >= columns, towards 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16().mT.contiguous()
    x /= x.norm(dim=(1, 2), keepdim=True) + 1e-7
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT.float()


class Muon:
    """Momentum with orthogonal updates, on float32 copies of bfloat16 matrices."""

    def __init__(self, matrices: list[nn.Parameter], *, momentum: float, weight_decay: float) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay
        groups: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            groups[tuple(sorted(matrix.shape))].append(matrix)
        self.groups = list(groups.values())
        self.masters = [_stack(group) for group in self.groups]
        self.velocities = [torch.zeros_like(master) for master in self.masters]

    def step(self, learning_rate: float) -> None:
        """Move every matrix once and round it back to its parameter."""
        for group, master, velocity in zip(self.groups, self.masters, self.velocities, strict=True):
            gradient = torch.stack([_tall(matrix.grad) for matrix in group]).float()
            velocity.lerp_(gradient, 1 - self.momentum)
            direction = orthogonalise(gradient.lerp(velocity, self.momentum))
            # A wide matrix is scaled like its tall transpose, so that equal shapes form one stack.
            scale = learning_rate * (master.shape[1] / master.shape[2]) ** 0.5
            master.mul_(1 - learning_rate * self.weight_decay).sub_(direction, alpha=scale)
            for matrix, value in zip(group, master, strict=True):
                _tall(matrix.data).copy_(value)


def _tall(matrix: Tensor | None) -> Tensor:
    assert matrix is not None
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT


def _stack(group: list[nn.Parameter]) -> Tensor:
    return torch.stack([_tall(matrix.data) for matrix in group]).float()


class Adam:
    """Adam on float32 copies of bfloat16 parameters."""

    def __init__(self, parameters: list[nn.Parameter], *, betas: tuple[float, float]) -> None:
        self.parameters, self.betas, self.steps = parameters, betas, 0
        self.masters = [parameter.data.float() for parameter in parameters]
        self.means = [torch.zeros_like(master) for master in self.masters]
        self.squares = [torch.zeros_like(master) for master in self.masters]

    def step(self, learning_rate: float) -> None:
        """Move every parameter once and round it back."""
        self.steps += 1
        fast, slow = (1 - beta for beta in self.betas)
        for parameter, master, mean, square in zip(
            self.parameters, self.masters, self.means, self.squares, strict=True
        ):
            assert parameter.grad is not None
            gradient = parameter.grad.float()
            mean.lerp_(gradient, fast)
            square.lerp_(gradient.square(), slow)
            root = (square / (1 - self.betas[1] ** self.steps)).sqrt_().add_(1e-8)
            master.addcdiv_(mean, root, value=-learning_rate / (1 - self.betas[0] ** self.steps))
            parameter.data.copy_(master)
