"""The smallest model that still learns something of the digits, for tests that train."""

from diffusion_walkthrough.parameters import (
    DiffusionParameters,
    ScheduleParameters,
    TrainingParameters,
    UNetParameters,
)

TINY = DiffusionParameters(
    schedule=ScheduleParameters(timesteps=10),
    unet=UNetParameters(
        image_size=8,
        channels=1,
        base_width=8,
        width_multipliers=(1,),
        residual_blocks=1,
        attention_sizes=(),
        dropout=0.0,
        groups=4,
    ),
    training=TrainingParameters(
        learning_rate=2e-3,
        warmup_steps=0,
        batch_size=32,
        ema_momentum=None,
        horizontal_flip=False,
    ),
    variance="fixed_small",
)

#: The smallest UNet that there can be.
SMALLEST_UNET = UNetParameters(
    image_size=4,
    channels=1,
    base_width=4,
    width_multipliers=(1,),
    residual_blocks=1,
    attention_sizes=(),
    dropout=0.0,
    groups=2,
)
