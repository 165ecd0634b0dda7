"""The encoder that ships: a small ViT on CIFAR-10, LeJEPA on the scored embedding itself, whitened.

Command: jepa-jax train jepa-tiny --data cifar10.npz --output run/
    (x_train: the 50,000 training images, uint8 [N, 32, 32, 3]; on Linux, GLIBC_TUNABLES=glibc.malloc.hugetlb=1 makes
    a step about a third faster)
Cost: 3,000 steps of 4 x 256 crops, 0.6 to 0.9 s each on two quiet cores with AMX: about 40 minutes there.
Result: the figures in jepa_jax/encoders/jepa_tiny/MODEL_CARD.md.
"""

from jepa_jax.encoders import EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.training.config import Optimizer, TrainingConfig
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.objectives import LeJEPA
from jepa_jax.training.views import Crops, ImageViews

CONFIG = TrainingConfig(
    name="jepa-tiny",
    encoder=EncoderSpec(
        name="jepa-tiny",
        family="vit",
        vit=ViTSpec(
            width=128,
            depth=4,
            heads=2,
            patch_size=4,
            native_image_size=32,
            mlp_width=256,
            class_token=False,
            pooling="mean_patches",
            projection=64,
        ),
        preprocess=PreprocessSpec(
            resize_shortest=32, crop=32, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)
        ),
        licence="Apache-2.0",
        gaussian_embedding=True,
    ),
    objective=JointEmbedding(
        views=ImageViews((Crops(count=4, size=16, scale=(0.15, 0.7)),)),
        criterion=LeJEPA(weight=0.05, directions=64),
        whitened=True,
    ),
    optimizer=Optimizer(kind="muon", learning_rate=2e-3, weight_decay=0.05, warmup_steps=40, decay_steps=500),
    start="mimetic",
    steps=3000,
    batch_size=256,
    bfloat16_products=True,
    log_every=10,
    checkpoint_every=100,
)
