"""How good a fused image is: the field's metrics as functions, MONAI metrics and Ignite handlers."""
