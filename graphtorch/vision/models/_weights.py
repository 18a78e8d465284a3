"""What `weights=` means here."""

from __future__ import annotations


def refuse_weights(weights: object) -> None:
    """Raises ValueError: this package ships no trained weights."""
    if weights is not None:
        raise ValueError(
            f"no trained weights are available (weights={weights!r}); "
            "load a file of them: model.load_state_dict(torch.load(path))"
        )
