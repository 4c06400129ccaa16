"""From a model's files to what answers its requests: one backend for each kind of servable, chosen by the config."""
