"""An update of the weights: attention that keeps documents apart, the loss, many devices, checkpoints."""
