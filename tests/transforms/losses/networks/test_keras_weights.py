"""Keras' VGG16: its file fetched and loaded. Nothing here asks a network."""

import hashlib
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
from support.keras_file import write_keras_file
from support.pictures import noise, smooth

from transforms.losses.networks import keras_weights, vgg16
from transforms.losses.networks.backends.tensorflow import TensorFlowNetwork
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.networks.weights_file import WeightsError


@pytest.fixture(scope="module")
def tensors(lpips_weights):
    """The convolutions of VGG16."""
    tensors = safetensors.numpy.load(lpips_weights.read())
    return {name: tensor for name, tensor in tensors.items() if name.startswith("conv")}


@pytest.fixture(scope="module")
def keras_file(tensors, tmp_path_factory):
    return write_keras_file(tmp_path_factory.mktemp("keras") / "vgg16_notop.h5", tensors)


@pytest.mark.heavy
class TestKerasFile:
    def test_tensors_come_back_with_rgb_kernels(self, keras_file, tensors):
        loaded, others = keras_weights.load(keras_file.read_bytes())
        assert others == {}
        assert loaded.keys() == tensors.keys()
        for name, tensor in loaded.items():
            np.testing.assert_array_equal(tensor, tensors[name])

    def test_the_first_kernel_is_bgr_in_the_file(self, keras_file, tensors):
        with h5py.File(keras_file) as file:
            kernel = file["block1_conv1/block1_conv1_W_1:0"][()]
        np.testing.assert_array_equal(kernel[:, :, 0], tensors["conv1_1.kernel"][:, :, 2])

    def test_features_equal_those_of_keras_itself(self, keras_file):
        images = np.stack([smooth(33, 48), noise(1, 33, 48)]).astype(np.float32) / np.float32(255)
        original = keras.applications.VGG16(include_top=False, weights=str(keras_file))
        outputs = [original.get_layer(name).output for name in ("block1_conv2", "block5_conv3")]
        model = keras.Model(original.input, outputs)
        preprocessing = NETWORKS["vgg16_keras"].preprocessing
        expected = model(keras.applications.vgg16.preprocess_input(255 * images))
        ours = TensorFlowNetwork(vgg16.LAYERS, keras_weights.load(keras_file.read_bytes())[0], preprocessing).features(
            images, ["relu1_2", "relu5_3"]
        )
        for theirs, layer in zip(expected, ("relu1_2", "relu5_3"), strict=True):
            theirs = np.asarray(theirs)
            # Kernel and input in another order of channels: sums in another order, in float32.
            np.testing.assert_allclose(ours[layer], theirs, rtol=0, atol=1e-5 * theirs.max())

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: b"<html>404</html>",
            lambda content: content[:64],
            lambda content: content[: len(content) // 2],
            lambda content: content[:-1],
            lambda content: content[:200] + bytes(4000) + content[4200:],
        ],
        ids=["empty", "text", "signature only", "half", "last byte missing", "zeros near the start"],
    )
    def test_a_damaged_file(self, keras_file, damage):
        with pytest.raises(WeightsError, match="not Keras' VGG16"):
            keras_weights.load(damage(keras_file.read_bytes()))

    @pytest.mark.parametrize(
        "change",
        [
            lambda layer: layer.parent.__delitem__(layer.name),
            lambda layer: layer.attrs.__delitem__("weight_names"),
            lambda layer: layer.attrs.__setitem__("weight_names", [b"block1_conv1_W_1:0"]),
            lambda layer: layer.attrs.__setitem__("weight_names", 7),
            lambda layer: layer.attrs.__setitem__("weight_names", [b"kernel", b"bias"]),
            lambda layer: layer.__delitem__("block1_conv1_b_1:0"),
            lambda layer: replace(layer, "block1_conv1_W_1:0", b"text"),
            lambda layer: replace(layer, "block1_conv1_W_1:0", np.zeros(4)),
            lambda layer: replace(layer, "block1_conv1_W_1:0", None),
            lambda layer: layer.__delitem__("block1_conv1_W_1:0")
            or layer.create_dataset("block1_conv1_W_1:0", (10**6, 10**6), "f4", chunks=True),
        ],
        ids=[
            "no layer", "no names", "one name", "names no list", "names of nothing",
            "no bias", "text for a kernel", "a vector for a kernel", "a group for a kernel",
            "terabytes of nothing",
        ],
    )  # fmt: skip
    def test_another_layout(self, keras_file, tmp_path, change):
        path = tmp_path / "changed.h5"
        path.write_bytes(keras_file.read_bytes())
        with h5py.File(path, "r+") as file:
            change(file["block1_conv1"])
        with pytest.raises(WeightsError, match="not Keras' VGG16"):
            keras_weights.load(path.read_bytes())

    def test_another_network(self, tensors, tmp_path):
        narrow = tensors | {"conv3_1.kernel": tensors["conv3_1.kernel"][..., :-1]}
        content = write_keras_file(tmp_path / "narrow.h5", narrow).read_bytes()
        with pytest.raises(WeightsError, match=r"conv3_1\.kernel should have shape"):
            keras_weights.load(content)


def replace(layer, name, value):
    del layer[name]
    if value is None:
        layer.create_group(name)
    else:
        layer[name] = value


class TestFetch:
    CONTENT = b"the published file"

    @pytest.fixture
    def source(self, tmp_path, monkeypatch):
        """The file that is downloaded, at an address of its own."""
        source = tmp_path / "server" / keras_weights.URL.rpartition("/")[2]
        source.parent.mkdir()
        source.write_bytes(self.CONTENT)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
        monkeypatch.setattr(keras_weights, "URL", source.as_uri())
        monkeypatch.setattr(keras_weights, "MD5", hashlib.md5(self.CONTENT).hexdigest())
        return source

    def test_it_is_downloaded_once(self, source):
        path = Path(keras_weights.fetch())
        assert path == keras_weights.cached()
        assert path.read_bytes() == self.CONTENT
        assert list(path.parent.iterdir()) == [path]
        source.unlink()
        assert keras_weights.fetch() == str(path)

    def test_a_damaged_file_is_downloaded_again(self, source):
        path = Path(keras_weights.fetch())
        path.write_bytes(self.CONTENT[:-1])
        keras_weights.fetch()
        assert path.read_bytes() == self.CONTENT

    def test_another_file_is_not_kept(self, source):
        source.write_bytes(b"<html>404</html>")
        with pytest.raises(WeightsError, match=rf"its MD5 is not {keras_weights.MD5}.*--keras_weights=PATH"):
            keras_weights.fetch()
        assert not keras_weights.cached().exists()

    def test_a_file_that_cannot_be_downloaded(self, source):
        source.unlink()
        with pytest.raises(WeightsError, match=r"cannot fetch file:.*No such file.*--keras_weights=PATH"):
            keras_weights.fetch()

    def test_a_cache_that_cannot_be_written(self, source, tmp_path):
        (tmp_path / "keras").write_bytes(b"a file")
        with pytest.raises(WeightsError, match=r"cannot keep .*/models/.*KERAS_HOME names another cache"):
            keras_weights.fetch()

    @pytest.mark.heavy
    def test_keras_finds_it(self, source):
        path = keras_weights.fetch()
        source.unlink()
        ask = (
            "import sys; from keras.utils import get_file; address, md5 = sys.argv[1:];"
            "print(get_file(address.split('/')[-1], address, cache_subdir='models', file_hash=md5))"
        )
        command = [sys.executable, "-c", ask, keras_weights.URL, keras_weights.MD5]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{path}\n"
