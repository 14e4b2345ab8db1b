"""A computation on a GPU that is recorded once as a CUDA graph and then repeated: thousands of operations, one launch.

A step of the recipe `perceived` is some thousand small operations. Python takes longer to launch them than the GPU to
compute them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError, reason

EAGER_CALLS = 3  # before the recording, in which libraries choose their algorithms and allocate what they keep


class RecordedGradients:
    """A function that computes gradients and returns a loss, recorded at its fourth call and repeated from then on.

    Which operations the function runs must not depend on the values of its inputs, and their shapes must not change. A
    repetition writes the gradients to where the recording has put them.
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], Tensor], parameters: Sequence[nn.Parameter]) -> None:
        self.function, self.parameters = function, parameters
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor | None] = []
        self.loss = torch.zeros(())

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The loss of these inputs, whose gradients the parameters have then.

        Raises `ConfigError` where the function cannot be recorded.
        """
        self.calls += 1
        if self.calls <= EAGER_CALLS:
            return self._eagerly(inputs)
        if self.graph is None:
            self.graph = self._recorded(inputs)
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss

    def _eagerly(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computed as the recording will be: on another stream than the usual one."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loss = self.function(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return loss

    def _recorded(self, inputs: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        self.inputs = [x.clone() for x in inputs]
        for parameter in self.parameters:
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.loss = self.function(self.inputs)
        except RuntimeError as error:
            raise ConfigError(
                f"The steps of this training cannot be recorded ({reason(error)}); set loop.graphs to false."
            ) from None
        self.gradients = [parameter.grad for parameter in self.parameters]
        return graph
