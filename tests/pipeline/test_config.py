"""The command line: the settings made of it, and the messages for a wrong one."""

import dataclasses
import os
import subprocess
import sys

import pytest

from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.parse import parse
from pipeline.presets import PRESETS
from transforms.descent.settings import DEFAULT_OBJECTIVE, Descent
from transforms.images.decode import DecodePolicy
from transforms.losses.catalog import LOSSES
from transforms.losses.networks.specs import LPIPS_LAYERS, VGG16_LAYERS
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan
from transforms.schema import Fields
from transforms.scoring.batch import Batching

# The losses that are not the part of another.
WHOLE = [name for name, loss in LOSSES.items() if not loss.part_of]
NEEDED = ["--input=in.parquet", "--output=out"]


def joined(value: object) -> str | None:
    """Name of a test row: its arguments."""
    return " ".join(value) if isinstance(value, list) else None


def config(*arguments: str) -> Config:
    return parse([*NEEDED, *arguments])


def test_defaults():
    assert config() == Config(
        input=("in.parquet",),
        input_format="auto",
        fields=Fields(),
        policy=DecodePolicy(),
        plan=Plan(("lpips_vgg", "ssim", "psnr", "gmsd", "sobel_l1", "fd_l1")),
        weights={},
        descent=None,
        optimized_format="parquet",
        batch_size=None,
        chunk_pairs=256,
        accelerator="",
        min_ram="",
        output="out",
        overwrite=False,
        metrics_format="parquet",
        slice_by="",
        gate="",
        baseline="",
        quiet=False,
        verbose=False,
        beam_flags=(),
    )


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--input_format=tfrecord"], "input_format", "tfrecord"),
        (["--price_per_hour=0.35"], "price_per_hour", 0.35),
        (
            ["--id_field=key", "--generated_field=a.b", "--target_field=c", "--keep_fields=x, y"],
            "fields",
            Fields(("a.b",), "c", "key", ("x", "y")),
        ),
        (
            ["--size_mismatch=crop", "--max_image_pixels=9", "--max_image_bytes=7"],
            "policy",
            DecodePolicy(9, 7, "crop"),
        ),
        (
            ["--background=#00ff00", "--color=convert"],
            "policy",
            DecodePolicy(background="#00ff00", color="convert"),
        ),
        (["--weights=gs://b/w"], "weights", {"vgg16_lpips": "gs://b/w"}),
        (["--losses=style_keras", "--keras_weights=w.h5"], "weights", {"vgg16_keras": "w.h5"}),
        (["--chunk_pairs=1"], "chunk_pairs", 1),
        (["--batch_size", "3"], "batching", Batching(3, 3 * 256 * 256)),
        (["--batch_size=64"], "batching", Batching(64, 64 * 256 * 256)),
        (["--output=gs://bucket/run/"], "output", "gs://bucket/run"),
        (["--output=/"], "output", "/"),
        (["--output=~/run/"], "output", os.path.expanduser("~/run")),
        (["--runner=FlinkRunner", "--nonsense"], "beam_flags", ("--runner=FlinkRunner", "--nonsense")),
        (["--runner", "FlinkRunner"], "beam_flags", ("--runner", "FlinkRunner")),
        (
            ["--experiments=a", "-x", "--quiet", "--experiments", "b"],
            "beam_flags",
            ("--experiments=a", "-x", "--experiments", "b"),
        ),
    ],
    ids=joined,
)
def test_one_setting(arguments, field, value):
    assert getattr(config(*arguments), field) == value


@pytest.mark.parametrize(
    ("arguments", "patterns"),
    [
        (["--input=a,b"], ("a", "b")),
        (["--input= a , b,,"], ("a", "b")),
        (["--input=a", "--input=b,c"], ("a", "b", "c")),
        (["--input", "a", "b", "c,d"], ("a", "b", "c", "d")),
        (["--input", "a", "--quiet", "--input", "b"], ("a", "b")),
        (["--input=gs://b/x-*.parquet"], ("gs://b/x-*.parquet",)),
        (["--input={a,{b,c}}/x,d"], ("{a,{b,c}}/x", "d")),
        (["--input={a,b,c"], ("{a", "b", "c")),
        (["--input=~/a,~/b"], (os.path.expanduser("~/a"), os.path.expanduser("~/b"))),
    ],
    ids=joined,
)
def test_inputs(arguments, patterns):
    assert parse([*arguments, "--output=out"]).input == patterns


@pytest.mark.parametrize("name", [" a ", "a, b", "{a, b}"])
def test_a_path_that_exists_is_taken_as_it_is(tmp_path, name):
    (tmp_path / name).mkdir()
    path = f"{tmp_path}/{name}"
    found = parse([f"--generated={path}", f"--target={path}", "--output=out"])
    assert (found.generated, found.target) == ((path,), (path,))


@pytest.mark.parametrize("flag", ["overwrite", "quiet", "verbose", "pixel_gradient"])
@pytest.mark.parametrize(
    ("form", "value"),
    [
        ([], False),
        (["--{}"], True),
        (["--{}=true"], True),
        (["--{}=True"], True),
        (["--{}=1"], True),
        (["--{}", "true"], True),
        (["--{}=false"], False),
        (["--{}", "FALSE"], False),
        (["--{}=0"], False),
        (["--{}=false", "--{}"], True),
    ],
    ids=joined,
)
def test_switches(flag, form, value):
    found = config("--losses=mae", "--objective=mae", *(part.format(flag) for part in form))
    assert (found.plan.pixel_gradient if flag == "pixel_gradient" else getattr(found, flag)) is value


@pytest.mark.parametrize("flag", ["--split=vertical", "--range=-1..1"])
def test_halves_and_arrays_may_be_optimized(flag):
    assert config(flag, "--optimize").descent


def test_addresses_are_part_of_the_identity():
    assert [config(*flags).identity()["fields"]["allow_http"] for flags in ([], ["--allow_http"])] == [False, True]


class TestPlan:
    """Which losses a command line asks for."""

    @pytest.mark.parametrize(
        ("preset", "losses", "objective", "layers"),
        [
            ("default", ("lpips_vgg", "ssim", "psnr", "gmsd", "sobel_l1", "fd_l1"), None, LPIPS_LAYERS),
            # The three samples of the document this project grew from: an L1 loss of Sobel edges; a perceptual loss
            # plus 0.1 times squared finite differences; an ImageNet VGG16 without its top, that is down to its last
            # pooling, plus 0.05 times squared Sobel edges.
            ("sr", ("psnr_y", "ssim_y", "lpips_alex"), None, LPIPS_LAYERS),
            ("novel_view", ("psnr", "ssim", "lpips_vgg", "lpips_alex"), None, LPIPS_LAYERS),
            ("edges", ("sobel_l1",), "sobel_l1", LPIPS_LAYERS),
            ("features", ("vgg_mse", "fd_l2"), "vgg_mse + 0.1*fd_l2", LPIPS_LAYERS),
            ("vgg_edges", ("vgg_mse", "sobel_l2"), "vgg_mse + 0.05*sobel_l2", ("pool5",)),
        ],
    )
    def test_presets(self, preset, losses, objective, layers):
        expected = Plan(losses, parse_objective(objective) if objective else None, vgg_layers=layers)
        assert config(f"--preset={preset}").plan == expected

    @pytest.mark.parametrize(
        "losses", ["lpips_alex,mae", "lpips_alex,lpips_alex_relu3,mae", "lpips_alex_relu3,lpips_alex,mae"]
    )
    def test_layers_of_lpips(self, losses):
        found = config(f"--losses={losses}", "--layers").plan.losses
        assert sorted(found) == sorted(["mae", "lpips_alex", *(f"lpips_alex_relu{number}" for number in range(1, 6))])
        assert found[-1] == "mae"

    @pytest.mark.parametrize("preset", PRESETS)
    def test_every_preset_with_an_objective_can_be_differentiated(self, preset):
        if PRESETS[preset].objective:
            assert config(f"--preset={preset}", "--pixel_gradient").plan.pixel_gradient

    @pytest.mark.parametrize("preset", PRESETS)
    def test_the_losses_on_pixels_of_every_preset_have_kernels(self, preset):
        """On a CPU they start without TensorFlow then."""
        on_pixels = (LOSSES[name] for name in PRESETS[preset].losses if not LOSSES[name].network)
        assert all(loss.kernel for loss in on_pixels)

    @pytest.mark.parametrize(
        ("arguments", "columns"),
        [
            (["--losses=mae"], ("mae",)),
            (["--losses= ssim , mae"], ("ssim", "mae")),
            (["--losses=mae", "--objective=mae + 2*mse"], ("mae", "objective")),
            (["--preset=edges", "--losses=mae"], ("mae", "objective")),
            (["--preset=edges", "--objective=mse"], ("sobel_l1", "objective")),
            (["--preset=edges", "--pixel_gradient"], ("sobel_l1", "objective", "pixel_grad_l2", "pixel_grad_linf")),
            (["--losses=mae,vgg_mse_keras,style_keras"], ("mae", "vgg_mse_keras", "style_keras")),
            (["--losses="], ("lpips_vgg", "ssim", "psnr", "gmsd", "sobel_l1", "fd_l1")),
        ],
        ids=joined,
    )
    def test_columns(self, arguments, columns):
        assert [column.name for column in config(*arguments).plan.columns] == list(columns)

    @pytest.mark.parametrize(
        ("arguments", "losses"),
        [
            (["--losses=mae"], ()),
            (["--preset=edges", "--losses=mae"], ("sobel_l1",)),
            (["--preset=features", "--objective=mae"], ("mae",)),
            (["--objective=2*mae"], ("mae",)),
        ],
        ids=joined,
    )
    def test_objective(self, arguments, losses):
        assert config(*arguments).plan.objective_losses == losses

    def test_the_rest(self):
        plan = config("--losses=style", "--precision=auto", "--vgg_layers=relu1_1,pool2").plan
        assert (plan.precision, plan.vgg_layers) == ("auto", ("relu1_1", "pool2"))


WRONG = [
    ([], ["--output", "required", "--help"]),
    (["--input=a"], ["--output", "required"]),
    (["--input=", "--output=o"], ["--input", "''", "pairs-*.parquet"]),
    (["--input=,", "--output=o"], ["--input", "','"]),
    (["--input", "--output=o"], ["--input", "expected at least one"]),
    (["--input=a", "--output="], ["--output", "''", "gs://"]),
    (["--input=a", "--out=o"], ["--output", "required"]),
    ([*NEEDED, "--input_format=xlsx"], ["--input_format", "xlsx", "auto", "parquet", "tfrecord", "csv"]),
    ([*NEEDED, "--size_mismatch=pad"], ["--size_mismatch", "pad", "fail", "resize", "crop"]),
    ([*NEEDED, "--background=blue"], ["--background", "'blue'", "#rrggbb"]),
    ([*NEEDED, "--color=srgb"], ["--color", "'srgb'", "convert"]),
    ([*NEEDED, "--max_image_pixels=0"], ["--max_image_pixels", "'0'", "at least 1"]),
    ([*NEEDED, "--max_image_bytes=1e6"], ["--max_image_bytes", "'1e6'", "whole number"]),
    ([*NEEDED, "--batch_size=-1"], ["--batch_size", "'-1'", "at least 1"]),
    ([*NEEDED, "--batch_size=²"], ["--batch_size", "'²'"]),
    ([*NEEDED, "--chunk_pairs=many"], ["--chunk_pairs", "'many'"]),
    ([*NEEDED, "--chunk_pairs="], ["--chunk_pairs", "''"]),
    ([*NEEDED, "--preset=best"], ["--preset", "best", *PRESETS]),
    ([*NEEDED, "--precision=fp16"], ["--precision", "fp16", "float32", "bfloat16", "float16", "auto"]),
    ([*NEEDED, "--precision=float16", "--optimize"], ["--precision=float16", "gradients", "bfloat16"]),
    ([*NEEDED, "--precision=float16", "--objective=mae", "--pixel_gradient"], ["--precision=float16", "gradients"]),
    ([*NEEDED, "--vgg=keras"], ["--vgg is gone", "vgg_mse_keras", "style_keras"]),
    ([*NEEDED, "--vgg", "lpips"], ["--vgg is gone"]),
    ([*NEEDED, "--vgg_layers=relu9_9,pool5"], ["--vgg_layers", "relu9_9", *VGG16_LAYERS]),
    ([*NEEDED, "--crop_border=-1"], ["--crop_border", "0 or more", "-1"]),
    ([*NEEDED, "--vgg_layers=pool5,pool5"], ["--vgg_layers", "pool5", "twice"]),
    ([*NEEDED, "--losses=mae,lpips"], ["--losses", "'lpips'", "lpips_vgg", *WHOLE]),
    ([*NEEDED, "--mask=m/*.png"], ["--mask", "--generated", "--mask_field"]),
    (["--generated=a/*", "--target=b/*", "--output=out", "--mask_field=m"], ["--mask_field", "--input"]),
    (["--generated=a/{i}", "--target=b/{i}", "--output=out", "--mask=m/{j}"], ["--mask has {j}", "--generated"]),
    ([*NEEDED, "--mask_field=m", "--optimize"], ["--optimize", "mask"]),
    ([*NEEDED, "--mask_field=m", "--objective=mae + dists"], ["--objective", "dists", "mask"]),
    ([*NEEDED, "--mask_field=m", "--keep_fields=mask"], ["--keep_fields", "mask", "clash"]),
    ([*NEEDED, "--mask_field=m", "--keep_fields=mask_coverage"], ["--keep_fields", "mask_coverage", "clash"]),
    ([*NEEDED, "--losses=mae", "--layers"], ["--layers", "lpips_vgg, lpips_alex"]),
    ([*NEEDED, "--losses=MAE"], ["--losses", "'MAE'", "Did you mean 'mae'"]),
    ([*NEEDED, "--losses=mae,mse,mae"], ["--losses", "mae is given twice"]),
    ([*NEEDED, "--losses=,"], ["--losses", "names no loss", "--list_losses"]),
    ([*NEEDED, "--losses=mae", "ssim"], ["'ssim'", "unexpected argument"]),
    *[
        (["--output=o", *arguments], told)
        for arguments, told in [
            ([], ["--input=PATTERN", "--generated=PATTERN", "--target=PATTERN"]),
            (["--generated=a/*"], ["both --generated=PATTERN and --target=PATTERN"]),
            (["--target=a/*"], ["both --generated=PATTERN and --target=PATTERN"]),
            (["--input=a", "--generated=a/*", "--target=b/*"], ["either --input=PATTERN"]),
            (["--generated=a/{id}.png", "--target=b/*"], ["{id} in both"]),
            (["--generated=a/*", "--target=b/{id}.png"], ["--target has {id}", "'a/*'", "lacks"]),
            (["--generated=a/{id}{m}.png", "--target=b/{id}.png"], ["--generated", "ambiguous", "{m}"]),
            (["--generated=a/*", "--target=b/{"], ["--target", "belongs to no field"]),
            (["--generated=a/*", "--target=b/*", "--id_field=key"], ["--id_field", "--input", "drop"]),
            (["--generated=a/*", "--target=b/*", "--keep_fields=m"], ["--keep_fields=m", "no field"]),
            (["--generated=a/{id}_{mae}.png", "--target=b/{id}.png", "--losses=mae"], ["mae", "clash"]),
        ]
    ],
    ([*NEEDED, "--objective=mae +"], ["--objective", "'mae +'", "weighted sum"]),
    ([*NEEDED, "--objective= "], ["--objective", "weighted sum"]),
    ([*NEEDED, "--objective=mae*mse"], ["--objective", "'mae*mse'", "product"]),
    ([*NEEDED, "--objective=nope"], ["--objective", "'nope'", *WHOLE]),
    ([*NEEDED, "--objective=0*mae"], ["--objective", "'0*mae'", "no loss"]),
    ([*NEEDED, "--pixel_gradient"], ["--pixel_gradient", "--objective"]),
    (
        [*NEEDED, "--max_steps=5", "--optimized_format=png"],
        ["--max_steps, --optimized_format", "--optimize"],
    ),
    ([*NEEDED, "--optimize", "--target_ratio=1.5"], ["--optimize", "target_ratio is 1.5", "at most 1"]),
    ([*NEEDED, "--slice_by=camera", "--keep_fields=model"], ["--slice_by=camera", "--keep_fields"]),
    ([*NEEDED, "--baseline=good"], ["--baseline", "--gate"]),
    ([*NEEDED, "--metrics_format=xlsx"], ["--metrics_format", "xlsx", "csv", "jsonl"]),
    ([*NEEDED, "--optimize", "--max_steps=0"], ["--optimize", "max_steps is 0", "1 or more"]),
    ([*NEEDED, "--optimize", "--max_change=2"], ["--optimize", "max_change is 2", "to 1"]),
    ([*NEEDED, "--optimize", "--learning_rate=fast"], ["--learning_rate", "'fast'"]),
    ([*NEEDED, "--optimize", "--method=newton"], ["--method", "'newton'", "lbfgs"]),
    ([*NEEDED, "--optimize", "--optimized_format=jpeg"], ["--optimized_format", "'jpeg'", "png"]),
    ([*NEEDED, "--optimize", "--objective=mae + gmsd"], ["--objective", "gmsd", "take", "ssim"]),
    ([*NEEDED, "--optimize", "--objective=psnr"], ["--objective", "psnr", "take", "mse"]),
    ([*NEEDED, "--keep_fields=steps", "--optimize"], ["--keep_fields", "steps", "clash"]),
    ([*NEEDED, "--objective=psnr", "--pixel_gradient"], ["--objective", "psnr", "take", "mse"]),
    *(
        ([*NEEDED, f"--price_per_hour={value}"], ["--price_per_hour", f"'{value}'", "above 0"])
        for value in ("0", "-1", "nan", "inf", "cheap", "")
    ),
    *(
        ([*NEEDED, f"--max_record_seconds={value}"], ["--max_record_seconds", value, "finite", "above 0"])
        for value in ("0", "-1", "nan", "inf")
    ),
    ([*NEEDED, "--generated_field="], ["--generated_field= names no field", "drop"]),
    *(
        ([*NEEDED, "--quiet", f"{dash}losses=mae"], [f"'{dash}losses=mae'", "the dash of a text", "write --"])
        for dash in ("\u2014", "\u2013", "\u2212")
    ),
    ([*NEEDED, "--overwrite=maybe"], ["--overwrite", "'maybe'", "true", "false"]),
    ([*NEEDED, "--keep_fields=label,ssim"], ["--keep_fields", "ssim", "rename"]),
    ([*NEEDED, "--keep_fields=generated"], ["--keep_fields", "generated"]),
    ([*NEEDED, "--losses=mae", "--objective=mae", "--keep_fields=objective"], ["--keep_fields", "objective"]),
    ([*NEEDED, "--keras_weights=w.h5"], ["--keras_weights", "vgg_mse_keras"]),
    (["stray", *NEEDED], ["'stray'", "unexpected argument"]),
    ([*NEEDED, "--quiet", "stray"], ["--quiet", "'stray'", "true"]),
    ([*NEEDED, "--runner=DirectRunner", "stray"], ["'stray'"]),
    ([*NEEDED, "--runner", "DirectRunner", "stray"], ["'stray'"]),
    ([*NEEDED, "--", "stray"], ["'stray'"]),
    ([*NEEDED, "--list_losses=yes"], ["--list_losses", "yes"]),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[joined(arguments) for arguments, _ in WRONG])
def test_wrong(arguments, told):
    with pytest.raises(UsageError) as caught:
        parse(arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in told if part not in message] == []


@pytest.mark.parametrize("abbreviated", ["--loss=mae", "--over", "--batch=3"])
def test_abbreviations_are_not_ours(abbreviated):
    """They go on to Beam, which refuses what it does not know."""
    assert config(abbreviated) == dataclasses.replace(config(), beam_flags=(abbreviated,))


class TestHelp:
    def test_every_flag_with_its_default(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            parse(["--help"])
        assert not stopped.value.code
        text = " ".join(capsys.readouterr().out.split())
        flags = {
            "input_format": "auto",
            "generated_field": "generated",
            "target_field": "target",
            "size_mismatch": "fail",
            "max_image_pixels": "268435456",
            "max_image_bytes": "268435456",
            "precision": "float32",
            "batch_size": "16; on a GPU what its memory holds",
            "chunk_pairs": "256",
        }
        for flag, default in flags.items():
            section = text[text.rindex(f" --{flag} ") :]
            assert f"(default: {default})" in section[: section.find(" --", 3)]
        for flag in ("id_field", "keep_fields", "preset", "losses", "objective", "pixel_gradient", "vgg_layers"):
            assert f" --{flag}" in text
        for flag in ("input", "output", "overwrite", "weights", "keras_weights", "quiet", "verbose", "list_losses"):
            assert f" --{flag}" in text
        for name, preset in PRESETS.items():
            assert f"{name} ({preset.objective or ', '.join(preset.losses)})" in text
        assert "%(" not in text

    def test_list_losses(self, capsys):
        with pytest.raises(SystemExit) as stopped:
            parse(["--list_losses"])
        assert not stopped.value.code
        text = capsys.readouterr().out
        for name, loss in LOSSES.items():
            for part in [name] if loss.part_of else [f"{name}\n", loss.formula, loss.range, loss.source]:
                assert part in text


def test_wrong_arguments_cost_no_heavy_import():
    code = "import pipeline.parse, sys; print([m for m in ('tensorflow', 'apache_beam', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestOptimize:
    def test_default_objective_and_settings(self):
        chosen = config("--optimize")
        assert chosen.descent == Descent()
        assert chosen.plan.objective == parse_objective(DEFAULT_OBJECTIVE)
        assert chosen.plan.losses == PRESETS["default"].losses

    def test_given_ones_are_kept(self):
        chosen = config("--optimize", "--method=adam", "--target_ratio=0.1", "--trace_every=5", "--preset=edges")
        assert chosen.descent == Descent(method="adam", target_ratio=0.1, trace_every=5)
        assert str(chosen.plan.objective) == "sobel_l1"

    def test_columns_are_those_that_hold_numbers(self):
        plain = ("mae", "objective")
        outcome = ("objective_initial", "objective_final", "objective_of_saved", "steps")
        columns = config("--losses=mae", "--objective=mae", "--optimize", "--trace_every=1").columns
        assert [column.name for column in columns] == [*plain, *outcome, "mae_optimized"]
        assert config("--losses=mae", "--objective=mae").columns == columns[:2]
