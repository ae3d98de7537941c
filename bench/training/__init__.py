"""How the embedded checkpoints were trained: data, architectures, objectives, loop, measures, cards."""
