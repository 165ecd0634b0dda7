"""The score of a layer against PyTorch: a hidden state of `transformers`' DINOv2, normed and pooled as the last is."""

from pathlib import Path

import numpy as np
import torch
import torch_reference as reference

import jepa_jax as jj

LAYERS = (1,)


def test_a_layer_is_a_hidden_state_of_transformers(tmp_path: Path):
    model = reference.random_dinov2(width=32, heads=2, depth=2, image_size=56, registers=True)
    encoder = jj.load_encoder(reference.save_folder(model, tmp_path / "folder"), image_size=28)
    image = np.random.default_rng(0).normal(0, 0.3, (28, 28, 3)).astype(np.float32)
    model.double()

    def layers(pixels: torch.Tensor) -> torch.Tensor:
        states = model(pixel_values=pixels, output_hidden_states=True).hidden_states
        return torch.stack([model.layernorm(states[number])[0, 0] for number in LAYERS])

    with reference.float64_interpolation():
        pixels = torch.as_tensor(image[None]).double().permute(0, 3, 1, 2)
        expected = layers(pixels).numpy()
        jacobians = torch.func.jacrev(layers)(pixels).flatten(2).numpy()
    found = jj.score(encoder, image[None], precision="float64", layers=LAYERS)
    for number, embedding, jacobian in zip(LAYERS, expected, jacobians, strict=True):
        layer = found.layers[number]
        assert layer.log_volume_rank == 30
        spectrum = np.linalg.svd(jacobian, compute_uv=False)
        # Some hundreds of dependent float64 sums, and a spectrum by way of squares.
        np.testing.assert_allclose(layer.embedding[0], embedding, rtol=0, atol=1e-12 * np.abs(embedding).max())
        np.testing.assert_allclose(layer.singular_values[0, :30], spectrum[:30], rtol=1e-9)
        # The second null direction, zero up to LayerNorm's epsilon, is projected out here and left out there.
        assert abs(float(layer.score[0]) - np.log(spectrum[:30]).sum()) <= 1e-8
