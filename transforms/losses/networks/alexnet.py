"""The convolutional part of AlexNet, as torchvision has it.

Krizhevsky, One weird trick for parallelizing convolutional neural networks, https://arxiv.org/abs/1404.5997. A layer is
named after its output: `relu3` after the ReLU of the third convolution.
"""

from transforms.losses.networks.layers import Layer

# With tensors `conv<number>`.
LAYERS = {
    "relu1": Layer("conv1", stride=4, padding=2),
    "relu2": Layer("conv2", pooled=3),
    "relu3": Layer("conv3", pooled=3),
    "relu4": Layer("conv4"),
    "relu5": Layer("conv5"),
}
