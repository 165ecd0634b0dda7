"""A spec's plain forms: old checkpoints, digests and half-done jobs outlive new fields, and nothing is guessed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any, Literal

import begun_before
import numpy as np
import pytest
from grown_package import FIELD, grown_package, run_with
from jobs_shared import Silent, table, tiny_encoder
from makes import TINY as SPEC
from PIL import Image

import jepa_jax as jj
from jepa_jax.encoders import ENCODERS, Encoder, EncoderSpec, PreprocessSpec, ViTSpec, restore_encoder, save_encoder
from jepa_jax.encoders.identity import FORMAT_1, digest, from_plain, pinned_form, stored_form
from jepa_jax.encoders.parameters import named_arrays
from jepa_jax.encoders.shipped import shipped_directory
from jepa_jax.images.views import RECIPES, ViewRecipe
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.pins import build_manifest
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.reading import read_table
from jepa_jax.training.config import Optimizer, TrainingConfig
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.mlp import MLP
from jepa_jax.training.objectives import LeJEPA
from jepa_jax.training.run_files import differing_fields
from jepa_jax.training.views import VectorViews

GROWN = (EncoderSpec, ViTSpec, PreprocessSpec, ViewRecipe)
END_LATER = f"""
import sys
from pathlib import Path
from begun_before import TRAINING, end, tiny_encoder

spec = tiny_encoder().spec
assert all(x.{FIELD} == 7 for x in (spec, spec.vit, spec.preprocess, TRAINING, TRAINING.encoder, TRAINING.optimizer))
end(Path(sys.argv[1]))
"""
GROWN_IN_TRAINING = (TrainingConfig, Optimizer, JointEmbedding, MLP, LeJEPA, VectorViews)


@dataclasses.dataclass(frozen=True)
class Inner:
    """A part of a spec."""

    size: int
    base: float = 1.5


@dataclasses.dataclass(frozen=True)
class Outer:
    """A spec with a part that may be absent, and a choice that may."""

    inner: Inner | None = None
    kind: Literal["a", "b"] | None = None


def of_format_1(spec: Any) -> dict[str, Any]:
    """What format 1 wrote and hashed of a spec: every field that there was then."""

    def there_was(value: Any) -> Any:
        if not dataclasses.is_dataclass(value):
            return value
        return {name: there_was(getattr(value, name)) for name in FORMAT_1[format_1_class(value)]}

    return json.loads(json.dumps(there_was(spec)))


def format_1_class(spec: Any) -> str:
    return next(cls.__name__ for cls in type(spec).__mro__ if cls.__name__ in FORMAT_1)


def digest_of_format_1(encoder: Encoder) -> str:
    """As format 1 defined it."""
    spec = of_format_1(encoder.spec)
    deciding = {name: spec[name] for name in ("vit", "preprocess", "kernel_dtype", "gaussian_embedding")}
    state = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode())
    for name, array in sorted(named_arrays(encoder.params)):
        state.update(f"{name} {array.dtype} {array.shape}".encode() + np.asarray(array).tobytes())
    return state.hexdigest()


def grown(spec: Any, **added: int) -> Any:
    """The same spec in a class that has another field, and so have the classes of what it holds."""
    values = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    inner = {name: grown(value) for name, value in values.items() if dataclasses.is_dataclass(value)}
    fields: list[Any] = [(FIELD, int, 7)]
    for name, value in inner.items():
        has_default = name in ("preprocess", "optimizer")
        fields.append((name, type(value), field(default_factory=type(value)) if has_default else field()))
    cls = make_dataclass(type(spec).__name__, fields, bases=(type(spec),), frozen=True)
    return cls(**(values | inner | added))


def checkpoint_of_format_1(path: Path, version: Any = 1) -> None:
    """The tiny encoder as it was written before there was a second format."""
    encoder = tiny_encoder()
    save_encoder(encoder, path)
    description = json.loads((path / "encoder.json").read_text())
    assert description["format_version"] == 2
    description |= {"format_version": version, "spec": of_format_1(SPEC), "digest": digest_of_format_1(encoder)}
    (path / "encoder.json").write_text(json.dumps(description))


def test_format_1_is_what_it_was():
    """Its fields are all still there, and those of every spec: whoever adds one leaves the table alone."""
    for cls in GROWN:
        assert set(FORMAT_1[cls.__name__]) <= {f.name for f in dataclasses.fields(cls)}
    assert {name: len(fields) for name, fields in FORMAT_1.items()} == {
        "EncoderSpec": 8,
        "ViTSpec": 18,
        "PreprocessSpec": 6,
        "ViewRecipe": 8,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dinov2-with-registers-giant", "fad298d65dc8e28abac82e80351bf3fd965bb8bb34b1107fafa5c64ae7d1b27f"),
        ("ijepa-vith16-448-1k", "2c82fb633e825c2fc806d551f9a1b541e19dc5ca91c0a22063b3c2e30fed4cb7"),
        ("clip-b32", "6cfb88fcd09d200533170c220de9c484d334a835631652f0bf75b239df815230"),
        ("jepa-tiny", "c270762fc3651ca7b93340a84cf816261b3b5eb339ac560fed46e9016f06fe3b"),
    ],
)
def test_digests_are_those_of_format_1(name: str, expected: str):
    """The literals are what the version that wrote format 1 hashed of these specs, without parameters."""
    assert digest(ENCODERS[name], ()) == expected


def test_the_digest_of_an_encoder_is_that_of_format_1():
    assert tiny_encoder().digest == digest_of_format_1(tiny_encoder())
    expected = "6b4d8524312ed060557712e4a27cee205c7a4843e7179952b05cc6664a7c67c3"
    shipped = json.loads((shipped_directory("jepa-tiny") / "encoder.json").read_text())
    assert shipped["format_version"] == 1
    assert jj.load_encoder("jepa-tiny").digest == shipped["digest"] == expected


@pytest.mark.parametrize("name", ["dinov2-small", "clip-b32", "jepa-tiny"])
def test_a_field_with_a_default_changes_no_form_and_no_digest(name: str):
    spec = ENCODERS[name]
    later = grown(spec)
    assert getattr(later, FIELD) == getattr(later.vit, FIELD) == getattr(later.preprocess, FIELD) == 7
    assert stored_form(later) == stored_form(spec)
    assert pinned_form(later) == pinned_form(spec) == of_format_1(spec)
    assert digest(later, ()) == digest(spec, ())
    assert from_plain(type(later), stored_form(spec), "encoder") == later
    assert from_plain(type(later), of_format_1(spec), "encoder") == later
    for other in (
        grown(spec, **{FIELD: 8}),
        dataclasses.replace(later, vit=dataclasses.replace(later.vit, **{FIELD: 8})),
        dataclasses.replace(later, preprocess=dataclasses.replace(later.preprocess, **{FIELD: 8})),
    ):
        assert digest(other, ()) != digest(spec, ())
        assert pinned_form(other) != pinned_form(spec)
        assert from_plain(type(other), json.loads(json.dumps(stored_form(other))), "encoder") == other
        with pytest.raises(jj.CheckpointError, match=rf"encoder.*: unknown fields \['{FIELD}'\].*convert the weights"):
            EncoderSpec.from_dict(stored_form(other))


def test_views_are_pinned_alike_with_a_later_field():
    for recipe in RECIPES.values():
        assert pinned_form(grown(recipe)) == pinned_form(recipe) == of_format_1(recipe)
    assert pinned_form(grown(RECIPES["clip"], **{FIELD: 8})) == pinned_form(RECIPES["clip"]) | {FIELD: 8}


def test_what_is_stored_are_the_fields_that_are_no_defaults():
    assert SPEC.to_dict() == {
        "name": "tiny",
        "family": "dinov2",
        "vit": {
            "width": 24,
            "depth": 2,
            "heads": 2,
            "patch_size": 14,
            "native_image_size": 56,
            "mlp_width": 48,
            "layer_scale": True,
        },
        "preprocess": {"resize_shortest": 64, "crop": 56},
    }
    assert all(EncoderSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec for spec in ENCODERS.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("vit"), r"encoder: missing fields \['vit'\]"),
        (lambda d: d["vit"].pop("width"), r"encoder\.vit: missing fields \['width'\]"),
        (lambda d: d["vit"].update(b=1, a=2), r"encoder\.vit: unknown fields \['a', 'b'\]"),
        (lambda d: d["vit"].update(width=True), r"encoder\.vit\.width: True is not of type"),
        (lambda d: d["vit"].update(width=24.0), r"encoder\.vit\.width: 24\.0 is not of type"),
        (lambda d: d.update(vit=[]), r"encoder\.vit: expected an object, found \[\]"),
        (lambda d: d["preprocess"].update(crop=65), r"encoder\.preprocess: crop=65 must lie between"),
    ],
    ids=["part", "field", "unknown", "bool", "float", "list", "value"],
)
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_no_spec_is_refused_by_name(change: Any, message: str, version: int):
    data = of_format_1(SPEC) if version == 1 else SPEC.to_dict()
    change(data)
    with pytest.raises(jj.CheckpointError, match=rf"^{message}.*convert the weights again\.$"):
        EncoderSpec.from_dict(data, version)


def test_a_later_part_may_be_absent():
    """A field such as a rotary embedding: None unless there is one, which is a dataclass of its own."""
    spec = Outer()
    assert stored_form(spec) == pinned_form(spec) == {}
    for spec in (Outer(inner=Inner(2)), Outer(inner=Inner(2, 4), kind="b"), Outer(kind="a")):
        plain = json.loads(json.dumps(pinned_form(spec)))
        assert from_plain(Outer, plain, "outer") == spec
    with pytest.raises(jj.CheckpointError, match=r"outer\.inner: missing fields \['size'\]"):
        from_plain(Outer, {"inner": {}}, "outer")


def test_only_format_1_misses_a_field_that_has_a_default():
    """It wrote them all: one that is gone was lost."""
    data = of_format_1(SPEC)
    del data["preprocess"]["squeeze"]
    with pytest.raises(jj.CheckpointError, match=r"encoder\.preprocess: missing fields \['squeeze'\]"):
        EncoderSpec.from_dict(data, 1)
    assert EncoderSpec.from_dict(data) == SPEC


@pytest.mark.parametrize("mean", [(0, 0, 0), (0.0, 0.5, 1)])
def test_whole_numbers_keep_their_digest(mean: tuple[float, float, float], tmp_path: Path):
    spec = dataclasses.replace(SPEC, preprocess=PreprocessSpec(64, 56, mean=mean))
    encoder = Encoder(spec, tiny_encoder().params)
    save_encoder(encoder, tmp_path / "tiny")
    assert restore_encoder(tmp_path / "tiny").digest == encoder.digest == digest_of_format_1(encoder)


def test_a_checkpoint_of_format_1_loads(tmp_path: Path):
    checkpoint_of_format_1(tmp_path / "tiny")
    restored = jj.load_encoder(tmp_path / "tiny")
    assert restored.spec == SPEC
    assert restored.digest == tiny_encoder().digest


@pytest.mark.parametrize("version", [0, 3, True, "1", 1.0, None, []])
def test_other_formats_are_refused(version: Any, tmp_path: Path):
    checkpoint_of_format_1(tmp_path / "tiny", version)
    with pytest.raises(jj.CheckpointError, match=r"format version .*; this jepa_jax reads versions 1, 2\."):
        jj.load_encoder(tmp_path / "tiny")


def test_what_was_begun_before_a_field_came_goes_on_after(tmp_path: Path):
    """A later version has a field more in every class; a real process of it ends what this version began."""
    begun_before.begin(tmp_path)
    output = tmp_path / "out"
    scores = output / "scores"
    parts = {path.name: path.stat().st_mtime_ns for path in scores.glob("part-*.parquet")}
    assert list(parts) == ["part-00000.parquet"]
    later = grown_package(tmp_path / "later", [*GROWN, *GROWN_IN_TRAINING])
    run_with(later, END_LATER, tmp_path)
    assert {name: (scores / name).stat().st_mtime_ns for name in parts} == parts
    assert table(output)["key"].to_pylist() == [f"{i}.png" for i in range(begun_before.RECORDS)]
    # And back: what the later version wrote is this one's as well, as long as nothing new is used.
    assert FIELD not in (output / "manifest.json").read_text()
    resumed = run_job(tiny_encoder(), open_source(tmp_path / "pictures"), output, Silent(), begun_before.OPTIONS)
    assert resumed.resumed == begun_before.RECORDS
    assert restore_encoder(tmp_path / "saved again").digest == tiny_encoder().digest


def test_a_manifest_pins_what_it_pinned_in_format_1(tmp_path: Path):
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    manifest = build_manifest(tiny_encoder(), open_source(tmp_path), JobOptions(views=2), 1, None)
    assert manifest["pinned"]["encoder_digest"] == digest_of_format_1(tiny_encoder())
    assert manifest["pinned"]["preprocessing"] == of_format_1(SPEC.preprocess)
    assert manifest["pinned"]["view_recipe"] == of_format_1(RECIPES["dinov2"])
    assert manifest["encoder_spec"] == of_format_1(SPEC)


def test_a_training_run_keeps_its_config_when_a_field_comes(tmp_path: Path):
    config = begun_before.TRAINING
    plain = json.loads(json.dumps(config.to_dict()))
    optimizer = grown(config.optimizer)
    assert not differing_fields(plain, dataclasses.replace(grown(config), optimizer=optimizer))
    later = dataclasses.replace(config, optimizer=dataclasses.replace(optimizer, **{FIELD: 8}))
    assert differing_fields(plain, later) == {"optimizer"}
    assert differing_fields(json.loads(json.dumps(later.to_dict())), config) == {"optimizer"}
    assert differing_fields(plain | {FIELD: 7}, config) == {FIELD}
    assert differing_fields(plain, grown(config, **{FIELD: 8})) == {FIELD}
    # Of another class with fields of the same names and values, only the tag tells.
    tagged = json.loads(json.dumps(plain))
    tagged["objective"]["criterion"]["kind"] = "SIGReg"
    assert differing_fields(tagged, config) == {"objective"}
    assert differing_fields(plain, dataclasses.replace(config, encoder=SPEC)) == {"encoder"}
    assert differing_fields(plain, dataclasses.replace(config, encoder=MLP(2, (16, 16), 4))) == {"encoder"}


def test_a_table_of_an_unknown_preprocessing_is_not_shown_in_another(tmp_path: Path):
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    np.save(tmp_path / "spectra.npy", np.ones((1, 4)))
    plain = pinned_form(SPEC) | {"preprocess": pinned_form(grown(SPEC.preprocess, **{FIELD: 8}))}
    manifest = {"pinned": {"input": str(tmp_path)}, "encoder_spec": plain}
    scored = dataclasses.replace(read_table(tmp_path / "spectra.npy"), manifest=manifest)
    with pytest.raises(jj.JobError, match=rf"'spectra' tells of .*unknown fields \['{FIELD}'\].*use the version"):
        ImageReader.of(scored)


def test_a_digest_is_that_of_the_arrays_that_are_there_now():
    encoder = tiny_encoder()
    first = encoder.digest
    scale = encoder.params["norm"]["scale"]
    encoder.params["norm"]["scale"] = 2 * scale
    assert encoder.digest != first
    encoder.params["norm"]["scale"] = scale
    assert encoder.digest == first
