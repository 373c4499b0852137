"""Train with the loss you audit with: a small network learns to remove noise, and the audit's losses say how well.

python examples/train_with_loss.py
"""

import keras
import numpy as np

from pairloss import PairLoss, score

OBJECTIVE = "lpips_vgg + 10*fd_l1 + 10*mae"


def pictures(count: int, side: int = 32) -> np.ndarray:
    """Smooth random pictures, float32 [count, side, side, 3] in [0, 1]."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    down, across, phase = random.uniform(0, 6, (3, count, 1, 1, 3))
    waves = np.sin(down * y[..., np.newaxis] + across * x[..., np.newaxis] + phase)
    return (0.5 + 0.4 * waves).astype(np.float32)


def denoiser() -> keras.Model:
    """A network that predicts the noise with three convolutions and subtracts it from its input."""
    noisy = keras.Input((None, None, 3))
    hidden = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(noisy)
    hidden = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(hidden)
    noise = keras.layers.Conv2D(3, 3, padding="same", kernel_initializer="zeros")(hidden)
    return keras.Model(noisy, keras.layers.subtract([noisy, noise]))


def main() -> None:
    keras.utils.set_random_seed(1)
    targets = pictures(32)
    noisy = targets + np.random.default_rng(2).normal(0, 0.08, targets.shape).astype(np.float32)
    model = denoiser()
    # XLA compiles again for every size of image, which pays off on a GPU but rarely on a CPU.
    model.compile(keras.optimizers.Adam(0.01), loss=PairLoss(OBJECTIVE), jit_compile=False)

    history = model.fit(noisy, targets, batch_size=8, epochs=6, verbose=0).history["loss"]
    print(f"loss {history[0]:.3f} in the first epoch, {history[-1]:.3f} in the last")

    for name, images in (("noisy", noisy), ("denoised", model.predict(noisy, verbose=0))):
        # PairLoss clips nothing, so that predictions outside [0, 1] keep their gradient; score wants real pictures.
        columns = score(np.clip(images, 0, 1), targets, losses=["lpips_vgg", "psnr"])
        print(f"{name:9}" + ", ".join(f"mean {column} {values.mean():.3f}" for column, values in columns.items()))


if __name__ == "__main__":
    main()
