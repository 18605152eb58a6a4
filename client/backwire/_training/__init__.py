"""Training loops: data, optimizers, schedules, callbacks and their histories."""
