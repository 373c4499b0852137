"""Weights files, and the caches they are taken from. Nothing here asks a network."""

import hashlib

import pytest

from transforms.losses.networks.lpips_weights import VGG16
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.networks.weights_file import WeightsError, WeightsFile, cache_directory, sha256_hex

LPIPS = NETWORKS["vgg16_lpips"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


class TestWeightsFile:
    def test_reads_what_has_the_hash(self, tmp_path):
        path = tmp_path / "weights"
        path.write_bytes(b"content")
        file = WeightsFile.at(str(path))
        assert file == WeightsFile(str(path), hashlib.sha256(b"content").hexdigest())
        assert file.read() == b"content"

    def test_reads_urls(self):
        import fsspec

        with fsspec.open("memory://bucket/weights", "wb") as file:
            file.write(b"content")
        assert WeightsFile.at("memory://bucket/weights").read() == b"content"

    def test_another_content_names_both_hashes(self, tmp_path):
        path = tmp_path / "weights"
        path.write_bytes(b"content")
        pinned = WeightsFile.at(str(path))
        path.write_bytes(b"another")
        with pytest.raises(WeightsError) as error:
            pinned.read()
        for part in (str(path), pinned.sha256, sha256_hex(b"another"), "not used"):
            assert part in str(error.value)

    @pytest.mark.parametrize("path", ["absent", "", ".", "nosuchscheme://bucket/weights"])
    def test_what_cannot_be_read(self, tmp_path, monkeypatch, path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(WeightsError, match="cannot read the weights at"):
            WeightsFile.at(path)
        with pytest.raises(WeightsError, match="cannot read the weights at"):
            WeightsFile(path, "0" * 64).read()


class TestOnAnotherMachine:
    """A worker where the launcher's cache is not."""

    @pytest.fixture
    def weights(self, lpips_weights, cache):
        """The weights as the launcher names them; the cache of this machine is another, and empty."""
        return WeightsFile("/home/launcher/.cache/pairloss/lpips.safetensors", LPIPS.sha256)

    def test_its_own_cache_serves(self, weights, lpips_weights):
        VGG16.cached().parent.mkdir(parents=True)
        VGG16.cached().symlink_to(lpips_weights.path)
        assert LPIPS.read(weights) == lpips_weights.read()
        with pytest.raises(WeightsError, match=f"cannot read the weights at {weights.path}"):
            weights.read()

    @pytest.mark.parametrize(
        ("content", "told"), [(None, "there is no such file"), (b"damaged", "has SHA-256")], ids=["absent", "damaged"]
    )
    def test_no_weights_anywhere(self, weights, content, told):
        if content:
            VGG16.cached().parent.mkdir(parents=True)
            VGG16.cached().write_bytes(content)
        with pytest.raises(WeightsError, match=told) as caught:
            LPIPS.read(weights)
        message = str(caught.value)
        for part in (weights.path, str(VGG16.cached()), "pairloss weights", "--weights=gs://"):
            assert message.count(part) == 1
        assert "\n" not in message

    def test_the_same_place_is_named_once(self, cache):
        with pytest.raises(WeightsError, match="pairloss weights") as caught:
            LPIPS.read(WeightsFile(str(VGG16.cached()), LPIPS.sha256))
        assert str(caught.value).count(str(VGG16.cached())) == 1

    def test_another_content_at_the_path_is_an_error(self, weights, lpips_weights, tmp_path):
        VGG16.cached().parent.mkdir(parents=True)
        VGG16.cached().symlink_to(lpips_weights.path)
        (tmp_path / "damaged").write_bytes(b"damaged")
        with pytest.raises(WeightsError, match="damaged has SHA-256"):
            LPIPS.read(WeightsFile(str(tmp_path / "damaged"), LPIPS.sha256))

    def test_other_weights_are_not_looked_for_there(self, cache):
        with pytest.raises(WeightsError, match="--keras_weights=gs://") as caught:
            NETWORKS["vgg16_keras"].read(WeightsFile("/home/launcher/keras.h5", "0" * 64))
        assert str(VGG16.cached()) not in str(caught.value)
        assert "pairloss weights" not in str(caught.value)


class TestNetworkWeights:
    """`Network.weights`: pinned and checked."""

    def test_a_path_is_checked_at_once(self, lpips_weights, tmp_path):
        assert LPIPS.weights(lpips_weights.path) == lpips_weights
        (tmp_path / "other").write_bytes(b"other")
        with pytest.raises(WeightsError, match="other has SHA-256"):
            LPIPS.weights(str(tmp_path / "other"))

    def test_a_file_without_a_pin_is_pinned_to_its_content(self, tmp_path):
        (tmp_path / "k.h5").write_bytes(b"weights")
        path = str(tmp_path / "k.h5")
        assert NETWORKS["vgg16_keras"].weights(path) == WeightsFile(path, sha256_hex(b"weights"))


def test_the_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "pairloss"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in (lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""), lambda: monkeypatch.delenv("XDG_CACHE_HOME")):
        unset()
        assert cache_directory() == tmp_path / "home" / ".cache" / "pairloss"
