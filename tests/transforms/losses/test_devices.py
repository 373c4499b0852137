"""How a worker uses its device: precision, batch, memory, and the networks of each of several devices."""

import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import tensorflow as tf
from tensorflow.python.client import device_lib

from transforms.losses import devices
from transforms.losses.devices import CPU, Device, DeviceError, find_devices, next_device
from transforms.scoring.batch import PIXELS_PER_PAIR, Batching, batching_for

GB = 10**9


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx2 avx512f", "float32"),
        ("fpu avx512f amx_bf16 amx_tile", "bfloat16"),
        ("fpu avx512_bf16", "bfloat16"),
        ("fpu not_amx_bf16", "float32"),
    ],
)
@pytest.mark.parametrize("gradients", [False, True])
def test_auto_goes_by_the_cpu(monkeypatch, flags, precision, gradients):
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: f"model name : some\nflags : {flags}\n")
    assert Device("CPU:0").precision("auto", gradients) == precision


@pytest.mark.parametrize(
    ("capability", "gradients", "precision"),
    [
        ((6, 1), False, "float32"),
        ((7, 0), False, "float16"),
        ((7, 5), False, "float16"),
        ((7, 5), True, "float32"),
        ((8, 0), False, "float16"),
        ((8, 9), True, "bfloat16"),
        ((9, 0), True, "bfloat16"),
    ],
)
def test_auto_goes_by_the_gpu(capability, gradients, precision):
    assert Device("GPU:0", 16 * GB, capability).precision("auto", gradients) == precision


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (CPU, "float32"),
        (Device("GPU:0", 16 * GB, (7, 5)), "float32"),
        (Device("GPU:0", 16 * GB, (8, 0)), "tensorfloat32"),
    ],
)
def test_tensorfloat32_is_float32_without_the_hardware(device, precision):
    assert device.precision("tensorfloat32", gradients=True) == precision


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("device", [Device("CPU:0"), Device("GPU:0", 16 * GB, (6, 1))], ids=lambda device: device.name)
def test_what_is_asked_for_is_what_is_used(device, precision):
    assert device.precision(precision, gradients=True) == precision


@pytest.mark.parametrize(
    ("gigabytes", "large", "small"),
    [
        (0, 16, 16),
        (0.1, 1, 16),
        (2, 2, 32),
        (15, 16, 256),
        (15.5, 16, 256),
        (22, 32, 256),
        (40, 64, 256),
        (141, 64, 256),
    ],
)
def test_batches_follow_the_memory(gigabytes, large, small):
    batching = batching_for(int(gigabytes * GB))
    assert batching.pixels == large * PIXELS_PER_PAIR
    assert min(batching.pairs, batching.pixels // (64 * 64)) == small
    assert batching.pending_bytes == Batching.pending_bytes


@pytest.fixture
def cards(monkeypatch, tmp_path):
    """Makes TensorFlow tell of GPUs: a function of their names and capabilities, and of the driver's version."""

    def make(cards, driver="535.129.03"):
        names = [f"GPU:{n}" for n in range(len(cards))]
        details = [{"device_name": name, "compute_capability": capability} for name, capability in cards]
        config = tf.config
        monkeypatch.setattr(config, "list_physical_devices", lambda kind: range(len(cards)))
        monkeypatch.setattr(config, "list_logical_devices", lambda kind: [Named(f"/device:{name}") for name in names])
        monkeypatch.setattr(config.experimental, "set_memory_growth", lambda gpu, on: None)
        monkeypatch.setattr(config.experimental, "enable_op_determinism", lambda: None)
        monkeypatch.setattr(config.experimental, "get_device_details", lambda gpu: details[gpu])
        local = [Named(f"/device:{name}", (n + 1) * GB) for n, name in enumerate(names)]
        monkeypatch.setattr(device_lib, "list_local_devices", lambda options: local)
        version = tmp_path / "version"
        version.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Thu\nGCC version: gcc 12.2.0\n")
        monkeypatch.setattr(devices, "_DRIVER", version)
        return find_devices.__wrapped__()

    return make


class Named(NamedTuple):
    name: str
    memory_limit: int = 0


def test_every_gpu_is_described_by_itself(cards):
    assert cards([("NVIDIA L4", (8, 9)), ("Tesla T4", (7, 5))]) == (
        Device("GPU:0", GB, (8, 9), "NVIDIA L4"),
        Device("GPU:1", 2 * GB, (7, 5), "Tesla T4"),
    )


@pytest.mark.parametrize(
    ("card", "driver", "words"),
    [
        (("NVIDIA B200", (10, 0)), "570.86.10", ["cannot compute on NVIDIA B200", "(10, 0)", "H100, A100, L4 or T4"]),
        (("NVIDIA H100", (9, 0)), "535.129.03", ["NVIDIA H100 needs", "driver 555 or newer", "535"]),
    ],
)
def test_cards_that_tensorflow_cannot_use_are_named(cards, card, driver, words):
    """It would abort, or compile for half an hour and fail then."""
    with pytest.raises(DeviceError) as raised:
        cards([card], driver)
    assert all(word in str(raised.value) for word in words)


def test_h100_works_with_a_new_driver(cards):
    assert cards([("NVIDIA H100", (9, 0))], "555.42.02")[0].kind == "NVIDIA H100"


@pytest.mark.parametrize("by", ["the pipeline", "the environment"])
@pytest.mark.parametrize(
    ("build", "driver", "words"),
    [
        ({"is_cuda_build": False}, None, r"has no CUDA; install tensorflow\[and-cuda\]"),
        ({"is_cuda_build": True}, None, "no NVIDIA driver is loaded; on Dataflow give install-nvidia-driver:5xx"),
        (
            {"is_cuda_build": True, "cuda_version": "12.5.1", "cudnn_version": "9"},
            "470.1.2",
            "driver is 470, TensorFlow [0-9.]+ is built for CUDA 12.5.1 and cuDNN 9",
        ),
    ],
)
def test_a_gpu_that_is_asked_for_and_missing_is_an_error(monkeypatch, tmp_path, by, build, driver, words):
    """The work would go on at a CPU's speed, for a GPU's price."""
    version = tmp_path / "version"
    if driver:
        version.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Thu\n")
    monkeypatch.setattr(devices, "_DRIVER", version)
    monkeypatch.setattr(devices, "find_devices", lambda: (CPU,))
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: build)
    if by == "the environment":
        monkeypatch.setenv(devices.REQUIRE_GPU, "1")
    with pytest.raises(DeviceError, match=words):
        next_device(needs_gpu=by == "the pipeline")


def test_one_thread_at_a_time_computes_on_a_gpu():
    """The memory of the batch follows that of the card; it holds one."""
    gpu, cpu = Device("GPU:0", GB), Device("CPU:0")
    with gpu.turn(), cpu.turn(), cpu.turn():
        assert not devices._lock(gpu.name).acquire(blocking=False)
        with Device("GPU:1", GB).turn():
            pass


@pytest.mark.parametrize(
    ("library", "system", "imported"),
    [("", "linux", False), ("libcuda.so.1", "linux", True), ("libamdhip64.so", "linux", True), ("", "darwin", True)],
)
def test_tensorflow_is_asked_only_where_a_gpu_may_be(monkeypatch, library, system, imported):
    """It takes seconds to import."""
    asked = []
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: name == library or fail(name))
    monkeypatch.setattr(devices, "import_tensorflow", lambda: asked.append(True) or fail("is asked"))
    with suppress(OSError):
        assert find_devices.__wrapped__() == (CPU,)
    assert bool(asked) == imported


def fail(words):
    raise OSError(words)


def test_this_process_has_a_device():
    assert find_devices()
    for device in find_devices():
        assert device.on_gpu == (device.memory_bytes > 0)


@pytest.mark.heavy
def test_every_device_holds_the_networks_once(lpips_weights):
    """Two logical devices of TensorFlow stand for two GPUs; they can only be made before anything else is."""
    program = textwrap.dedent(
        f"""
        import numpy as np
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

        from transforms.scoring.model_cache import load_once
        from transforms.losses.objective import parse_objective
        from transforms.losses.plan import Plan
        from transforms.losses.networks.weights_file import WeightsFile
        from transforms.scoring.optimize import load_optimizer
        from transforms.scoring.score import load_evaluator

        weights = WeightsFile({lpips_weights.path!r}, {lpips_weights.sha256!r})
        plan = Plan(("lpips_vgg", "sobel_l1"), parse_objective("lpips_vgg"), weights={{"vgg16_lpips": weights}})
        images = np.random.default_rng(0).integers(0, 256, (2, 2, 32, 40, 3), np.uint8)

        threads = [load_once(load_evaluator, plan) for _ in range(4)]
        assert [held.device.name for held in threads] == ["CPU:0", "CPU:1"] * 2
        assert threads[0] is threads[2] and threads[1] is threads[3] and threads[0] is not threads[1]
        for held in threads[:2]:
            tensors = held._networks._features["vgg16_lpips"].__self__._tensors.values()
            assert all(tensor.device.endswith(held.device.name) for tensor in tensors), held.device
        first, second = (held(*images) for held in threads[:2])
        assert all(np.array_equal(first[name], second[name]) for name in first) and len(first) == 3

        optimizers = [load_once(load_optimizer, plan).objective for _ in range(2)]
        assert [objective.device.name for objective in optimizers] == ["CPU:0", "CPU:1"]
        print("both")
        """
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stdout == "both\n", run.stderr
