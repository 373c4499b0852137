"""The convolutional part of VGG16.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
https://arxiv.org/abs/1409.1556. A layer is named after its output: `relu3_2` after the ReLU of the second
convolution of block 3, `pool3` after the max-pooling that ends block 3.
"""

from transforms.losses.networks.layers import Layer
from transforms.losses.networks.specs import VGG16_LAYERS

# With tensors `conv<block>_<number>`.
LAYERS = {
    name: Layer(pooled=2) if name.startswith("pool") else Layer(name.replace("relu", "conv")) for name in VGG16_LAYERS
}
