"""Losses as fused CPU kernels: each reads its input once and keeps everything else in registers and cache.

As TensorFlow ops, LPIPS' distance head takes as long as a third of the network in bfloat16, and SSIM passes over the
images dozens of times. The TensorFlow functions beside this package define every loss, and serve gradients and GPUs; a
loss's row in the catalog names its kernel, if it has one, and tests hold the two equal. numba compiles kernels at their
first use; they release the interpreter lock.

The `kernel` of a loss on pixels is `(generated, target) -> float`, for one pair [H, W, 3]: uint8 or uint16 of full
range, or float32 in [0, 1]; as an `on_maps.OnMaps` it shares its first step with others. That of a loss on features is
`(features, weights, executor, targets) -> {layer: float64 [B]}`, which add up to the loss, and its `gradient_kernel` is
`(generated, target, weights, factor, executor) -> (values, gradients)`: see `fused.lpips`.
"""
